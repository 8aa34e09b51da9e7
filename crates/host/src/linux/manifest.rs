//! `manifest.json`: what is needed to adopt an instance without the database. No environment and
//! no secret is in it. Its types are its own, so that those of the model may change.

use super::layout::{names, replace};
use hearth_firecracker::Identity;
use hearth_model::{Boot, InstanceId, Slot, SpecHash};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The version that this code writes and reads.
const VERSION: u32 = 1;

/// An instance on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    instance: String,
    slot: u32,
    spec_hash: String,
    boot: BootForm,
    /// Whether the guest has a root file system.
    pub(super) has_rootfs: bool,
    /// The process, once there is one.
    pub(super) process: Option<Identity>,
    /// Written before the guest is started, so that what never was is never taken for what ran.
    pub(super) started: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BootForm {
    Init,
    Raw,
}

impl Manifest {
    pub(super) fn new(create: &hearth_model::Create) -> Manifest {
        Manifest {
            version: VERSION,
            instance: create.instance.as_str().to_owned(),
            slot: create.slot.0,
            spec_hash: create.hash.to_hex(),
            boot: match create.spec.boot {
                Boot::Init => BootForm::Init,
                Boot::Raw => BootForm::Raw,
            },
            has_rootfs: create.spec.rootfs.is_some(),
            process: None,
            started: false,
        }
    }

    /// Reads the manifest in `dir`, which must be that of `id`.
    pub(super) fn read(dir: &Path, id: &InstanceId) -> io::Result<Manifest> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        let bytes = std::fs::read(dir.join(names::MANIFEST))?;
        let manifest: Manifest = serde_json::from_slice(&bytes)?;
        if manifest.version != VERSION {
            return Err(invalid(format!("it has version {}, not {VERSION}", manifest.version)));
        }
        if manifest.instance != id.as_str() {
            return Err(invalid(format!("it is that of {}", manifest.instance)));
        }
        if SpecHash::parse(&manifest.spec_hash).is_none() {
            return Err(invalid("its spec hash is none".to_owned()));
        }
        Ok(manifest)
    }

    /// Writes it durably.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        replace(&dir.join(names::MANIFEST), &serde_json::to_vec_pretty(self)?)
    }

    pub(super) fn boot(&self) -> Boot {
        match self.boot {
            BootForm::Init => Boot::Init,
            BootForm::Raw => Boot::Raw,
        }
    }

    pub(super) fn slot(&self) -> Slot {
        Slot(self.slot)
    }

    /// Checked when it was read.
    pub(super) fn hash(&self) -> SpecHash {
        SpecHash::parse(&self.spec_hash).unwrap_or(SpecHash([0; 32]))
    }
}
