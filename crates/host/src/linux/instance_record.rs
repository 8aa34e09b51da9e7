//! The instance record, `manifest.json`: what is needed to adopt an instance without the database. No
//! environment and no secret is in it. Its types are its own, so that those of the model may change.
//!
//! Fields are added and none is taken away: a daemon adopts what an older one made, and the other way round.

mod machine_form;

use super::layout::{absent_is_fine, create_file, names, open_file};
use hearth_firecracker::Identity;
use hearth_guest::{PROTOCOL, PROTOCOL_FIRST};
use hearth_model::{
    Boot, CreatedInstance, Digest, DriveRole, Generation, Images, InstanceId, JobId, Machine,
    Owner, PoolTenant, Resources, Slot, SpecHash, Stage, Tenant,
};
use machine_form::MachineForm;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::Path;

/// The version that this code writes and reads.
const VERSION: u32 = 1;

/// An instance on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct InstanceRecord {
    version: u32,
    instance: String,
    slot: u32,
    spec_hash: String,
    boot: BootForm,
    /// The boot of the host that it was made in. It is not written durably: what a loss of power
    /// leaves of it is of another boot, in which nothing runs any more.
    host_boot: String,
    has_rootfs: bool,
    /// What the database would say of it, for when it does not; absent in what an older Hearth made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<CreatedForm>,
    /// How its VMM was configured; absent in what an older Hearth made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<MachineForm>,
    /// The version of the protocol that its init speaks; absent for a raw guest, and in what an older
    /// Hearth made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<u32>,
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
struct CreatedForm {
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

impl CreatedForm {
    fn of(made: &CreatedInstance) -> CreatedForm {
        CreatedForm {
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
    fn read(&self) -> Option<CreatedInstance> {
        let digest = |hex: &Option<String>| match hex {
            Some(hex) => Digest::parse(hex).map(Some),
            None => Some(None),
        };
        Some(CreatedInstance {
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
                generation: Generation::from_stored(*generation)?,
            }),
            OwnerForm::Pool { tenant: None } => Owner::Pool(PoolTenant::Shared),
            OwnerForm::Pool { tenant: Some(of) } => Owner::Pool(PoolTenant::Named(tenant(of)?)),
        })
    }
}

impl InstanceRecord {
    pub(super) fn new(create: &hearth_model::Create, host_boot: &str) -> InstanceRecord {
        InstanceRecord {
            version: VERSION,
            instance: create.instance.as_str().to_owned(),
            slot: create.slot.0,
            spec_hash: create.hash.to_hex(),
            boot: match create.machine.guest() {
                Boot::Init => BootForm::Init,
                Boot::Raw => BootForm::Raw,
            },
            host_boot: host_boot.to_owned(),
            has_rootfs: create.machine.drive(DriveRole::Rootfs).is_some(),
            made: Some(CreatedForm::of(&CreatedInstance::of(create))),
            machine: Some(MachineForm::of(&create.machine)),
            protocol: (create.machine.guest() == Boot::Init).then_some(PROTOCOL),
            process: None,
            started: false,
        }
    }

    /// Reads the record in `dir`, which must be that of `id`.
    pub(super) fn read(dir: &Path, id: &InstanceId) -> io::Result<InstanceRecord> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        let mut bytes = Vec::new();
        open_file(&dir.join(names::MANIFEST))?.read_to_end(&mut bytes)?;
        let record: InstanceRecord = serde_json::from_slice(&bytes)?;
        if record.version != VERSION {
            return Err(invalid(format!("it has version {}, not {VERSION}", record.version)));
        }
        if record.instance != id.as_str() {
            return Err(invalid(format!("it is that of {}", record.instance)));
        }
        if SpecHash::parse(&record.spec_hash).is_none() {
            return Err(invalid("its spec hash is none".to_owned()));
        }
        if Slot::from_stored(record.slot).is_none() {
            return Err(invalid(format!("its slot {} is none", record.slot)));
        }
        if let Some(form) = &record.made
            && form.read().is_none()
        {
            return Err(invalid("its owner is not valid".to_owned()));
        }
        if let Some(form) = &record.machine
            && form.read().is_none()
        {
            return Err(invalid("its machine is not one".to_owned()));
        }
        Ok(record)
    }

