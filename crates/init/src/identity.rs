//! The identity file of the guest. Replaced by rename, so that a reader sees the old or the new
//! one and never half of either.

use hearth_guest::Identity;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes `identity.json` in `dir`.
///
/// # Errors
/// That of writing; the file is then what it was.
pub(crate) fn write(dir: &Path, identity: &Identity) -> std::io::Result<()> {
    let mut content = serde_json::to_vec_pretty(identity).map_err(std::io::Error::other)?;
    content.push(b'\n');
    let new = dir.join("identity.json.new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&new)?;
    std::io::Write::write_all(&mut file, &content)?;
    std::fs::rename(&new, dir.join("identity.json"))
}

/// Whether `new` may replace `old`: a guest serves one job for life, and only ever a later
/// generation of it.
pub(crate) fn accepts(old: Option<&Identity>, new: &Identity) -> bool {
    old.is_none_or(|old| {
        old.job_id == new.job_id && old.tenant == new.tenant && old.generation <= new.generation
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(job_id: &str, generation: u64) -> Identity {
        Identity {
            job_id: job_id.to_owned(),
            tenant: "prod".to_owned(),
            generation,
            vm_id: "vm-abc".to_owned(),
        }
    }

    #[test]
    fn the_file_is_replaced_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("tempdir");
        write(dir.path(), &identity("web", 1)).expect("write");
        write(dir.path(), &identity("web", 2)).expect("write");
        let content = std::fs::read(dir.path().join("identity.json")).expect("read");
        let found: Identity = serde_json::from_slice(&content).expect("JSON");
        assert_eq!(found, identity("web", 2));
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn only_a_later_generation_of_the_same_job_replaces_an_identity() {
        let old = identity("web", 5);
        assert!(accepts(None, &old));
        assert!(accepts(Some(&old), &identity("web", 5)));
        assert!(accepts(Some(&old), &identity("web", 6)));
        assert!(!accepts(Some(&old), &identity("web", 4)));
        assert!(!accepts(Some(&old), &identity("other", 9)));
    }
}
