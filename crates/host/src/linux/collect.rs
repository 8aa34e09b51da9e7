//! The image store's files as they are, and the removal of unused ones. Which are removed is decided
//! elsewhere.

use super::errors;
use super::layout::absent_is_fine;
use crate::HostError;
use hearth_model::{Digest, StoredImage};
use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// What begins the names of files that are made of copies, and are made again if they are absent.
const MADE: [&str; 2] = [".initrd-", ".scratch-"];

/// The content of which a file of the store is the copy.
fn digest(name: &str) -> Option<Digest> {
    Digest::parse(name).filter(|digest| digest.to_string() == name)
}

fn is_made(name: &str) -> bool {
    MADE.iter().any(|made| name.starts_with(made))
}

/// The copies in a store, and what was made of them. Files that users bring are not among them.
///
/// # Errors
/// If the directory can't be read. One that is absent has nothing in it.
pub(super) fn stored(dir: &Path) -> Result<Vec<StoredImage>, HostError> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(errors::file("read", dir))?,
    };
    let now = SystemTime::now();
    let mut stored = Vec::new();
    for entry in entries {
        let entry = entry.map_err(errors::file("read", dir))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let digest = digest(&name);
        if digest.is_none() && !is_made(&name) {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) if metadata.is_file() => metadata,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(errors::file("look at", &entry.path())(error));
            }
            // It was removed just now, or is not the store's.
            _ => continue,
        };
        let used = metadata.modified().map_err(errors::file("look at", &entry.path()))?;
        stored.push(StoredImage {
            name,
            digest,
            bytes: metadata.blocks() * 512,
            // A clock that was set back makes it newer, never older.
            unused_for: now.duration_since(used).unwrap_or_default(),
            linked: metadata.nlink() > 1,
        });
    }
    stored.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(stored)
}

/// Notes that files are in use, and removes others. One that an instance has stays. Cut off in the middle,
/// the rest is done the next time. Returns the names of those that were removed.
///
/// # Errors
/// If a file can't be removed; the others are.
pub(super) fn keep(
    dir: &Path,
    used: &[String],
    remove: &[String],
) -> Result<Vec<String>, HostError> {
    let now = FileTimes::new().set_modified(SystemTime::now());
    for name in used {
        // What can't be noted is copied again one day.
        let _ = File::open(dir.join(name)).and_then(|file| file.set_times(now));
    }
    let (mut removed, mut failed) = (Vec::new(), None);
    for name in remove {
        let path = dir.join(name);
        let is_ours = digest(name).is_some() || is_made(name);
        let linked = path.symlink_metadata().is_ok_and(|metadata| metadata.nlink() > 1);
        if !is_ours || linked {
            continue;
        }
        match absent_is_fine(std::fs::remove_file(&path)) {
            Ok(()) => removed.push(name.clone()),
            Err(error) => failed = Some(errors::file("remove", &path)(error)),
        }
    }
    failed.map_or(Ok(removed), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn copies_are_listed_and_removed_unless_an_instance_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        for name in [&one, &two, ".initrd-1", ".digests.json", ".new-3", "vmlinux", "1234"] {
            std::fs::write(at(name), [7; 5000]).unwrap();
        }
        std::fs::create_dir(at(&"3".repeat(64))).unwrap();
        std::fs::hard_link(at(&two), at("instance")).unwrap();
        let day = SystemTime::now() - Duration::from_secs(86_400);
        let times = FileTimes::new().set_modified(day);
        File::open(at(&one)).unwrap().set_times(times).unwrap();
        let seen = stored(dir.path()).unwrap();
        let names: Vec<&str> = seen.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, [".initrd-1", &one, &two]);
        assert_eq!(seen.iter().map(|image| image.linked).collect::<Vec<_>>(), [false, false, true]);
        assert!(seen[1].unused_for >= Duration::from_secs(86_000) && seen[1].bytes >= 5000);
        let all: Vec<String> =
            ["vmlinux", ".digests.json", &one, &two, "absent"].map(str::to_owned).to_vec();
        keep(dir.path(), std::slice::from_ref(&one), &[]).unwrap();
        assert!(stored(dir.path()).unwrap()[1].unused_for < Duration::from_secs(3600));
        assert_eq!(keep(dir.path(), &[], &all).unwrap(), [one.as_str()]);
        assert!(at("vmlinux").exists() && at(".digests.json").exists() && at(&two).exists());
        assert_eq!(stored(&at("absent")).unwrap(), []);
    }
}
