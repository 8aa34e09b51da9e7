//! The cgroups of a daemon's instances, as the kernel shows them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where version 2 is mounted.
pub(crate) fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("what is mounted");
    let mut mounts = mounts.lines().filter(|line| line.contains(" cgroup2 "));
    Some(PathBuf::from(mounts.next()?.split(' ').nth(1).expect("where it is mounted")))
}

/// Where the daemon with this state directory makes them; `None` where it can't.
pub(crate) fn parent(state: &Path) -> Option<PathBuf> {
    let mount = mount()?;
    rustix::fs::access(&mount, rustix::fs::Access::WRITE_OK).ok()?;
    let state = fs::metadata(state).expect("the state directory");
    Some(mount.join(format!("hearth/{:x}-{:x}", state.dev(), state.ino())))
}

/// The instances that have one, by name, with the pids in it; `None` where there can be none. KVM puts a thread of
/// the kernel (`kvm-nx-lpage-recovery`) into the cgroup of each VM's process; it is not counted.
pub(crate) fn members(state: &Path) -> Option<Vec<(String, Vec<u32>)>> {
    let entries = fs::read_dir(parent(state)?).expect("the daemon has made it").flatten();
    let cgroups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let member = |cgroup: fs::DirEntry| {
        // One that is removed meanwhile has no process in it.
        let pids = fs::read_to_string(cgroup.path().join("cgroup.procs")).unwrap_or_default();
        let is_program = |pid: &&str| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        let pids = pids.lines().filter(is_program).map(|pid| pid.parse().expect("a pid")).collect();
        (cgroup.file_name().to_string_lossy().into_owned(), pids)
    };
    let mut members: Vec<_> = cgroups.map(member).collect();
    members.sort();
    Some(members)
}

/// Removes what a daemon that was killed has left of them, once what is killed in them has ended.
pub(crate) fn clear(state: &Path) {
    let Some(parent) = state.exists().then(|| parent(state)).flatten() else { return };
    for _ in 0..100 {
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&parent);
        if !parent.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
