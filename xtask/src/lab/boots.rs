//! Many boots of guests in the lab, to count how often it loses its kernel (`docs/adr/0005`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Lab, Session, Streams};
use crate::setup::Ready;
use crate::terminal::say;

const SCRIPT: &str = include_str!("boots.sh");

/// What came of the boots.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boots {
    /// Guests that ran their command.
    pub(crate) booted: u64,
    /// Guests that did not, in a lab that took commands afterwards.
    pub(crate) failed: u64,
    /// How often the lab went away under them.
    pub(crate) labs_lost: u64,
}

/// Boots `count` guests with two CPUs each, two at a time, in one lab, or until it is lost.
pub(crate) fn boots(lab: &Lab, hearth: &Path, ready: &Ready, count: u64) -> Result<Boots> {
    let output = tempfile::NamedTempFile::new().context("cannot create a file for output")?;
    let words = ["sh", "-c", SCRIPT, "boots"].map(str::to_owned).into_iter();
    let paths = [hearth, &ready.firecracker, &ready.images].map(|path| path.display().to_string());
    let command = words.chain(paths).chain([count.to_string()]).collect();
    let mut session = Session::new(command)?;
    session.streams = Streams::Logged(output.path().to_owned());
    let (status, lost) = lab.run_watched(&session)?;
    let text = fs::read(output.path()).context("cannot read what was said in the lab")?;
    let text = String::from_utf8_lossy(&text);
    let booted = text.lines().filter(|line| line.starts_with("booted ")).count() as u64;
    if let Some(why) = lost {
        say(format_args!("lab: lost after {booted} boots: {why}"));
        return Ok(Boots { booted, failed: 0, labs_lost: 1 });
    }
    if status != 0 {
        bail!("the boots ended with {status}: {text}");
    }
    let failed = count - booted;
    if failed > 0 {
        say(format_args!("lab: {failed} guests did not boot: {text}"));
    }
    Ok(Boots { booted, failed, labs_lost: 0 })
}

impl std::ops::AddAssign for Boots {
    fn add_assign(&mut self, other: Self) {
        self.booted += other.booted;
        self.failed += other.failed;
        self.labs_lost += other.labs_lost;
    }
}
