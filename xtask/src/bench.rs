//! `cargo xtask bench`: measures the figures of docs/performance.md again, with release builds.
//! Nothing here is a test: a machine's times are its own, and only the ratios travel.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cargo::cargo;
use crate::places::Places;
use crate::terminal::say;
use crate::{kvm, packages, program, setup};

/// What can be measured, in this order.
const FIGURES: [&str; 6] = ["validate", "claims", "posts", "reads", "starts", "fleet"];

/// Measures the figures that are `wanted`, or all; by turns with the `baseline`, if any.
pub(crate) fn run(places: &Places, wanted: &[String], baseline: Option<&Path>) -> Result<()> {
    if let Some(unknown) = wanted.iter().find(|name| !FIGURES.contains(&name.as_str())) {
        bail!("there is no figure {unknown}; there are {}", FIGURES.join(", "));
    }
    let ready = setup::ensure(places)?;
    packages::ensure(packages::BENCH)?;
    say("bench: building for release; the first time takes some minutes");
    let packages = ["-p", "hearth", "-p", "hearth-bench"];
    program::run(cargo(places).args(["build", "--release", "--quiet"]).args(packages))?;
    let built = places.target.join("release");
    let dir = places.target.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for figure in FIGURES {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == figure) {
            continue;
        }
        say(format_args!("\n=== {figure}"));
        if figure == "validate" {
            let example = ["run", "--release", "--quiet", "-p", "hearth-desired-file", "--example"];
            program::run(cargo(places).args(example).arg("validate_bench"))?;
            continue;
        }
        let mut bench = program::command(built.join("hearth-bench"));
        bench.arg(figure).arg("--hearth").arg(built.join("hearth")).arg("--dir").arg(&dir);
        if let Some(baseline) = baseline {
            bench.arg("--baseline").arg(baseline);
        }
        if figure == "starts" {
            if let Err(reason) = kvm::can_open() {
                say(format_args!("SKIPPED: {reason}"));
                continue;
            }
            bench.arg("--firecracker").arg(&ready.firecracker);
            bench.arg("--kernel").arg(ready.images.join("tiny"));
        }
        program::run(&mut bench)?;
    }
    Ok(())
}
