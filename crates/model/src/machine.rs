//! The device-level description of one microVM: all that its VMM is configured with before the guest
//! starts. What runs inside (command, environment, identity) is not part of it, and no path of a host is:
//! each host lays the files out as it likes.

use crate::digest::Digest;
use crate::spec::{Boot, Images, Resources, Spec};

/// The context id of every guest: a host tells guests apart by their sockets, and the same id everywhere
/// lets a snapshot be restored on any slot.
pub const GUEST_CID: u32 = 3;

/// One microVM as its VMM is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What it starts from.
    pub origin: Origin,
    /// Size.
    pub resources: Resources,
    /// In the order in which they are attached. At most one of each role.
    pub drives: Vec<Drive>,
    /// The socket device, which the host reaches the init over.
    pub vsock: Vsock,
    /// Whether it has an entropy device.
    pub entropy: bool,
}

/// What a microVM starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A kernel.
    Boot {
        /// Which.
        kernel: Digest,
        /// Its modules, if it was imported with some.
        modules: Option<Digest>,
        /// The initramfs, if any. Without one the kernel mounts the root filesystem itself.
        initrd: Option<Initrd>,
    },
}

/// What an initramfs holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initrd {
    /// Hearth's init, and the modules of the kernel.
    Init,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// What it is for.
    pub role: DriveRole,
    /// What the host puts on it.
    pub content: DriveContent,
    /// What the guest may do with it.
    pub access: Access,
    /// How much the guest may transfer, if that is limited.
    pub rate_limit: Option<RateLimit>,
}

/// What a drive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriveRole {
    /// The root filesystem.
    Rootfs,
    /// Changes to the root filesystem.
    Scratch,
    /// What the init is to do.
    Config,
    /// How the command ended.
    Status,
}

/// What the host puts on a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveContent {
    /// An image, shared with other instances.
    Image(Digest),
    /// A copy of an image, which the guest may change.
    CopyOf(Digest),
    /// An empty file system.
    Empty {
        /// Its size.
        mib: u32,
    },
    /// The init's configuration.
    Config,
    /// Room for the exit status.
    Status,
}

/// What a guest may do with a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// The most that a guest transfers over a device; `None` sets no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Bytes per second.
    pub bytes_per_s: Option<u64>,
    /// Operations per second.
    pub ops_per_s: Option<u64>,
}

/// A socket device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vsock {
    /// The guest's context id.
    pub guest_cid: u32,
}

impl Machine {
    /// The machine that starts a spec from its kernel, with the images that were resolved for it.
    #[must_use]
    pub fn boot(spec: &Spec, images: &Images) -> Machine {
        let rootfs = images.rootfs.map(|digest| match spec.boot {
            Boot::Init => Drive::new(DriveRole::Rootfs, DriveContent::Image(digest)),
            // The kernel mounts it as it likes.
            Boot::Raw => Drive::new(DriveRole::Rootfs, DriveContent::CopyOf(digest)),
        });
        let for_init = [
            Drive::new(DriveRole::Scratch, DriveContent::Empty { mib: spec.disk_mib }),
            Drive::new(DriveRole::Config, DriveContent::Config),
            Drive::new(DriveRole::Status, DriveContent::Status),
        ];
        let for_init = for_init.into_iter().filter(|_| spec.boot == Boot::Init);
        let initrd = match spec.boot {
            Boot::Init => Some(Initrd::Init),
            Boot::Raw => None,
        };
        let Images { kernel, modules, .. } = *images;
        Machine {
            origin: Origin::Boot { kernel, modules, initrd },
            resources: spec.resources,
            drives: rootfs.into_iter().chain(for_init).collect(),
            vsock: Vsock { guest_cid: GUEST_CID },
            entropy: true,
        }
    }

    /// Whether Hearth's init runs in it.
    #[must_use]
    pub fn guest(&self) -> Boot {
        match self.origin {
            Origin::Boot { initrd: Some(_), .. } => Boot::Init,
            Origin::Boot { initrd: None, .. } => Boot::Raw,
        }
    }

    /// The drive with this role, if any.
    #[must_use]
    pub fn drive(&self, role: DriveRole) -> Option<&Drive> {
        self.drives.iter().find(|drive| drive.role == role)
    }

    /// The images that it is made of.
    #[must_use]
    pub fn images(&self) -> Images {
        let Origin::Boot { kernel, modules, .. } = self.origin;
        let rootfs = self.drive(DriveRole::Rootfs).and_then(|drive| match drive.content {
            DriveContent::Image(digest) | DriveContent::CopyOf(digest) => Some(digest),
            _ => None,
        });
        Images { kernel, modules, rootfs }
    }
}

impl Drive {
    /// A drive without a limit. The guest may change what is its own.
    fn new(role: DriveRole, content: DriveContent) -> Drive {
        let access = match content {
            DriveContent::Image(_) | DriveContent::Config => Access::ReadOnly,
            DriveContent::CopyOf(_) | DriveContent::Empty { .. } | DriveContent::Status => {
                Access::ReadWrite
            }
        };
        Drive { role, content, access, rate_limit: None }
    }
}

impl DriveRole {
    /// All of them.
    pub const ALL: [DriveRole; 4] =
        [DriveRole::Rootfs, DriveRole::Scratch, DriveRole::Config, DriveRole::Status];

    /// Its name for the VMM, the guest and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DriveRole::Rootfs => "rootfs",
            DriveRole::Scratch => "scratch",
            DriveRole::Config => "config",
            DriveRole::Status => "status",
        }
    }
}
