//! Where everything of this host lies: the state directory and the runtime directory. Files are
//! 0600 and directories 0700; what is replaced is replaced whole, by a rename of a synced file. No name
//! of it is followed that is a link: the daemon refuses a state directory in which others could plant one.

use super::errors;
use crate::HostError;
use hearth_model::{DriveRole, InstanceId};
use rustix::fs::OFlags;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names in the directory of an instance, beside those of Firecracker.
pub(super) mod names {
    pub(in crate::linux) const MANIFEST: &str = "manifest.json";
    pub(in crate::linux) const MANIFEST_NEW: &str = "manifest.json.new";
    pub(in crate::linux) const KERNEL: &str = "kernel";
    pub(in crate::linux) const INITRD: &str = "initrd";
    pub(in crate::linux) const ROOTFS: &str = "rootfs";
    pub(in crate::linux) const SCRATCH: &str = "scratch.img";
    pub(in crate::linux) const CONFIG: &str = "config.img";
    pub(in crate::linux) const STATUS: &str = "status.img";
    /// Its presence says that Hearth asked for the end.
    pub(in crate::linux) const STOP_REQUESTED: &str = "stop-requested";
}

/// The file behind a drive, in the directory of its instance.
pub(super) fn drive_file(role: DriveRole) -> &'static str {
    match role {
        DriveRole::Rootfs => names::ROOTFS,
        DriveRole::Scratch => names::SCRATCH,
        DriveRole::Config => names::CONFIG,
        DriveRole::Status => names::STATUS,
    }
}

/// For open(2): a link is refused, and opening a FIFO does not wait for its other end.
const NOFOLLOW: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

/// Ends the name of a file that will take the place of another.
const NEW: &str = ".new";
/// Ends the name of an instance's directory that is being removed. No instance is named so.
const GONE: &str = ".gone";

/// The directories.
#[derive(Debug)]
pub(super) struct Layout {
    state: PathBuf,
    runtime: PathBuf,
}

impl Layout {
    pub(super) fn open(state: &Path, runtime: Option<&Path>) -> Result<Layout, HostError> {
        let state = std::path::absolute(state).map_err(errors::file("find", state))?;
        make_dir(&state).map_err(errors::file("make", &state))?;
        for dir in ["images", "instances", "logs"].map(|name| state.join(name)) {
            make_dir(&dir).map_err(errors::file("make", &dir))?;
            if !dir.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                let message = format!("cannot use {}: it is a symbolic link", dir.display());
                return Err(HostError::permanent(message));
            }
        }
        let runtime = match runtime {
            Some(runtime) => {
                make_dir(runtime).map_err(errors::file("make", runtime))?;
                std::path::absolute(runtime).map_err(errors::file("find", runtime))?
            }
            None => runtime_dir(&state)?,
        };
        Ok(Layout { state, runtime })
    }

    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    pub(super) fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    pub(super) fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }

    pub(super) fn instance(&self, id: &InstanceId) -> PathBuf {
        self.instances().join(id.as_str())
    }

    pub(super) fn config_drive(&self, id: &InstanceId) -> PathBuf {
        self.runtime.join(format!("config-{id}.img"))
    }

    /// A directory to try something in.
    pub(super) fn trial(&self) -> PathBuf {
        self.state.join("trial")
    }

    /// The newer of the two files of an instance's log.
    pub(super) fn log(&self, id: &InstanceId) -> PathBuf {
        self.state.join("logs").join(format!("{id}.log"))
    }

    /// Removes all of an instance but its logs. Succeeds where nothing is there. No instance is ever
    /// seen of which a part is gone.
    pub(super) fn remove_instance(&self, id: &InstanceId) -> Result<(), HostError> {
        remove_gone(&self.set_aside(id)?)
    }

    /// The quick part of a removal: there is no such instance any more. Returns what is left to be
    /// removed of it, at any time.
    pub(super) fn set_aside(&self, id: &InstanceId) -> Result<PathBuf, HostError> {
        let config = self.config_drive(id);
        for path in [with_suffix(&config, NEW), config] {
            absent_is_fine(std::fs::remove_file(&path)).map_err(errors::file("remove", &path))?;
        }
        set_aside(&self.instance(id))
    }
}

/// Removes the directory of an instance. Succeeds where it is gone.
pub(super) fn remove_whole(dir: &Path) -> Result<(), HostError> {
    remove_gone(&set_aside(dir)?)
}

fn set_aside(dir: &Path) -> Result<PathBuf, HostError> {
    let gone = with_suffix(dir, GONE);
    absent_is_fine(std::fs::rename(dir, &gone)).map_err(errors::file("rename", dir))?;
    Ok(gone)
}

/// Makes a directory and those above it, mode 0700; one that is there stays as it is.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Opens a new or emptied file of mode 0600.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    options.custom_flags(NOFOLLOW).open(path)
}

/// Opens a file that is there.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(path)
}

/// Opens a file that is there for writing; what is in it stays.
pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(NOFOLLOW).open(path)
}

/// Replaces a file whole, durably: a reader sees the old or the new one. For paths with one
/// writer.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = with_suffix(path, NEW);
    let mut file = create_file(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    rename_durably(&new, path)
}

/// Gives a synced file its name, durably.
pub(super) fn rename_durably(new: &Path, path: &Path) -> io::Result<()> {
    std::fs::rename(new, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Whether this is what is left of an instance whose removal has begun.
pub(super) fn is_gone(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(GONE.as_bytes())
}

/// Removes what [`is_gone`].
pub(super) fn remove_gone(path: &Path) -> Result<(), HostError> {
    absent_is_fine(std::fs::remove_dir_all(path)).map_err(errors::file("remove", path))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

pub(super) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The first of the usual places that can be written.
fn runtime_dir(state: &Path) -> Result<PathBuf, HostError> {
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("hearth"));
    let candidates = [Some(PathBuf::from("/run/hearth")), user];
    let usable = |dir: &PathBuf| {
        make_dir(dir).is_ok()
            && rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
            && is_own(dir)
    };
    if let Some(dir) = candidates.into_iter().flatten().find(usable) {
        return Ok(dir);
    }
    let dir = state.join("run");
    make_dir(&dir).map_err(errors::file("make", &dir))?;
    Ok(dir)
}

/// Whether only this user can write in a directory, and it is not a link: secrets are put there.
fn is_own(dir: &Path) -> bool {
    dir.symlink_metadata().is_ok_and(|found| {
        let me = rustix::process::geteuid().as_raw();
        found.is_dir() && found.uid() == me && found.mode() & 0o022 == 0
    })
}
