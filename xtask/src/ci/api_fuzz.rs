//! The API is tried out by a program: Schemathesis makes requests of `openapi.json`, right ones and
//! wrong ones, sends them to a daemon on a simulated host, and holds every answer to the document.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};

use super::Outcome;
use crate::cargo::cargo;
use crate::places::Places;
use crate::terminal::say;
use crate::{packages, program};

/// How long it is tried out, in seconds: most of what was ever found came in the first ten.
const SECONDS: &str = "35";
/// Schemathesis and all that it needs, by version.
const REQUIREMENTS: &str = include_str!("../../api-fuzz/requirements.txt");

/// Tries the API out; skipped where Schemathesis can't be had.
pub(super) fn run(places: &Places) -> Result<Outcome> {
    let schemathesis = match ensure(places) {
        Ok(schemathesis) => schemathesis,
        Err(error) => return Ok(Outcome::Skipped(1, format!("no schemathesis: {error:#}"))),
    };
    program::run(cargo(places).args(["build", "--quiet", "-p", "hearth"]))?;
    let work = tempfile::tempdir().context("cannot create a temporary directory")?;
    let daemon = Daemon::start(&places.target.join("debug/hearth"), work.path())?;
    let mut command = program::command(&schemathesis);
    command.arg("--config-file").arg(places.repo.join("xtask/api-fuzz/schemathesis.toml"));
    command.arg("run").arg(format!("{}/openapi.json", daemon.url));
    command.args(["--max-time", SECONDS, "--request-timeout", "25", "--no-color"]);
    // It leaves its findings where it runs.
    command.current_dir(work.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    let status = command.status().context("cannot run schemathesis")?;
    if !status.success() {
        bail!("an answer is not what openapi.json says; the requests are above");
    }
    Ok(Outcome::Held)
}

/// The program in an environment of its own, made when the cache lacks it.
fn ensure(places: &Places) -> Result<PathBuf> {
    let dir = places.cache.join("tools").join(format!("schemathesis-{}", version()?));
    let program = dir.join("bin/schemathesis");
    let complete = dir.join("complete");
    if complete.is_file() {
        return Ok(program);
    }
    packages::ensure(packages::PIP)?;
    say(format_args!("setup: fetching schemathesis {} (tries the API out)", version()?));
    fs::create_dir_all(places.cache.join("tools")).context("cannot create the tools' directory")?;
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    let venv = ["-m", "venv", "--without-pip"];
    program::output(program::command("python3").args(venv).arg(&dir))?;
    let requirements = dir.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)
        .with_context(|| format!("cannot write {}", requirements.display()))?;
    let mut pip = program::command("python3");
    pip.args(["-m", "pip", "--python"]).arg(dir.join("bin/python"));
    pip.args(["install", "-q", "--no-deps", "--only-binary=:all:", "-r"]).arg(&requirements);
    program::output(&mut pip)?;
    fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    Ok(program)
}

fn version() -> Result<&'static str> {
    let pinned = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("schemathesis=="));
    pinned.context("schemathesis is not pinned in requirements.txt")
}

/// A daemon that ends with the stage.
struct Daemon {
    child: Child,
    url: String,
}

impl Daemon {
    fn start(hearth: &Path, work: &Path) -> Result<Daemon> {
        let mut command = program::command(hearth);
        command.args(["serve", "--host", "sim", "--sim-boot-ms", "20", "--listen", "127.0.0.1:0"]);
        command.arg("--state-dir").arg(work.join("state")).current_dir(work);
        let log = fs::File::create(work.join("log")).context("cannot create a log")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", hearth.display()))?;
        let mut line = String::new();
        if let Some(stdout) = &mut child.stdout {
            BufReader::new(stdout).read_line(&mut line).context("cannot read from the daemon")?;
        }
        let mut daemon = Daemon { child, url: String::new() };
        let url =
            line.strip_prefix("hearth: listening on ").and_then(|rest| rest.split(' ').next());
        url.with_context(|| format!("the daemon said {line:?}"))?.clone_into(&mut daemon.url);
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
