//! The fuzz targets of `fuzz/`: built with the stable compiler's own instrumentation, so that neither
//! a nightly toolchain nor cargo-fuzz is needed, and run for as long as requested.
//!
//! ```text
//!   fuzz/corpus-seed/<target>/   small inputs, in the repository
//!   <cache>/fuzz/corpus/         what was found beyond them; it grows from run to run
//!   <cache>/fuzz/crashes/        what a target failed at
//! ```

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cargo::cargo;
use crate::places::Places;
use crate::terminal::say;
use crate::{packages, program};

/// The targets: the files of `fuzz/fuzz_targets`.
pub(crate) const TARGETS: [&str; 6] =
    ["manifest", "http", "firecracker_replies", "proc", "names", "rows"];

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What `cargo fuzz build --sanitizer none` tells the compiler. Hearth's own code is safe Rust: its
/// faults are panics, which need no sanitizer to be seen.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// An input that takes longer than this, in seconds, is a fault. The slowest take 0.1 s, and the
/// machine may be busy.
const INPUT_SECONDS_MAX: u32 = 25;
/// A target that needs more memory than this, in MiB, has a fault.
const MEMORY_MIB_MAX: u32 = 2048;
/// Bytes of a failing input that are shown.
const SHOWN_BYTES_MAX: usize = 4096;

/// How a run of a target went.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) target: &'static str,
    /// What it failed at.
    pub(crate) crash: Option<PathBuf>,
    pub(crate) failed: bool,
}

/// Builds the targets; returns the directory with the programs.
pub(crate) fn build(places: &Places) -> Result<PathBuf> {
    packages::ensure(packages::FUZZ)?;
    let target = places.target.join("fuzz");
    let mut build = cargo(places);
    build
        .args(["build", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--bins"])
        // With a target of its own, so that build scripts and macros go without the flags.
        .args(["--target", TARGET])
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", &target);
    program::run(&mut build)?;
    Ok(target.join(TARGET).join("debug"))
}

/// Runs `targets`, as many at once as there are processors, each for `time`.
pub(crate) fn run(
    places: &Places,
    programs: &Path,
    targets: &[&'static str],
    time: Duration,
) -> Result<Vec<Run>> {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let work = tempfile::tempdir_in(base).context("cannot create a temporary directory")?;
    let queue = Mutex::new(targets.iter().copied().collect::<VecDeque<_>>());
    let next = || queue.lock().ok()?.pop_front();
    let worker = || -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        while let Some(target) = next() {
            runs.push(run_one(places, programs, target, time, work.path())?);
        }
        Ok(runs)
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    let runs: Vec<Result<Vec<Run>>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let panicked = |_| Err(anyhow::anyhow!("a thread panicked"));
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(panicked)).collect()
    });
    let mut all = Vec::new();
    for runs in runs {
        all.extend(runs?);
    }
    Ok(all)
}

fn run_one(
    places: &Places,
    programs: &Path,
    target: &'static str,
    time: Duration,
    work: &Path,
) -> Result<Run> {
    let corpus = made(&places.cache.join("fuzz/corpus").join(target))?;
    let crashes = made(&places.cache.join("fuzz/crashes"))?;
    let seed = places.repo.join("fuzz/corpus-seed").join(target);
    let dictionary = places.repo.join("fuzz/dictionaries").join(format!("{target}.dict"));
    let own = made(&work.join(target))?;
    let log = own.join("log");
    let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let before = files(&crashes)?;
    let mut command = program::command(programs.join(target));
    command
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-dict={}", dictionary.display()))
        .arg(format!("-artifact_prefix={}/{target}-", crashes.display()))
        .arg("-print_final_stats=1")
        // What it finds goes into the first.
        .args([&corpus, &seed])
        .env("TMPDIR", &own)
        // The message is enough to begin with; `again` shows the way to it.
        .env("RUST_BACKTRACE", "0")
        .current_dir(&own)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    let status = command.status().with_context(|| format!("cannot run {target}"))?;
    let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    // `#7466 DONE cov: 11981 ft: 39866 corp: 1025/339Kb …`, below which a dictionary is suggested.
    let is_progress = |line: &&str| line.starts_with('#') && !line.starts_with("##");
    let progress = text.lines().rev().find(is_progress).unwrap_or_default();
    let progress = progress.replace('\t', " ");
    say(format_args!("fuzz {target}: {progress}"));
    let new = files(&crashes)?.into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(target) && !before.contains(path)
    });
    let run = Run { target, crash: new, failed: !status.success() };
    if run.failed {
        tell(&run, programs, &text);
    }
    Ok(run)
}

/// Says what a target failed at, whole, so that the log has it when the machine is gone.
fn tell(run: &Run, programs: &Path, log: &str) {
    let target = run.target;
    let coverage = |line: &&str| !line.starts_with('#') && !line.starts_with("INFO:");
    let lines: Vec<&str> = log.lines().filter(coverage).collect();
    say(format_args!("\nfuzz {target} FAILED:"));
    lines[lines.len().saturating_sub(60)..].iter().for_each(say);
    let Some(path) = &run.crash else { return };
    let bytes = fs::read(path).unwrap_or_default();
    let shown = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii();
    say(format_args!("\nits input, {} bytes: \"{shown}\"", bytes.len()));
    say(format_args!("again: {} {}", programs.join(target).display(), path.display()));
    say(format_args!(
        "once fixed, add it to fuzz/corpus-seed/{target}/ under a name that says what it is"
    ));
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn made(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_target_is_run_and_has_seeds_and_a_dictionary() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz");
        let names = |dir: &str| {
            let paths = files(&fuzz.join(dir)).unwrap();
            let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
            paths.iter().map(stem).collect::<BTreeSet<_>>()
        };
        let targets: BTreeSet<_> = TARGETS.map(str::to_owned).into();
        assert_eq!(names("fuzz_targets"), targets);
        assert_eq!(names("corpus-seed"), targets);
        assert_eq!(names("dictionaries"), targets);
        for target in TARGETS {
            assert!(!names(&format!("corpus-seed/{target}")).is_empty(), "{target} has no seeds");
        }
    }
}