    /// Writes it whole: a reader sees the old or the new one. It survives this process and
    /// no loss of power, which would cost each creation four commits of the file system's journal.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(names::MANIFEST_NEW);
        create_file(&new)?.write_all(&serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&new, dir.join(names::MANIFEST))
    }

    /// Whether it says nothing since the host lost its power before it was on disk. Then nothing runs
    /// in `dir`: in the same boot a record is whole or not there.
    pub(super) fn is_lost(dir: &Path) -> bool {
        std::fs::metadata(dir.join(names::MANIFEST)).is_ok_and(|found| found.len() == 0)
    }

    /// Removes a directory in which it was never written whole: nothing was started in it, since
    /// the record comes first. Returns whether that was so.
    pub(super) fn remove_unwritten(dir: &Path) -> io::Result<bool> {
        if dir.join(names::MANIFEST).exists() {
            return Ok(false);
        }
        absent_is_fine(std::fs::remove_file(dir.join(names::MANIFEST_NEW)))?;
        absent_is_fine(std::fs::remove_dir(dir.join(hearth_firecracker::names::SOCKETS)))?;
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
        match (self.machine(), self.boot) {
            (Some(machine), _) => machine.guest(),
            (None, BootForm::Init) => Boot::Init,
            (None, BootForm::Raw) => Boot::Raw,
        }
    }

    /// The version of the protocol that its init speaks.
    pub(super) fn protocol(&self) -> u32 {
        self.protocol.unwrap_or(PROTOCOL_FIRST)
    }

    /// Whether the guest has a root file system.
    pub(super) fn has_rootfs(&self) -> bool {
        let has_one = |machine: Machine| machine.drive(DriveRole::Rootfs).is_some();
        self.machine().map_or(self.has_rootfs, has_one)
    }

    /// Checked when it was read.
    fn machine(&self) -> Option<Machine> {
        self.machine.as_ref().and_then(MachineForm::read)
    }

    /// Checked when it was read.
    pub(super) fn created(&self) -> Option<CreatedInstance> {
        self.made.as_ref().and_then(CreatedForm::read)
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

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_model::{Spec, Value, machine};

    fn create() -> hearth_model::Create {
        let size = vec![("vcpu".to_owned(), 2.into()), ("mem_mb".to_owned(), 64.into())];
        let fields = [
            ("kernel", "k".into()),
            ("rootfs", "r.ext4".into()),
            ("cmd", Value::List(vec!["/bin/web".into()])),
            ("lifecycle", "daemon".into()),
            ("resources", Value::Map(size)),
        ];
        let fields = fields.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let spec = Spec::read(&Value::Map(fields)).expect("a spec");
        let [kernel, rootfs] = [Digest([1; 32]), Digest([2; 32])];
        let images = Images { kernel, modules: Some(Digest([3; 32])), rootfs: Some(rootfs) };
        hearth_model::Create {
            instance: InstanceId::parse("abc").expect("an id"),
            slot: Slot(7),
            machine: Machine::boot(&spec, &images),
            spec: std::sync::Arc::new(spec),
            hash: SpecHash([5; 32]),
            stage: Stage::Init,
            owner: Owner::Pool(PoolTenant::Shared),
            workload: hearth_model::Delivery::Late,
        }
    }

    /// A record with this text, if it is one of `id`.
    fn read(text: &str, id: &str) -> io::Result<InstanceRecord> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(names::MANIFEST), text).expect("written");
        InstanceRecord::read(dir.path(), &InstanceId::parse(id).expect("an id"))
    }

    #[test]
    fn record_keeps_the_machine_whole() {
        let mut create = create();
        let limit = machine::RateLimit { bytes_per_s: Some(1 << 20), ops_per_s: Some(500) };
        create.machine.drives[1].rate_limit = Some(limit);
        let dir = tempfile::tempdir().expect("a directory");
        InstanceRecord::new(&create, "boot").write(dir.path()).expect("written");
        let record = InstanceRecord::read(dir.path(), &create.instance).expect("a record");
        assert_eq!(record.machine(), Some(create.machine.clone()));
        assert_eq!(record.created(), Some(CreatedInstance::of(&create)));
        assert_eq!((record.boot(), record.has_rootfs()), (Boot::Init, true));
        assert_eq!(record.protocol(), 2);
    }

    #[test]
    fn first_version_of_the_record_is_read() {
        let record = read(INIT_1, "oldinit").expect("a record");
        assert_eq!(
            (record.boot(), record.has_rootfs(), record.slot()),
            (Boot::Init, true, Slot(1))
        );
        assert_eq!((record.machine(), record.protocol(), record.started), (None, 1, true));
        assert!(record.process.is_some() && record.is_of_boot(BOOT_1));
        let made = record.created().expect("what the database would say");
        let owner = made.owner.identity().expect("a job");
        assert_eq!((owner.job_id.as_str(), owner.generation), ("web", Generation(3)));
        assert_eq!(made.resources, Resources { vcpu: 1, mem_mib: 128 });
        assert!(made.images.rootfs.is_some() && made.images.modules.is_none());
        let record = read(RAW_1, "oldraw").expect("a record");
        assert_eq!((record.boot(), record.has_rootfs()), (Boot::Raw, false));
        let made = record.created().expect("what the database would say");
        assert_eq!(made.owner, Owner::Pool(PoolTenant::Shared));
    }

    #[test]
    fn first_version_of_the_record_is_kept_when_written_again() {
        for (text, id) in [(INIT_1, "oldinit"), (RAW_1, "oldraw")] {
            let dir = tempfile::tempdir().expect("a directory");
            read(text, id).expect("a record").write(dir.path()).expect("written");
            let again = std::fs::read_to_string(dir.path().join(names::MANIFEST)).expect("read");
            assert_eq!(again, text);
        }
    }

    #[test]
    fn record_with_two_drives_of_one_role_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut create = create();
        create.machine.drives.push(create.machine.drives[0].clone());
        InstanceRecord::new(&create, "boot").write(dir.path()).expect("written");
        let refused = InstanceRecord::read(dir.path(), &create.instance).expect_err("refused");
        assert_eq!(refused.to_string(), "its machine is not one");
    }

    /// Records of the first version, as it wrote them: an instance with an init, and a raw one.
    const INIT_1: &str = include_str!("../../tests/data/instance-record-1-init.json");
    const RAW_1: &str = include_str!("../../tests/data/instance-record-1-raw.json");
    /// The boot of the host that they were made in.
    const BOOT_1: &str = "e224985a-8bbf-4a67-94c0-749ab2ebe1f6";
}
