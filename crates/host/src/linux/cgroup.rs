//! One cgroup (v2) for each instance, where the daemon may make them. It sets no limits.
//!
//! ```text
//!   <where cgroup2 is mounted>/hearth/<device>-<inode of the state directory>/<instance>
//! ```
//!
//! So each daemon has a directory of its own, whatever its state directory is called, and a
//! cgroup in it that the daemon does not know is a leftover.

use super::errors;
use crate::HostError;
use hearth_model::InstanceId;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the kernel says is mounted (proc_pid_mounts(5)).
const MOUNTS: &str = "/proc/self/mounts";

/// How often a cgroup that should be empty is looked at before that is an error.
const LOOKS_MAX: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Where the cgroups of all instances of a state directory are.
#[derive(Debug)]
pub(super) struct Cgroups {
    dir: PathBuf,
}

impl Cgroups {
    /// `None`, said once, where there can be none: instances run in the daemon's then.
    pub(super) fn open(state: &Path) -> Option<Cgroups> {
        match Cgroups::make_parent(state) {
            Ok(Some(dir)) => return Some(Cgroups { dir }),
            Ok(None) => tracing::info!("no cgroups: version 2 is not mounted"),
            Err(error) => tracing::info!(%error, "no cgroups: cannot make them"),
        }
        None
    }

    fn make_parent(state: &Path) -> io::Result<Option<PathBuf>> {
        let Some(mount) = mount(&fs::read_to_string(MOUNTS)?) else { return Ok(None) };
        let state = fs::metadata(state)?;
        let dir = mount.join("hearth").join(format!("{:x}-{:x}", state.dev(), state.ino()));
        let trial = dir.join("trial");
        fs::create_dir_all(&trial)?;
        let tried = hearth_firecracker::try_cgroup(fs::File::open(&trial)?.as_fd());
        remove_once_empty(&trial)?;
        tried.map(|()| Some(dir))
    }

    /// Makes the cgroup of an instance. Without it the instance runs in the daemon's.
    pub(super) fn make(&self, id: &InstanceId) -> Option<PathBuf> {
        let cgroup = self.dir.join(id.as_str());
        let made = fs::create_dir_all(&cgroup);
        made.inspect_err(|error| tracing::warn!(instance = %id, %error, "cannot make a cgroup"))
            .is_ok()
            .then_some(cgroup)
    }

    /// Removes the cgroup of an instance whose process is gone. Succeeds where there is none.
    pub(super) fn remove(&self, id: &InstanceId) -> Result<(), HostError> {
        let cgroup = self.dir.join(id.as_str());
        remove_once_empty(&cgroup).map_err(errors::file("remove", &cgroup))
    }

    /// Removes those that belong to no instance. What has a process in it can't be removed, and is said.
    pub(super) fn sweep(&self, is_known: impl Fn(&str) -> bool) -> Result<(), HostError> {
        for entry in fs::read_dir(&self.dir).map_err(errors::file("read", &self.dir))? {
            let entry = entry.map_err(errors::file("read", &self.dir))?;
            let is_cgroup = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_cgroup || is_known(&entry.file_name().to_string_lossy()) {
                continue;
            }
            if let Err(error) = fs::remove_dir(entry.path()) {
                tracing::warn!(cgroup = %entry.path().display(), %error, "left alone");
            }
        }
        Ok(())
    }
}

/// Removes a cgroup whose processes have ended: a thread may be in it for a moment more. Succeeds where it
/// is gone.
fn remove_once_empty(cgroup: &Path) -> io::Result<()> {
    let mut looks = 0..LOOKS_MAX;
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && looks.next().is_some() => {
                std::thread::sleep(LOOK_PAUSE);
            }
            removed => return removed,
        }
    }
}

impl Drop for Cgroups {
    /// Leaves no directory behind that has nothing in it. It is refused where there are instances.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Where cgroup2 is mounted: at `/sys/fs/cgroup`, or beside version 1 in a directory there.
fn mount(mounts: &str) -> Option<PathBuf> {
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let mount = mounts.find_map(|mut fields| {
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then_some(place)
    })?;
    Some(PathBuf::from(mount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_is_found_alone_and_beside_version_1() {
        let alone = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(mount(alone), Some(PathBuf::from("/sys/fs/cgroup")));
        let beside = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount(beside), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\n"), None);
    }

    #[test]
    fn what_belongs_to_no_instance_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = Cgroups { dir: dir.path().to_owned() };
        let made = |id: &str| cgroups.make(&InstanceId::parse(id).unwrap()).unwrap();
        let (known, left) = (made("known"), made("left"));
        cgroups.sweep(|id| id == "known").unwrap();
        assert!(known.is_dir() && !left.exists());
        cgroups.remove(&InstanceId::parse("known").unwrap()).unwrap();
        cgroups.remove(&InstanceId::parse("known").unwrap()).unwrap();
        assert!(!known.exists());
        fs::create_dir(left.parent().unwrap().join("left")).unwrap();
        fs::write(left.join("busy"), "").unwrap();
        let refused = cgroups.remove(&InstanceId::parse("left").unwrap()).unwrap_err();
        assert!(refused.to_string().contains("left"), "{refused}");
    }
}
