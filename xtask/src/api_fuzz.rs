//! Fuzzing of the API: Schemathesis makes valid and invalid requests from `openapi.json`, sends them
//! to a daemon on a simulated host, and compares every answer with the document. First each request
//! by itself; then sequences, in which a request follows the document's links with the jobs and
//! generations that the previous answer named.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cargo::build_as_for_tests;
use crate::places::Places;
use crate::terminal::say;
use crate::{packages, program};

/// How long requests are tried out by themselves with every commit, and then sequences: most of what was
/// ever found came in the first ten seconds.
pub(crate) const OF_EACH_COMMIT: Duration = Duration::from_secs(20);
/// The seed of every commit.
pub(crate) const SEED: u64 = 1;
/// Jobs of each lifecycle that are there for sequences to begin with; each deletes some.
const JOBS: usize = 40;
/// Links of the document that sequences follow at least; on an idle machine some 50 of 91 are.
const LINKS_MIN: usize = 15;
/// Schemathesis and all that it needs, by version.
const REQUIREMENTS: &str = include_str!("../api-fuzz/requirements.txt");

/// Tries the API out for so long by single requests, and for so long by sequences.
pub(crate) fn run(places: &Places, schemathesis: &Path, each: Duration, seed: u64) -> Result<()> {
    let hearth = build_as_for_tests(places)?.join("hearth");
    let try_out = |phases| try_out(places, &hearth, schemathesis, phases, each, seed);
    try_out("examples,coverage,fuzzing")?;
    let said = try_out("stateful")?;
    let followed = links_followed(&said).context("it does not say which links it followed")?;
    if followed < LINKS_MIN {
        bail!("the sequences followed {followed} links of openapi.json, and not {LINKS_MIN}");
    }
    Ok(())
}

/// Some phases of Schemathesis, against a daemon of its own; what it said.
fn try_out(
    places: &Places,
    hearth: &Path,
    schemathesis: &Path,
    phases: &str,
    time: Duration,
    seed: u64,
) -> Result<String> {
    let work = tempfile::tempdir().context("cannot create a temporary directory")?;
    let daemon = Daemon::start(hearth, work.path())?;
    let mut command = program::command(schemathesis);
    command.arg("--config-file").arg(places.repo.join("xtask/api-fuzz/schemathesis.toml"));
    command.arg("run").arg(format!("{}/openapi.json", daemon.url)).args(["--phases", phases]);
    command.arg("--max-time").arg(time.as_secs().to_string());
    command.arg("--seed").arg(seed.to_string());
    command.args(["--request-timeout", "25", "--no-color"]);
    // It leaves its findings where it runs.
    command.current_dir(work.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.stderr(Stdio::inherit()).output().context("cannot run schemathesis")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    say(&said);
    if !output.status.success() {
        bail!("an answer is not what openapi.json says; the requests are above");
    }
    Ok(said)
}

/// How many links were followed: `API Links:    51 covered / 91 selected / …`.
fn links_followed(said: &str) -> Option<usize> {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("API Links:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Jobs as a desired-state file declares them.
fn jobs() -> String {
    let job = |lifecycle: &str, number: usize| {
        serde_json::json!({
            "job_id": format!("{lifecycle}-{number}"),
            "spec": {
                "rootfs": "rootfs.ext4", "kernel": "vmlinux", "cmd": ["/app"],
                "resources": {"vcpu": 1, "mem_mb": 128}, "lifecycle": lifecycle,
            },
        })
    };
    let of = |lifecycle| (0..JOBS).map(move |number| job(lifecycle, number));
    let jobs: Vec<_> = ["service", "daemon", "job"].into_iter().flat_map(of).collect();
    serde_json::Value::Array(jobs).to_string()
}

/// Schemathesis in an environment of its own, made when the cache lacks it.
pub(crate) fn ensure(places: &Places) -> Result<PathBuf> {
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
        let desired = work.join("jobs.json");
        fs::write(&desired, jobs())
            .with_context(|| format!("cannot write {}", desired.display()))?;
        command.arg("--desired").arg(&desired);
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

#[cfg(test)]
mod self_tests {
    use super::links_followed;

    #[test]
    fn the_links_that_were_followed_are_counted() {
        let said = "  Scenarios:    474\n     API Links:    51 covered / 91 selected / 91 total\n";
        assert_eq!(links_followed(said), Some(51));
        assert_eq!(links_followed("  Scenarios:    474\n"), None);
    }
}
