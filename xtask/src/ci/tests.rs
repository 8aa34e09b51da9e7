//! The tests: those that run anywhere, those that need Elixir (in modules named `elixir`), those that
//! trace processes and mount (in modules named `system`), those that need `/dev/kvm` (in modules named
//! `native`), and those that need a KVM which boots Linux (in modules named `lab`). All are built once.
//!
//! What the last two need is told to them by three variables: `HEARTH_TEST_IMAGES` (a directory of
//! images), `HEARTH_TEST_FIRECRACKER` (the binary) and `HEARTH_TEST_STATE` (a directory that they
//! may fill, on a file system that holds databases and sparse files).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Count, NEXTEST, Outcome};
use crate::cargo::cargo;
use crate::lab::{Lab, Session, Streams};
use crate::places::Places;
use crate::setup::Ready;
use crate::terminal::say;
use crate::{kvm, packages, program, wheel};

const NATIVE: &str = "test(/(^|::)native::/) - package(xtask)";
const ELIXIR: &str = "test(/(^|::)elixir::/) - package(xtask)";
const SYSTEM: &str = "test(/(^|::)system::/) - package(xtask)";
const LAB: &str = "test(/(^|::)lab::/) - package(xtask)";
/// A test in the lab that takes longer than this hangs.
const LAB_TEST_SECONDS_MAX: &str = "600";
/// How often a test is begun again since the lab was lost under it: where no new QEMU can be had it still
/// loses its kernel (`docs/adr/0005`). It says nothing of the test; each loss is told, and one more is a
/// failure.
const LAB_RESTARTS_MAX: usize = 2;
/// How often in one run a test is begun again since a guest hung, in its boot or with a vCPU that spins, as an
/// emulated CPU makes it (`docs/adr/0005`). Each is told; a fault of Hearth's would come more often.
const GUEST_HANGS_MAX: usize = 3;
/// How a test says it: `crates/host/tests/suite/support`, and how a daemon does.
const GUEST_HANGS: [&str; 2] = ["; a guest hangs", "the guest did not report within"];
const LAB_STATE: &str = "/var/lib/hearth/tests";

/// How a test in the lab ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Passed,
    Failed,
    /// The lab went away under it.
    LabLost,
    /// A guest hung, as the test says by [`GUEST_HANGS`].
    GuestHung,
}

#[derive(Debug)]
pub(super) struct Tests<'a> {
    places: &'a Places,
    ready: &'a Ready,
    /// Where cargo-nextest is, if it is not on the search path.
    nextest: Option<PathBuf>,
}

/// A test binary, as nextest lists it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Suite {
    binary_id: String,
    binary_path: PathBuf,
    cwd: PathBuf,
    testcases: BTreeMap<String, Case>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Case {
    filter_match: Match,
}

#[derive(Debug, Deserialize)]
struct Match {
    status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Listing {
    rust_suites: BTreeMap<String, Suite>,
}

impl<'a> Tests<'a> {
    pub(super) fn new(places: &'a Places, ready: &'a Ready) -> Result<Self> {
        let nextest = match program::find("cargo-nextest") {
            Some(_) => None,
            None => Some(wheel::ensure(places, &NEXTEST)?),
        };
        Ok(Self { places, ready, nextest })
    }

    /// What needs nothing of the machine; the filter is in nextest's configuration.
    pub(super) fn parallel(&self) -> Result<Outcome> {
        let mut run = self.nextest(&["run", "--profile", "ci"]);
        self.counted(run.arg(format!("--test-threads={}", threads()))).map(Outcome::Tested)
    }

    pub(super) fn documentation(&self) -> Result<Outcome> {
        let mut test = cargo(self.places);
        test.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
        let (lines, well) = streamed(test.stdout(Stdio::piped()), Which::Stdout)?;
        let mut count = Count::default();
        for line in &lines {
            count += libtest_result(line).unwrap_or_default();
        }
        Ok(verdict(count, well, "cargo test --doc"))
    }

