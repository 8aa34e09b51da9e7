//! `manifest.json`: what is needed to adopt an instance without the database. No environment and
//! no secret is in it. Its types are its own, so that those of the model may change.

use super::layout::{absent_is_fine, create_file, names, open_file};
use hearth_firecracker::Identity;
use hearth_model::{
    Boot, Digest, Generation, Images, InstanceId, JobId, Made, Owner, PoolTenant, Resources, Slot,
    SpecHash, Stage, Tenant,
};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
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
    /// The boot of the host that it was made in. It is not written durably: what a loss of power
    /// leaves of it is of another boot, in which nothing runs any more.
    host_boot: String,
    /// Whether the guest has a root file system.
    pub(super) has_rootfs: bool,
    /// What the database would say of it, for when it does not; absent in what an older Hearth made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<MadeForm>,
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

#[derive(Clone, Debug, Serialize, Deserialize)]
struct MadeForm {
    owner: OwnerForm,
    kernel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modules: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rootfs: Option<String>,
    stage: StageForm,
    vcpu: u32,
    mem_mib: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OwnerForm {
    Job {
        job: String,
        tenant: String,
        generation: u64,
    },
    /// A pool of one tenant, or the one for all that named none.
    Pool {
        tenant: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StageForm {
    Init,
    App,
}

impl MadeForm {
    fn of(made: &Made) -> MadeForm {
        MadeForm {
            owner: OwnerForm::of(&made.owner),
            kernel: made.images.kernel.to_string(),
            modules: made.images.modules.map(|digest| digest.to_string()),
            rootfs: made.images.rootfs.map(|digest| digest.to_string()),
            stage: match made.stage {
                Stage::Init => StageForm::Init,
                Stage::App => StageForm::App,
            },
            vcpu: made.resources.vcpu,
            mem_mib: made.resources.mem_mib,
        }
    }

    /// `None` where a name or a digest is none.
    fn read(&self) -> Option<Made> {
        let digest = |hex: &Option<String>| match hex {
            Some(hex) => Digest::parse(hex).map(Some),
            None => Some(None),
        };
        Some(Made {
            owner: self.owner.read()?,
            images: Images {
                kernel: Digest::parse(&self.kernel)?,
                modules: digest(&self.modules)?,
                rootfs: digest(&self.rootfs)?,
            },
            stage: match self.stage {
                StageForm::Init => Stage::Init,
                StageForm::App => Stage::App,
            },
            resources: Resources { vcpu: self.vcpu, mem_mib: self.mem_mib },
        })
    }
}

impl OwnerForm {
    fn of(owner: &Owner) -> OwnerForm {
        match owner {
            Owner::Job(identity) => OwnerForm::Job {
                job: identity.job_id.to_string(),
                tenant: identity.tenant.to_string(),
                generation: identity.generation.0,
            },
            Owner::Pool(PoolTenant::Shared) => OwnerForm::Pool { tenant: None },
            Owner::Pool(PoolTenant::Named(tenant)) => {
                OwnerForm::Pool { tenant: Some(tenant.to_string()) }
            }
        }
    }

    fn read(&self) -> Option<Owner> {
        let tenant = |tenant: &str| Tenant::parse(tenant).ok();
        Some(match self {
            OwnerForm::Job { job, tenant: of, generation } => Owner::Job(hearth_model::Identity {
                job_id: JobId::parse(job).ok()?,
                tenant: tenant(of)?,
                generation: Generation::kept(*generation)?,
            }),
            OwnerForm::Pool { tenant: None } => Owner::Pool(PoolTenant::Shared),
            OwnerForm::Pool { tenant: Some(of) } => Owner::Pool(PoolTenant::Named(tenant(of)?)),
        })
    }
}

impl Manifest {
    pub(super) fn new(create: &hearth_model::Create, host_boot: &str) -> Manifest {
        Manifest {
            version: VERSION,
            instance: create.instance.as_str().to_owned(),
            slot: create.slot.0,
            spec_hash: create.hash.to_hex(),
            boot: match create.spec.boot {
                Boot::Init => BootForm::Init,
                Boot::Raw => BootForm::Raw,
            },
            host_boot: host_boot.to_owned(),
            has_rootfs: create.spec.rootfs.is_some(),
            made: Some(MadeForm::of(&Made::of(create))),
            process: None,
            started: false,
        }
    }

    /// Reads the manifest in `dir`, which must be that of `id`.
    pub(super) fn read(dir: &Path, id: &InstanceId) -> io::Result<Manifest> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        let mut bytes = Vec::new();
        open_file(&dir.join(names::MANIFEST))?.read_to_end(&mut bytes)?;
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
        if Slot::kept(manifest.slot).is_none() {
            return Err(invalid(format!("its slot {} is none", manifest.slot)));
        }
        if let Some(form) = &manifest.made
            && form.read().is_none()
        {
            return Err(invalid("it says of nobody that could be whose it is".to_owned()));
        }
        Ok(manifest)
    }

    /// Writes it whole: whoever reads it sees the old or the new one. It survives this process and
    /// no loss of power, which would cost each creation four commits of the file system's journal.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(names::MANIFEST_NEW);
        create_file(&new)?.write_all(&serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&new, dir.join(names::MANIFEST))
    }

    /// Whether it says nothing since the host lost its power before it was on disk. Then nothing runs
    /// in `dir`: in the same boot a manifest is whole or not there.
    pub(super) fn is_lost(dir: &Path) -> bool {
        std::fs::metadata(dir.join(names::MANIFEST)).is_ok_and(|found| found.len() == 0)
    }

    /// Removes a directory in which it was never written whole: nothing was started in it, since
    /// the manifest comes first. Returns whether that was so.
    pub(super) fn remove_unwritten(dir: &Path) -> io::Result<bool> {
        if dir.join(names::MANIFEST).exists() {
            return Ok(false);
        }
        absent_is_fine(std::fs::remove_file(dir.join(names::MANIFEST_NEW)))?;
        match std::fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            removed => removed.map(|()| true),
        }
    }

    /// Whether its process, if it has one, can still run: the host has not been booted since.
    pub(super) fn is_of_boot(&self, host_boot: &str) -> bool {
        self.host_boot == host_boot
    }

    pub(super) fn boot(&self) -> Boot {
        match self.boot {
            BootForm::Init => Boot::Init,
            BootForm::Raw => Boot::Raw,
        }
    }

    /// Checked when it was read.
    pub(super) fn made(&self) -> Option<Made> {
        self.made.as_ref().and_then(MadeForm::read)
    }

    pub(super) fn set_owner(&mut self, owner: &Owner) {
        if let Some(made) = &mut self.made {
            made.owner = OwnerForm::of(owner);
        }
    }

    /// Checked when it was read.
    pub(super) fn slot(&self) -> Slot {
        Slot(self.slot)
    }

    /// Checked when it was read.
    pub(super) fn hash(&self) -> SpecHash {
        SpecHash::parse(&self.spec_hash).unwrap_or(SpecHash([0; 32]))
    }
}
