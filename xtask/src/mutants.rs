//! cargo-mutants on the planner and the model: small changes of their code, each of which some test has to
//! notice. First their own tests look, which takes seconds a change; then, at what those miss, the tests of
//! what is built on them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cargo::cargo;
use crate::places::Places;
use crate::terminal::say;
use crate::{packages, program};

const VERSION: &str = "27.1.0";
const MUTATED: [&str; 2] = ["hearth-model", "hearth-planner"];
/// What notices at the second look, beside their own tests.
const BUILT_ON_THEM: [&str; 3] = ["hearth-desired-file", "hearth-engine", "hearth-store"];
/// Tests take seconds, and some changes make endless loops.
const TEST_SECONDS_MAX: &str = "90";

/// What came of all changes that compile.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) caught: u64,
    /// Those that nothing noticed, as cargo-mutants names them.
    pub(crate) missed: Vec<String>,
}

impl Count {
    pub(crate) fn all(&self) -> u64 {
        self.caught + self.missed.len() as u64
    }

    pub(crate) fn percent(&self) -> u64 {
        self.caught * 100 / self.all().max(1)
    }
}

/// Tries all of them. This takes half an hour on two processors.
pub(crate) fn run(places: &Places) -> Result<Count> {
    let tool = tool(places)?;
    let out = places.target.join("mutants");
    let _ = fs::remove_dir_all(&out);
    let lists = out.join("mutants.out");
    look(places, &tool, &out, &MUTATED)?;
    let first = lines(&lists, "caught.txt")?.len() + lines(&lists, "timeout.txt")?.len();
    let left = lines(&lists, "missed.txt")?.len();
    say(format_args!("soak: their own tests notice {first} changes of {}", first + left));
    if left > 0 {
        let all = [MUTATED.as_slice(), &BUILT_ON_THEM].concat();
        look(places, &tool, &out, &all)?;
    }
    let missed = lines(&lists, "missed.txt")?;
    missed.iter().for_each(|name| say(format_args!("soak: NOT NOTICED {name}")));
    let caught = (first + left - missed.len()) as u64;
    Ok(Count { caught, missed })
}

/// One look, by the tests of these packages, at what no look has caught yet.
fn look(places: &Places, tool: &Path, out: &Path, packages: &[&str]) -> Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut run = program::command(tool);
    run.arg("mutants").arg("--dir").arg(&places.repo).arg("--output").arg(out);
    MUTATED.iter().for_each(|package| {
        run.args(["--package", package]);
    });
    run.arg("--test-package").arg(packages.join(","));
    run.args(["--iterate", "--no-shuffle", "--timeout", TEST_SECONDS_MAX]);
    run.args(["--jobs", &processors.to_string()]);
    // What is compiled is run once.
    run.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR");
    let status = run.status().context("cannot run cargo-mutants")?;
    // 2: some were missed; 3: some took too long, and so were noticed.
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo-mutants failed: {status}");
    Ok(())
}

fn lines(dir: &Path, name: &str) -> Result<Vec<String>> {
    let path = dir.join(name);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// cargo-mutants, built into the cache where that lacks it.
fn tool(places: &Places) -> Result<PathBuf> {
    let dir = places.cache.join("tools").join(format!("cargo-mutants-{VERSION}"));
    let binary = dir.join("bin/cargo-mutants");
    if !binary.exists() {
        packages::ensure(packages::FUZZ)?;
        say(format_args!("setup: building cargo-mutants {VERSION} (finds what no test notices)"));
        let mut install = cargo(places);
        install.args(["install", "--quiet", "--locked", "cargo-mutants", "--version", VERSION]);
        program::run(install.arg("--root").arg(&dir))?;
    }
    Ok(binary)
}