    /// Those that ask Elixir, which is installed for them where it is missing.
    pub(super) fn elixir(&self) -> Result<Outcome> {
        if let Err(error) = packages::ensure(packages::ELIXIR) {
            return self.skipped(ELIXIR, &format!("no Elixir: {error:#}"));
        }
        self.run_here(ELIXIR)
    }

    /// Those that ask more of the operating system than processes usually may.
    pub(super) fn system(&self) -> Result<Outcome> {
        if let Err(error) = packages::ensure(packages::SYSTEM) {
            return self.skipped(SYSTEM, &format!("no strace: {error:#}"));
        }
        let trace = ["-D", "-f", "-qq", "-o", "/dev/null", "true"];
        if !program::succeeds(program::command("strace").args(trace)) {
            return self.skipped(SYSTEM, "no process may be traced here");
        }
        let mount = ["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
        if !program::succeeds(program::command("unshare").args(mount)) {
            return self.skipped(SYSTEM, "nothing may be mounted here; root may");
        }
        self.run_here(SYSTEM)
    }

    pub(super) fn native(&self) -> Result<Outcome> {
        if let Err(reason) = kvm::can_open() {
            return self.skipped(NATIVE, &reason.to_string());
        }
        // Some of them are traced. Without strace those fail.
        if let Err(error) = packages::ensure(packages::SYSTEM) {
            say(format_args!("native: no strace: {error:#}"));
        }
        let mut outcome = self.run_here(NATIVE)?;
        if let (Outcome::Tested(count), Err(why)) = (&mut outcome, cgroups()) {
            say(format_args!("        SKIP comparing cgroups with the database: {why:#}"));
            count.skipped += 1;
        }
        Ok(outcome)
    }

    pub(super) fn lab(&self) -> Result<Outcome> {
        if kvm::usable().is_ok() {
            return self.run_here(LAB);
        }
        if let Err(error) = packages::ensure(packages::LAB) {
            return self.skipped(LAB, &format!("no usable KVM, and no lab: {error:#}"));
        }
        let suites = self.list(LAB)?;
        if suites.is_empty() {
            return Ok(Outcome::Tested(Count::default()));
        }
        let lab = Lab::of(self.places)?;
        let was_up = lab.machine()?.is_some();
        let count = self.run_all_in_lab(&lab, &suites);
        // Left as it was found: an idle lab still holds its memory.
        if !was_up {
            lab.down()?;
        }
        count.map(Outcome::Tested)
    }

    fn run_all_in_lab(&self, lab: &Lab, suites: &[Suite]) -> Result<Count> {
        lab.up()?;
        let mut count = Count::default();
        let mut guests_hung = 0;
        for suite in suites {
            for test in suite.matching() {
                if self.passes_in_lab(lab, suite, test, &mut guests_hung)? {
                    count.passed += 1;
                } else {
                    count.failed += 1;
                }
            }
        }
        Ok(count)
    }

    /// Whether a test passes, begun again where the emulation failed it.
    fn passes_in_lab(
        &self,
        lab: &Lab,
        suite: &Suite,
        test: &str,
        guests_hung: &mut usize,
    ) -> Result<bool> {
        let mut labs_lost = 0;
        loop {
            match self.run_in_lab(lab, suite, test)? {
                Ended::Passed => return Ok(true),
                Ended::LabLost if labs_lost < LAB_RESTARTS_MAX => {
                    labs_lost += 1;
                    say("        the lab and the test start again");
                    lab.up()?;
                }
                Ended::GuestHung if *guests_hung < GUEST_HANGS_MAX => {
                    *guests_hung += 1;
                    say("        a guest hung; the test starts again");
                }
                Ended::Failed | Ended::LabLost | Ended::GuestHung => return Ok(false),
            }
        }
    }

    /// One process a test, as nextest does it.
    fn run_in_lab(&self, lab: &Lab, suite: &Suite, test: &str) -> Result<Ended> {
        let started = Instant::now();
        let output = tempfile::NamedTempFile::new().context("cannot create a file for output")?;
        let binary = suite.binary_path.display().to_string();
        let state = format!("{LAB_STATE}/{}", std::process::id());
        let script = r#"mkdir -p "$HEARTH_TEST_STATE" && "$@"; s=$?
            rm -rf "$HEARTH_TEST_STATE"; exit $s"#;
        let words = ["sh", "-c", script, "test", "timeout", "-k", "10", LAB_TEST_SECONDS_MAX];
        let mut command: Vec<_> = words.map(str::to_owned).to_vec();
        command.extend([binary, "--exact".to_owned(), test.to_owned(), "--nocapture".to_owned()]);
        let mut session = Session::new(command)?;
        session.directory.clone_from(&suite.cwd);
        session.streams = Streams::Logged(output.path().to_owned());
        session.variables.extend(self.variables(state));
        let (status, lost) = lab.run_watched(&session)?;
        let text = fs::read(output.path()).context("cannot read a test's output")?;
        let text = String::from_utf8_lossy(&text);
        // A binary that knows no such test ends well too.
        let ran = text.lines().filter_map(libtest_result).any(|count| count.passed == 1);
        let ended = match status {
            0 if ran => Ended::Passed,
            _ if lost.is_some() => Ended::LabLost,
            _ if GUEST_HANGS.iter().any(|words| text.contains(words)) => Ended::GuestHung,
            _ => Ended::Failed,
        };
        let word = if ended == Ended::Passed { "PASS" } else { "FAIL" };
        let took = started.elapsed().as_secs_f32();
        say(format_args!("        {word} [{took:>8.3}s] {} {test} (in the lab)", suite.binary_id));
        if ended != Ended::Passed {
            say(format_args!("--- its output (status {status}):\n{text}---"));
        }
        if let Some(why) = lost {
            say(why);
        }
        Ok(ended)
    }

    fn run_here(&self, filter: &str) -> Result<Outcome> {
        let state = self.places.target.join("test-state");
        let mut run = self.nextest(&["run", "--profile", "ci", "--no-tests", "pass"]);
        run.args(["--ignore-default-filter", "-E", filter]);
        run.envs(self.variables(state.display().to_string()));
        fs::create_dir_all(&state).with_context(|| format!("cannot create {}", state.display()))?;
        let count = self.counted(&mut run);
        fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
        count.map(Outcome::Tested)
    }

    fn skipped(&self, filter: &str, why: &str) -> Result<Outcome> {
        let suites = self.list(filter)?;
        let mut tests = 0;
        for suite in &suites {
            for test in suite.matching() {
                say(format_args!("        SKIP {} {test}: {why}", suite.binary_id));
                tests += 1;
            }
        }
        Ok(Outcome::Skipped(tests, why.to_owned()))
    }

    fn list(&self, filter: &str) -> Result<Vec<Suite>> {
        let mut list = self.nextest(&["list", "--message-format", "json"]);
        let json = program::output(list.args(["--ignore-default-filter", "-E", filter]))?;
        let listing: Listing =
            serde_json::from_str(&json).context("cannot understand the list of tests")?;
        let suites = listing.rust_suites.into_values();
        Ok(suites.filter(|suite| suite.matching().next().is_some()).collect())
    }

    fn variables(&self, state: String) -> [(String, String); 3] {
        let path = |path: &PathBuf| path.display().to_string();
        [
            ("HEARTH_TEST_IMAGES".to_owned(), path(&self.ready.images)),
            ("HEARTH_TEST_FIRECRACKER".to_owned(), path(&self.ready.firecracker)),
            ("HEARTH_TEST_STATE".to_owned(), state),
        ]
    }

    fn nextest(&self, arguments: &[&str]) -> Command {
        let mut nextest = cargo(self.places);
        if let Some(dir) = &self.nextest {
            let path = std::env::var("PATH").unwrap_or_default();
            nextest.env("PATH", format!("{}:{path}", dir.display()));
        }
        nextest.arg("nextest").args(arguments).arg("--workspace");
        nextest
    }

    fn counted(&self, run: &mut Command) -> Result<Count> {
        let (lines, well) = streamed(run.stderr(Stdio::piped()), Which::Stderr)?;
        match lines.iter().rev().find_map(|line| nextest_summary(line)) {
            Some(count) if well || count.failed > 0 => Ok(count),
            _ if well => Ok(Count::default()),
            _ => anyhow::bail!("the tests could not be built or run"),
        }
    }
}

impl Suite {
    fn matching(&self) -> impl Iterator<Item = &str> {
        let cases = self.testcases.iter();
        let matching = cases.filter(|(_, case)| case.filter_match.status == "matches");
        matching.map(|(name, _)| name.as_str())
    }
}

/// Whether a daemon can make cgroups here. Where it can't, tests compare its processes only.
fn cgroups() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot see what is mounted")?;
    let mut mounts = mounts.lines().filter(|line| line.contains(" cgroup2 "));
    let mount = mounts.next().and_then(|line| line.split(' ').nth(1));
    let mount = mount.context("version 2 is not mounted")?;
    rustix::fs::access(mount, rustix::fs::Access::WRITE_OK)
        .with_context(|| format!("{mount} can't be written to"))
}

/// One more than there are processors: a third of what the tests take they wait for.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) + 1
}

