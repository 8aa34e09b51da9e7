//! Copies of the database: taken while a daemon uses it, checked, and put in its place.

use crate::error::StoreError;
use crate::files::sync;
use crate::sqlite::Sqlite;
use crate::sqlite::copy::{Contents, copy, inspect};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

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
