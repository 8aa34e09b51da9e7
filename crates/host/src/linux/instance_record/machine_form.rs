//! How a [`Machine`] is written in an instance record. Its types are its own, so that those of the model
//! may change.

use hearth_model::machine::{
    Access, Drive, DriveContent, Initrd, Machine, Origin, RateLimit, Vsock,
};
use hearth_model::{Digest, DriveRole, Resources};
use serde::{Deserialize, Serialize};

/// A machine on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MachineForm {
    origin: OriginForm,
    vcpu: u32,
    mem_mib: u32,
    drives: Vec<DriveForm>,
    guest_cid: u32,
    entropy: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OriginForm {
    Boot {
        kernel: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        modules: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initrd: Option<InitrdForm>,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InitrdForm {
    Init,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct DriveForm {
    role: String,
    content: ContentForm,
    read_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimitForm>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ContentForm {
    Image(String),
    CopyOf(String),
    Empty { mib: u32 },
    Config,
    Status,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct RateLimitForm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes_per_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ops_per_s: Option<u64>,
}

impl MachineForm {
    pub(super) fn of(machine: &Machine) -> MachineForm {
        let Origin::Boot { kernel, modules, initrd } = machine.origin;
        MachineForm {
            origin: OriginForm::Boot {
                kernel: kernel.to_string(),
                modules: modules.map(|digest| digest.to_string()),
                initrd: initrd.map(|Initrd::Init| InitrdForm::Init),
            },
            vcpu: machine.resources.vcpu,
            mem_mib: machine.resources.mem_mib,
            drives: machine.drives.iter().map(DriveForm::of).collect(),
            guest_cid: machine.vsock.guest_cid,
            entropy: machine.entropy,
        }
    }

    /// `None` if a digest or a role is not one, or two drives have one role.
    pub(super) fn read(&self) -> Option<Machine> {
        let OriginForm::Boot { kernel, modules, initrd } = &self.origin;
        let modules = match modules {
            Some(hex) => Some(Digest::parse(hex)?),
            None => None,
        };
        let origin = Origin::Boot {
            kernel: Digest::parse(kernel)?,
            modules,
            initrd: initrd.map(|InitrdForm::Init| Initrd::Init),
        };
        let drives: Vec<Drive> = self.drives.iter().map(DriveForm::read).collect::<Option<_>>()?;
        let mut roles: Vec<DriveRole> = drives.iter().map(|drive| drive.role).collect();
        roles.sort_unstable();
        let is_unique = roles.windows(2).all(|pair| pair[0] != pair[1]);
        is_unique.then_some(Machine {
            origin,
            resources: Resources { vcpu: self.vcpu, mem_mib: self.mem_mib },
            drives,
            vsock: Vsock { guest_cid: self.guest_cid },
            entropy: self.entropy,
        })
    }
}

impl DriveForm {
    fn of(drive: &Drive) -> DriveForm {
        let rate_limit = |limit: RateLimit| RateLimitForm {
            bytes_per_s: limit.bytes_per_s,
            ops_per_s: limit.ops_per_s,
        };
        DriveForm {
            role: drive.role.as_str().to_owned(),
            content: match drive.content {
                DriveContent::Image(digest) => ContentForm::Image(digest.to_string()),
                DriveContent::CopyOf(digest) => ContentForm::CopyOf(digest.to_string()),
                DriveContent::Empty { mib } => ContentForm::Empty { mib },
                DriveContent::Config => ContentForm::Config,
                DriveContent::Status => ContentForm::Status,
            },
            read_only: drive.access == Access::ReadOnly,
            rate_limit: drive.rate_limit.map(rate_limit),
        }
    }

    fn read(&self) -> Option<Drive> {
        let rate_limit = |limit: RateLimitForm| RateLimit {
            bytes_per_s: limit.bytes_per_s,
            ops_per_s: limit.ops_per_s,
        };
        Some(Drive {
            role: DriveRole::ALL.into_iter().find(|role| role.as_str() == self.role)?,
            content: match &self.content {
                ContentForm::Image(hex) => DriveContent::Image(Digest::parse(hex)?),
                ContentForm::CopyOf(hex) => DriveContent::CopyOf(Digest::parse(hex)?),
                ContentForm::Empty { mib } => DriveContent::Empty { mib: *mib },
                ContentForm::Config => DriveContent::Config,
                ContentForm::Status => DriveContent::Status,
            },
            access: if self.read_only { Access::ReadOnly } else { Access::ReadWrite },
            rate_limit: self.rate_limit.map(rate_limit),
        })
    }
}