fn verdict(count: Count, well: bool, what: &str) -> Outcome {
    if well || count.failed > 0 {
        Outcome::Tested(count)
    } else {
        Outcome::Failed(format!("{what} failed"))
    }
}

#[derive(Clone, Copy)]
enum Which {
    Stdout,
    Stderr,
}

/// Runs a command, shows the lines of one of its streams as they come, and returns them and
/// whether it ended well.
fn streamed(command: &mut Command, which: Which) -> Result<(Vec<String>, bool)> {
    let mut child = command.stdin(Stdio::null()).spawn().context("cannot run cargo")?;
    let stream: Box<dyn std::io::Read> = match which {
        Which::Stdout => Box::new(child.stdout.take().context("cargo has no output")?),
        Which::Stderr => Box::new(child.stderr.take().context("cargo has no output")?),
    };
    let mut lines = Vec::new();
    for line in BufReader::new(stream).split(b'\n') {
        let line = line.context("cannot read cargo's output")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        say(&line);
        lines.push(line);
    }
    let status = child.wait().context("cannot wait for cargo")?;
    Ok((lines, status.success()))
}

/// `Summary [ 0.976s] 15 tests run: 14 passed (1 slow), 1 failed, 3 skipped`. What nextest calls
/// skipped was not asked for, and is counted where it is.
fn nextest_summary(line: &str) -> Option<Count> {
    let (_, counts) = line.trim().strip_prefix("Summary")?.split_once("] ")?;
    let (run, passed) = counts.split_once(':')?;
    let run: usize = run.split([' ', '/']).next()?.parse().ok()?;
    let passed: usize = passed.split_once(" passed")?.0.trim().parse().ok()?;
    Some(Count { passed, failed: run - passed, skipped: 0 })
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`
fn libtest_result(line: &str) -> Option<Count> {
    let counts = line.trim().strip_prefix("test result: ")?;
    let of = |word: &str| {
        let part = counts.split([';', '.']).find(|part| part.trim().ends_with(word))?;
        part.trim().split(' ').next()?.parse().ok()
    };
    Some(Count { passed: of("passed")?, failed: of("failed")?, skipped: of("ignored")? })
}

#[cfg(test)]
mod self_tests {
    use super::*;

    #[test]
    fn nextest_summaries_are_read() {
        let read = |line: &str| nextest_summary(line).map(|count| (count.passed, count.failed));
        assert_eq!(
            read("     Summary [   0.976s] 15 tests run: 15 passed, 0 skipped"),
            Some((15, 0))
        );
        assert_eq!(
            read(
                "Summary [ 1.0s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 4 skipped"
            ),
            Some((6, 3))
        );
        assert_eq!(
            read("Summary [ 1.0s] 3/9 tests run: 2 passed, 1 failed, 0 skipped"),
            Some((2, 1))
        );
        assert_eq!(read("    Starting 15 tests across 1 binary"), None);
    }

    #[test]
    fn libtest_results_are_read() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out";
        assert_eq!(libtest_result(line), Some(Count { passed: 3, failed: 1, skipped: 2 }));
        assert_eq!(libtest_result("test lab::boots ... ok"), None);
    }
}
