//! `cargo xtask soak`: tests that take too long for each commit. Each part runs for about as
//! long as it is told to, continues where the last run ended, and adds a row to the ledger.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cargo::{build_as_for_tests, cargo};
use crate::lab::{self, Boots, Lab};
use crate::ledger::Ledger;
use crate::places::Places;
use crate::terminal::say;
use crate::{api_fuzz, fuzz, guest_init, kvm, mutants, packages, program, schedules, setup};

const SEEDS_AT_ONCE: u64 = 20_000;
const KILLS_AT_ONCE: u64 = 500;
/// Some changes make no difference, and some only to a sentence.
const MUTANTS_PERCENT_MIN: u64 = 95;

/// What there is to soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Schedules of faults that no run has had yet
    Schedules,
    /// kill -9 at every point of every recovery of a simulated run
    Pairs,
    /// kill -9 of the daemon under load, with bare guests on real Firecracker
    Kills,
    /// kill -9 at each system call of a run, on the simulated host and with bare guests
    Syscalls,
    /// Every remains of a loss of power at every moment of a run
    Power,
    /// 1,000 microVMs over a kill of their daemon, and microVMs that come and go; prints what it measures
    Many,
    /// Whether the simulation finds each planted bug
    Planted,
    /// Whether the tests notice each small change of planner and model
    Mutants,
    /// The fuzz targets, by turns
    Fuzz,
    /// The API, by requests and sequences that no run has had yet
    ApiFuzz,
    /// Linux guests that boot in the lab, and how often its kernel is lost under them
    Lab,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Schedules => "schedules",
            Part::Pairs => "runs killed at every pair of points",
            Part::Kills => "kills",
            Part::Syscalls => "runs killed at every system call",
            Part::Power => "runs that lost the power at every moment",
            Part::Many => "minutes of microVMs that come and go",
            Part::Planted => "planted bugs found",
            Part::Mutants => "mutants of planner and model",
            Part::Fuzz => "fuzz",
            Part::ApiFuzz => "API fuzz",
            Part::Lab => "boots of Linux guests in the lab",
        }
    }
}

/// Runs a part for so many minutes, and enters what came out.
pub(crate) fn run(places: &Places, part: Part, minutes: u64) -> Result<()> {
    let ledger = Ledger::of(&places.repo);
    // Nothing that uses the host builds without it.
    guest_init::ensure(places)?;
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let (count, failures) = match part {
        Part::Schedules => schedules(places, ledger.sum(part.name())?, until)?,
        Part::Pairs => (1, pairs(places)?),
        Part::Kills => {
            let kills = KILLS_AT_ONCE.to_string();
            let (runs, failures) = runs(
                places,
                "kills",
                "HEARTH_KILLS",
                &kills,
                1000 + ledger.sum(part.name())?,
                until,
            )?;
            (runs * KILLS_AT_ONCE, failures)
        }
        Part::Syscalls => runs(
            places,
            "syscalls",
            "HEARTH_SYSCALLS",
            "all",
            1000 + ledger.sum(part.name())?,
            until,
        )?,
        Part::Power => {
            runs(places, "power", "HEARTH_POWER", "all", 1000 + ledger.sum(part.name())?, until)?
        }
        Part::Many => (minutes, many(places, minutes)?),
        Part::Planted => planted(places)?,
        Part::Mutants => mutated(places)?,
        Part::Fuzz => return fuzzed(places, &ledger, minutes),
        Part::ApiFuzz => api_fuzzed(places, ledger.sum(part.name())?, minutes)?,
        Part::Lab => boots(places, minutes)?,
    };
    ledger.enter(places, part.name(), count, &failures)?;
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("{} failed: {}", part.name(), failures.join(", ")),
    }
}

fn schedules(places: &Places, done: u64, until: Instant) -> Result<(u64, Vec<String>)> {
    let (mut count, mut failures) = (0, Vec::new());
    while Instant::now() < until && failures.is_empty() {
        let from = schedules::FIRST_OF_SOAK + done + count;
        failures = schedules::run(places, from..from + SEEDS_AT_ONCE)?;
        count += SEEDS_AT_ONCE;
    }
    Ok((count, failures))
}

fn pairs(places: &Places) -> Result<Vec<String>> {
    let mut run = cargo(places);
    run.args(["test", "--quiet", "--workspace", "--test", "crash_points", "recovery"]);
    let passed = run.env("HEARTH_PAIRS", "all").status().context("cannot run the simulation")?;
    Ok(if passed.success() { Vec::new() } else { vec!["see above".to_owned()] })
}

/// Runs a test of the real daemon again and again, each time from another seed and as thoroughly as
/// `variable` says.
fn runs(
    places: &Places,
    test: &str,
    variable: &str,
    extent: &str,
    first_seed: u64,
    until: Instant,
) -> Result<(u64, Vec<String>)> {
    if let Err(reason) = kvm::can_open() {
        bail!("{test} needs /dev/kvm: {reason}");
    }
    let ready = setup::ensure(places)?;
    packages::ensure(packages::SYSTEM)?;
    let (mut count, mut failures) = (0, Vec::new());
    while Instant::now() < until && failures.is_empty() {
        let seed = first_seed + count;
        let mut run = cargo(places);
        run.args(["test", "--quiet", "--workspace", "--test", "suite", "--", &format!("{test}::")])
            .env("HEARTH_TEST_IMAGES", &ready.images)
            .env("HEARTH_TEST_FIRECRACKER", &ready.firecracker)
            .env(variable, extent)
            .env("HEARTH_SEED", seed.to_string());
        if !run.status().with_context(|| format!("cannot run {test}"))?.success() {
            failures.push(format!("HEARTH_SEED={seed}"));
        }
        count += 1;
    }
    Ok((count, failures))
}

