//! Schedules of the simulation in great numbers, over a store in memory.

use std::ops::Range;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use crate::cargo::build_as_for_tests;
use crate::places::Places;
use crate::program;

/// The seeds of each commit. The seeds before them are tests, which run over SQLite.
pub(crate) const OF_EACH_COMMIT: Range<u64> = 2_000..20_000;

/// The first seed of `cargo xtask soak schedules`. The ledger counts from here.
pub(crate) const FIRST_OF_SOAK: u64 = 100_000;

/// Runs all seeds of a range, on all processors; returns the parts that failed, in words. The least
/// story of a seed that fails is on stdout.
pub(crate) fn run(places: &Places, seeds: Range<u64>) -> Result<Vec<String>> {
    let binary = build_as_for_tests(places)?.join("hearth-simulation");
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let each = (seeds.end - seeds.start).div_ceil(processors);
    let start = |from: u64| -> Result<(u64, u64, Child)> {
        let count = each.min(seeds.end - from);
        let mut command = program::command(&binary);
        command.args(["--from", &from.to_string(), "--count", &count.to_string()]);
        command.stderr(Stdio::null());
        Ok((from, count, command.spawn().context("cannot run the simulation")?))
    };
    let parts = seeds.clone().step_by(usize::try_from(each)?);
    let children: Vec<_> = parts.map(start).collect::<Result<_>>()?;
    let mut failures = Vec::new();
    for (from, count, mut child) in children {
        if !child.wait().context("cannot wait for the simulation")?.success() {
            failures.push(format!("a seed of {from}..{}", from + count));
        }
    }
    Ok(failures)
}
