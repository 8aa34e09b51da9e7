//! Copies of the database: taken while a daemon uses it, checked, and put in its place.

use crate::error::StoreError;
use crate::files::sync;
use crate::row::JobNotes;
use crate::sqlite::{Sqlite, connect};
use crate::store::Store;
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

/// Copies a database to a new file of mode 0600, as it was at one moment, even while a daemon uses it:
/// no other process waits for it. When this returns the copy was checked and is on disk.
///
/// # Errors
/// [`StoreError::Copy`] where the database can't be read or the file can't be written or is there;
/// the errors of [`inspect`] where the database is damaged. Nothing is left then.
pub fn backup(database: &Path, to: &Path) -> Result<Contents, StoreError> {
    copy(database, to)?;
    let checked = inspect(to).and_then(|contents| sync(to).map(|()| contents));
    checked.inspect_err(|_| {
        let _ = std::fs::remove_file(to);
    })
}

/// Makes a new database of a backup, in this version's form. Instances are not in it: what runs is
/// not what ran then, and the host remembers whose each is.
///
/// # Errors
/// As [`backup`], and as [`Sqlite::open`] where the backup is of a newer version.
pub fn restore(backup: &Path, to: &Path) -> Result<Contents, StoreError> {
    copy(backup, to)?;
    let made = (|| {
        let mut store = Sqlite::open(to)?;
        store.forget_instances()?;
        store.close(to)?;
        let contents = inspect(to)?;
        sync(to)?;
        Ok(contents)
    })();
    made.inspect_err(|_| {
        let _ = std::fs::remove_file(to);
    })
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
    let loaded = Sqlite::over(connection).load()?;
    let images = ImageUses::of(loaded.jobs.values(), loaded.instances.values());
    let past = loaded.notes.values().flat_map(JobNotes::past).map(|(id, _)| id);
    Ok(Contents {
        jobs: loaded.jobs.len(),
        logs: past.chain(loaded.log_drops).collect(),
        images,
        instances: loaded.instances.into_keys().collect(),
    })
}

/// Brings what SQLite keeps beside a database that is not in use into its one file.
///
/// # Errors
/// [`StoreError::Copy`] where it is not a database.
pub fn gather(database: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Copy { path: database.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags(database, flags).map_err(failed)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
    connection.close().map_err(|(_, source)| failed(source))
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
fn copy(database: &Path, to: &Path) -> Result<(), StoreError> {
    copy_of(&reader(database)?, database, to)
}

/// As [`copy`], of what a connection reads.
pub(crate) fn copy_of(from: &Connection, database: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::File { operation: "make", path: to.to_owned(), source };
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let name = to.to_string_lossy();
    let copied = from.execute("VACUUM INTO ?1", [&*name]).map(drop);
    copied.map_err(|source| {
        let _ = std::fs::remove_file(to);
        StoreError::Copy { path: database.to_owned(), source }
    })
}