fn many(places: &Places, minutes: u64) -> Result<Vec<String>> {
    if let Err(reason) = kvm::can_open() {
        bail!("many microVMs need /dev/kvm: {reason}");
    }
    let ready = setup::ensure(places)?;
    let mut run = cargo(places);
    // One after the other: what is measured of the one is not to wait for the other.
    run.args(["test", "--quiet", "--workspace", "--test", "suite", "--", "scale::"])
        .args(["--nocapture", "--test-threads", "1"])
        .env("HEARTH_TEST_IMAGES", &ready.images)
        .env("HEARTH_TEST_FIRECRACKER", &ready.firecracker)
        .env("HEARTH_INSTANCES", "1000")
        .env("HEARTH_DEATHS", "30")
        .env("HEARTH_CHURN_SECONDS", (minutes * 60).to_string());
    let held = run.status().context("cannot run many microVMs")?.success();
    Ok(if held { Vec::new() } else { vec!["see above".to_owned()] })
}

/// Every target gets the same part of the time; the ledger says how many minutes of a processor.
fn fuzzed(places: &Places, ledger: &Ledger, minutes: u64) -> Result<()> {
    let programs = fuzz::build(places)?;
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let targets = fuzz::TARGETS.len() as u64;
    let each = Duration::from_secs((minutes * 60 * processors.min(targets) / targets).max(1));
    let mut failed = Vec::new();
    for run in fuzz::run(places, &programs, &fuzz::TARGETS, each)? {
        let name =
            |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let failures: Vec<String> = match run.failed {
            true => vec![run.crash.as_ref().and_then(name).unwrap_or("no input".to_owned())],
            false => Vec::new(),
        };
        ledger.enter(places, &format!("fuzz {}", run.target), each.as_secs() / 60, &failures)?;
        failed.extend(failures);
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("fuzz failed at {}", failed.join(", ")),
    }
}

/// Half of the time for single requests, half for sequences; each round from another seed.
fn api_fuzzed(places: &Places, done: u64, minutes: u64) -> Result<(u64, Vec<String>)> {
    let schemathesis = api_fuzz::ensure(places)?;
    let minute = Duration::from_secs(30);
    for round in 0..minutes {
        let seed = api_fuzz::SEED + 1 + done + round;
        if let Err(error) = api_fuzz::run(places, &schemathesis, minute, seed) {
            return Ok((round, vec![format!("seed {seed}: {error:#}")]));
        }
    }
    Ok((minutes, Vec::new()))
}

/// A lab each for so many boots: one that lives longer than a `make test` says nothing more.
const BOOTS_OF_ONE_LAB: u64 = 20;

/// A lost lab is counted, and is no failure: it is the emulation's. A guest that does not boot is one.
fn boots(places: &Places, minutes: u64) -> Result<(u64, Vec<String>)> {
    let ready = setup::ensure(places)?;
    let hearth = build_as_for_tests(places)?.join("hearth");
    let lab = Lab::of(places)?;
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let mut all = Boots::default();
    while Instant::now() < until {
        all += lab::boots(&lab, &hearth, &ready, BOOTS_OF_ONE_LAB)?;
        lab.down()?;
        say(format_args!("soak: {} boots, {} labs lost", all.booted, all.labs_lost));
    }
    let failures = match all.failed {
        0 => Vec::new(),
        failed => vec![format!("{failed} guests did not boot")],
    };
    Ok((all.booted, failures))
}

/// Enough of them have to be noticed; the ledger says how many were not.
fn mutated(places: &Places) -> Result<(u64, Vec<String>)> {
    let count = mutants::run(places)?;
    let summary = format!("{} not noticed: {} % are", count.missed.len(), count.percent());
    let enough = count.percent() >= MUTANTS_PERCENT_MIN;
    say(format_args!("soak: of {} changes {summary}", count.all()));
    Ok((count.all(), if enough { Vec::new() } else { vec![summary] }))
}

/// Each patch in a copy of the sources: the simulation has to fail within 10,000 seeds.
fn planted(places: &Places) -> Result<(u64, Vec<String>)> {
    let copy = places.target.join("planted");
    let _ = fs::remove_dir_all(&copy);
    let clone = ["clone", "--quiet", "--no-hardlinks", "."];
    program::run(program::command("git").args(clone).arg(&copy).current_dir(&places.repo))?;
    fs::create_dir_all(copy.join("build"))?;
    fs::copy(places.build.join("hearth-init"), copy.join("build/hearth-init"))
        .context("cannot copy the init")?;
    let dir = places.repo.join("crates/simulation/planted");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut patches: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    let (mut found, mut missed) = (0, Vec::new());
    for patch in patches {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if finds(places, &copy, &patch)? {
            say(format_args!("soak: found {name}"));
            found += 1;
        } else {
            say(format_args!("soak: NOT FOUND {name}"));
            missed.push(name);
        }
    }
    Ok((found, missed))
}

fn finds(places: &Places, copy: &Path, patch: &Path) -> Result<bool> {
    let git = |args: &[&str]| {
        let mut git = program::command("git");
        git.args(args).current_dir(copy);
        git
    };
    program::run(&mut git(&["checkout", "--quiet", "."]))?;
    program::run(git(&["apply"]).arg(patch))?;
    let mut build = cargo(places);
    build.current_dir(copy).env("CARGO_TARGET_DIR", copy.join("target"));
    program::run(build.args(["build", "--quiet", "-p", "hearth-simulation"]))?;
    let mut run = program::command(copy.join("target/debug/hearth-simulation"));
    Ok(!program::succeeds(run.args(["--sqlite", "--brief", "--count", "10000"])))
}
