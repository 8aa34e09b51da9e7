//! One cgroup (v2) for each instance, where the daemon may make them. It sets no limits.

use hearth_model::InstanceId;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// `CGROUP2_SUPER_MAGIC` of linux/magic.h.
const MAGIC: u64 = 0x6367_7270;

/// The parent of all instances' cgroups, or `None`, said once, where there can be none.
pub(super) fn parent() -> Option<PathBuf> {
    let parent = Path::new(ROOT).join("hearth");
    let is_v2 = rustix::fs::statfs(ROOT).is_ok_and(|stat| stat.f_type as u64 == MAGIC);
    let made = is_v2 && (parent.is_dir() || std::fs::create_dir(&parent).is_ok());
    let usable = made && rustix::fs::access(&parent, rustix::fs::Access::WRITE_OK).is_ok();
    if usable {
        return Some(parent);
    }
    tracing::info!(is_v2, "no cgroup of its own for each instance: /sys/fs/cgroup can't take them");
    None
}

/// Makes the cgroup of an instance. Without it the instance runs in the daemon's.
pub(super) fn make(parent: Option<&Path>, id: &InstanceId) -> Option<PathBuf> {
    let cgroup = parent?.join(id.as_str());
    match std::fs::create_dir(&cgroup) {
        Ok(()) => Some(cgroup),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Some(cgroup),
        Err(error) => {
            tracing::warn!(instance = %id, %error, "cannot make a cgroup");
            None
        }
    }
}

/// Removes the cgroup of an instance whose process is gone.
pub(super) fn remove(parent: Option<&Path>, id: &InstanceId) {
    let Some(parent) = parent else { return };
    match std::fs::remove_dir(parent.join(id.as_str())) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(instance = %id, %error, "cannot remove a cgroup");
        }
        _ => {}
    }
}
