//! Why the database could not be used.

use crate::loss::{Loss, Means};
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
use std::path::PathBuf;

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It could not be opened or brought to this version's form.
    #[error("cannot open the database {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// It is no database any more, or one whose parts do not fit together.
    #[error(
        "the database {path} is damaged: {detail}. Nothing was changed, and no microVM is touched: \
         restore a backup with hearth restore"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// It is damaged or was written by a newer version.
    #[error(
        "cannot bring the database {path} to this version's form; it may be of a newer Hearth or \
         damaged. Nothing was changed, and no microVM is touched: use that version, or restore a \
         backup with hearth restore"
    )]
    Migrate {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite_migration::Error,
    },
    /// A row does not hold what it should.
    #[error(
        "cannot read the row of {what} in the database: {detail}; restore a backup with hearth restore"
    )]
    Row {
        /// Whose row.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It could not be read as a whole.
    #[error("cannot read the database {path}")]
    Copy {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A file beside it could not be made.
    #[error("cannot {operation} {path}")]
    File {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("cannot use the database {path}: another hearth daemon uses it; end that one first")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Its files are not where they were opened, or somebody has changed them: nothing that is written
    /// would be found again.
    #[error("{problem} beneath the daemon")]
    Lost {
        /// What has happened, as the beginning of a sentence.
        problem: String,
        /// What is not where it was.
        means: Means,
    },
    /// A query failed.
    #[error("cannot read the database; restore a backup with hearth restore")]
    Read(#[source] rusqlite::Error),
    /// A commit failed.
    #[error("cannot write the database")]
    Write(#[source] rusqlite::Error),
}

impl From<Loss> for StoreError {
    fn from(Loss { problem, means }: Loss) -> StoreError {
        StoreError::Lost { problem, means }
    }
}

impl StoreError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, StoreError::Write(error) if lacks_room(error))
    }

    /// Whether its files are lost. Nothing that was written since can be counted on.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, StoreError::Lost { .. })
    }

    /// Whether the disk failed to keep what was written: then the kernel may have dropped it, and
    /// another sync that succeeds proves nothing (Rebello and others, "Can Applications Recover
    /// from fsync Failures?", ATC 2020).
    #[must_use]
    pub fn is_sync_failed(&self) -> bool {
        use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
        matches!(self, StoreError::Write(error)
        if error.sqlite_error().is_some_and(|error| {
            [SQLITE_IOERR_FSYNC, SQLITE_IOERR_DIR_FSYNC].contains(&error.extended_code)
        }))
    }
}

/// What a commit fails with on a disk that is full.
pub(crate) fn disk_full() -> StoreError {
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    StoreError::Write(rusqlite::Error::SqliteFailure(full, None))
}

/// Whether the disk has no room, for the database or for what SQLite keeps beside it.
pub(crate) fn lacks_room(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == rusqlite::ErrorCode::DiskFull || error.extended_code == SQLITE_IOERR_SHMSIZE
    })
}
