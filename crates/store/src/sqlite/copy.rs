//! Whole copies of a database, and what one holds: read without changing it.

use crate::error::StoreError;
use crate::row::JobNotes;
use crate::sqlite::connection::connect;
use crate::sqlite::read::load;
use hearth_model::{ImageUses, InstanceId};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What a database names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// How many jobs, those on their way out included.
    pub jobs: usize,
    /// Instances.
    pub instances: BTreeSet<InstanceId>,
    /// Instances that are gone and whose logs are kept, or are about to be removed.
    pub logs: BTreeSet<InstanceId>,
    /// Images of jobs and instances.
    pub images: ImageUses,
}

/// Reads all of a database, without changing what it holds.
///
/// # Errors
/// [`StoreError::Copy`] where it can't be read, [`StoreError::Damaged`] where its pages are not what
/// they should be, [`StoreError::Row`] where a row holds nonsense.
pub fn inspect(database: &Path) -> Result<Contents, StoreError> {
    let failed = |source| StoreError::Copy { path: database.to_owned(), source };
    let connection = reader(database)?;
    let findings: String = connection
        .query_row(
            "SELECT group_concat(integrity_check, '; ') FROM pragma_integrity_check",
            [],
            |row| row.get(0),
        )
        .map_err(failed)?;
    if findings != "ok" {
        let detail = findings.chars().take(300).collect();
        return Err(StoreError::Damaged { path: database.to_owned(), detail });
    }
    let loaded = load(&connection)?;
    let images = ImageUses::of(loaded.jobs.values(), loaded.instances.values());
    let past = loaded.notes.values().flat_map(JobNotes::past).map(|(id, _)| id);
    Ok(Contents {
        jobs: loaded.jobs.len(),
        logs: past.chain(loaded.log_drops).collect(),
        images,
        instances: loaded.instances.into_keys().collect(),
    })
}

fn reader(database: &Path) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::Copy { path: database.to_owned(), source };
    let connection = connect(database, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    let version = "SELECT user_version FROM pragma_user_version";
    if connection.query_row(version, [], |row| row.get::<_, u32>(0)).map_err(failed)? == 0 {
        let detail = "it holds nothing of Hearth".to_owned();
        return Err(StoreError::Damaged { path: database.to_owned(), detail });
    }
    Ok(connection)
}

/// A whole copy, of mode 0600, in a file that was not there.
pub(crate) fn copy(database: &Path, to: &Path) -> Result<(), StoreError> {
    copy_of(&reader(database)?, database, to)
}

/// As [`copy`], of what a connection reads.
pub(super) fn copy_of(from: &Connection, database: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::File { operation: "make", path: to.to_owned(), source };
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let name = to.to_string_lossy();
    let copied = from.execute("VACUUM INTO ?1", [&*name]).map(drop);
    copied.map_err(|source| {
        let _ = std::fs::remove_file(to);
        StoreError::Copy { path: database.to_owned(), source }
    })
}
