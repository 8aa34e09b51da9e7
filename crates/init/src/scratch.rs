//! The scratch disk says over which root file system its changes were made. A directory that was
//! renamed is a reference to the layer beneath, and over another one it leads to something else.

use std::path::Path;

/// Names the root file system on the scratch disk; beside the layer of changes.
const RECORD: &str = "rootfs";
/// The layer of changes.
pub(crate) const UPPER: &str = "upper";

/// Why the scratch disk is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScratchError {
    /// Its changes were made over another root file system.
    #[error("the scratch disk holds changes to root filesystem {found} and not to {wanted}")]
    Foreign {
        /// What its record says.
        found: String,
        /// What this guest has.
        wanted: String,
    },
    /// It has changes, and no record.
    #[error("the scratch disk does not say to which root filesystem its changes were made")]
    Unknown,
    /// Its record cannot be read or written.
    #[error("cannot use the record of the scratch disk")]
    Record(#[source] std::io::Error),
}

/// Records on a new scratch disk the root file system beneath it, and checks it on one that was used.
///
/// # Errors
/// [`ScratchError`] where its changes are not known to be made over this root file system.
pub(crate) fn claim(disk: &Path, name: &str, digest: &str) -> Result<(), ScratchError> {
    let record = disk.join(RECORD);
    let wanted = format!("{name} ({digest})");
    match std::fs::read_to_string(&record) {
        // The name is for people: the same image may have another.
        Ok(found) if found.ends_with(&format!("({digest})")) => Ok(()),
        Ok(found) => Err(ScratchError::Foreign { found, wanted }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if disk.join(UPPER).exists() {
                return Err(ScratchError::Unknown);
            }
            std::fs::write(&record, wanted).map_err(ScratchError::Record)
        }
        Err(error) => Err(ScratchError::Record(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_is_used_over_the_root_file_system_of_its_record_only() {
        let disk = tempfile::tempdir().expect("tempdir");
        claim(disk.path(), "web.ext4", "ab12").expect("a new one");
        std::fs::create_dir(disk.path().join(UPPER)).expect("made");
        claim(disk.path(), "web.ext4", "ab12").expect("the same");
        claim(disk.path(), "renamed.ext4", "ab12").expect("the same under another name");
        let refused = claim(disk.path(), "web.ext4", "cd34").expect_err("another");
        let expected = "the scratch disk holds changes to root filesystem web.ext4 (ab12) and not to web.ext4 (cd34)";
        assert_eq!(refused.to_string(), expected);
    }

    #[test]
    fn disk_with_changes_and_no_record_is_refused() {
        let disk = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(disk.path().join(UPPER)).expect("made");
        assert!(matches!(claim(disk.path(), "web.ext4", "ab12"), Err(ScratchError::Unknown)));
        std::fs::create_dir(disk.path().join(RECORD)).expect("made");
        assert!(matches!(claim(disk.path(), "web.ext4", "ab12"), Err(ScratchError::Record(_))));
    }
}
