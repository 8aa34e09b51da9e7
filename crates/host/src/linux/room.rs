//! What there is for the scratch disks of instances, and what they may come to take: a disk is sparse,
//! and takes what was written to it.

use super::Shared;
use super::layout::names;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// From one measurement to the next: each looks at one file of each instance.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
const MIB: u64 = 1024 * 1024;

/// The scratch disks beneath a state directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// What they may take in all, in MiB: what is free of their disk, and what they take already.
    pub room_mib: u64,
    /// What they may come to take, in MiB.
    pub promised_mib: u64,
}

/// Measures the scratch disks beneath a state directory. Blocks.
///
/// # Errors
/// Where it can't be read.
pub fn scratch(state_dir: &Path) -> io::Result<Scratch> {
    let instances = state_dir.join("instances");
    let disk = rustix::fs::statvfs(state_dir)?;
    let (mut taken, mut promised) = (0, 0);
    let entries = match std::fs::read_dir(&instances) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    for entry in entries.into_iter().flatten() {
        // One that is being removed meanwhile takes nothing.
        if let Ok(scratch) = entry?.path().join(names::SCRATCH).symlink_metadata() {
            // 512 bytes each, whatever the file system's blocks are (stat(2)).
            taken += scratch.blocks() * 512;
            promised += scratch.size();
        }
    }
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    Ok(Scratch { room_mib: free.saturating_add(taken) / MIB, promised_mib: promised / MIB })
}

/// Takes note of what there is now. What can't be measured stays as it was.
pub(super) async fn measure(shared: &Arc<Shared>) {
    let state = shared.layout.state().to_owned();
    match tokio::task::spawn_blocking(move || scratch(&state)).await {
        Ok(Ok(scratch)) => *super::lock(&shared.scratch_mib) = Some(scratch.room_mib),
        Ok(Err(error)) => tracing::warn!(%error, "cannot measure the state directory's disk"),
        Err(_) => {}
    }
}

/// For as long as there is a host.
pub(super) async fn keep_measuring(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(MEASURE_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        measure(&shared).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn promise_is_the_size_of_the_disks_and_room_has_what_they_take() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(scratch(dir.path()).unwrap().promised_mib, 0);
        for (name, written) in [("one", 0), ("two", 32)] {
            let instance = dir.path().join("instances").join(name);
            std::fs::create_dir_all(&instance).unwrap();
            let mut disk = File::create(instance.join(names::SCRATCH)).unwrap();
            disk.set_len(100 * MIB).unwrap();
            disk.write_all(&vec![1; written << 20]).unwrap();
            disk.sync_all().unwrap();
        }
        // One that is not laid out yet has no disk.
        std::fs::create_dir(dir.path().join("instances/three")).unwrap();
        let measured = scratch(dir.path()).unwrap();
        assert_eq!(measured.promised_mib, 200);
        let disk = rustix::fs::statvfs(dir.path()).unwrap();
        let size_mib = disk.f_blocks * disk.f_frsize / MIB;
        assert!((32..=size_mib).contains(&measured.room_mib), "{measured:?}");
    }
}
