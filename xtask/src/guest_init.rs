//! The init of the microVM: built static and small, and put where `hearth-host` embeds it from.

use std::fs;

use anyhow::{Context, Result};

use crate::cargo::build_static;
use crate::places::Places;

/// Builds the init into `build/hearth-init`. The file is touched only when it changes, so that
/// what embeds it is not built again.
pub(crate) fn ensure(places: &Places) -> Result<()> {
    let manifest = places.repo.join("Cargo.toml");
    let built = build_static(places, &manifest, &["-p", "hearth-init"], "init")?;
    let built = built.join("hearth-init");
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let embedded = places.build.join("hearth-init");
    if fs::read(&embedded).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let new = places.build.join(".hearth-init.new");
    fs::copy(&built, &new).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &embedded).with_context(|| format!("cannot write {}", embedded.display()))
}
