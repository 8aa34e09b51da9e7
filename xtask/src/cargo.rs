//! Cargo, always with the target directory of the tasks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::places::Places;
use crate::program;

const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// `cargo` in the clone.
pub(crate) fn cargo(places: &Places) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = program::command(cargo);
    command.current_dir(&places.repo).env("CARGO_TARGET_DIR", &places.target);
    // Those of the build that this program came from are not those of the next.
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
    command
}

/// Builds static programs for guests and returns the directory that they are in. They have a
/// target directory of their own, since their flags would rebuild everything else.
pub(crate) fn build_static(
    places: &Places,
    manifest: &Path,
    arguments: &[&str],
    profile: &str,
) -> Result<PathBuf> {
    let target = places.target.join("static");
    let mut build = cargo(places);
    build
        .args(["build", "--quiet", "--target", STATIC_TARGET, "--profile", profile])
        .arg("--manifest-path")
        .arg(manifest)
        .args(arguments)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_TARGET_DIR", &target);
    program::run(&mut build)?;
    Ok(target.join(STATIC_TARGET).join(profile))
}

/// Builds all that the tests run, the programs among it, and returns the directory with these. Built by
/// itself, a program would get its libraries with other features, and most of them would be compiled again.
pub(crate) fn build_as_for_tests(places: &Places) -> Result<PathBuf> {
    program::run(cargo(places).args(["test", "--quiet", "--workspace", "--no-run"]))?;
    Ok(places.target.join("debug"))
}
