//! What the engine remembers: one writer, one commit a step, all or nothing.
//!
//! ```text
//!   Store ──> Sqlite   a file, or in memory
//!        ├──> Memory   what Sqlite does, without it: for simulations in great numbers
//!        └──> Faulty   one of these, with the faults that a simulation asks for
//! ```
//! Both pass one contract suite (`tests/suite/contract.rs`), and the simulation does the same over either.

mod backup;
mod event;
mod faulty;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod json;
mod memory;
mod query;
mod row;
mod sqlite;

use hearth_model::{Generation, Instance, InstanceId, Job, JobId, Mono};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use backup::{Contents, backup, gather, inspect, restore};
pub use event::{Event, EventKind, ExitNote, JobExit};
pub use faulty::{Faults, Faulty};
pub use files::{Anchor, Means, saved};
pub use memory::Memory;
pub use query::{Accepted, EventPage, Events};
pub use row::{InstanceRow, JobNotes, JobRow, Past, ProgressRow};
pub use sqlite::Sqlite;

/// How long a key is remembered, by the host's monotonic clock; a reboot of the host restarts the count.
pub const KEY_LIVES: Duration = Duration::from_secs(24 * 60 * 60);

/// How many keys are kept; beyond that the oldest go first. With 24 h each this is more than one a
/// second, and at most some 50 MB on disk. None is held in memory.
pub const KEYS_MAX: i64 = 100_000;

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

impl From<files::Loss> for StoreError {
    fn from(files::Loss { problem, means }: files::Loss) -> StoreError {
        StoreError::Lost { problem, means }
    }
}

impl StoreError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, StoreError::Write(error) if sqlite::lacks_room(error))
    }

    /// Whether its files are lost. Nothing that was written since can be counted on.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, StoreError::Lost { .. })
    }

    /// Whether the disk failed to keep what was written: then the kernel may have dropped it, and
    /// another sync that succeeds says nothing of it (Rebello and others, "Can Applications Recover
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

/// What an engine keeps its state in. It has one owner, which alone writes.
pub trait Store: fmt::Debug + Send {
    /// Everything but the events and keys.
    ///
    /// # Errors
    /// [`StoreError::Read`], or [`StoreError::Row`] for a row that holds nonsense.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Writes what a step changed, all or nothing, and returns when it is on disk. Without changes it does
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::Write`]: nothing was written. [`StoreError::Lost`]: it was, to files that are lost.
    fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError>;

    /// What a key was used for, however long ago.
    ///
    /// # Errors
    /// [`StoreError::Read`], or [`StoreError::Row`] for a row that holds nonsense.
    fn used(&self, key: &str) -> Result<Option<Used>, StoreError>;

    /// Events of one job or of all, oldest first: the newest, or those behind one.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    fn events(&self, query: &Events) -> Result<EventPage, StoreError>;

    /// Looks whether the files are still those that were opened. Costs some calls of stat(2).
    ///
    /// # Errors
    /// [`StoreError::Lost`].
    fn check(&mut self) -> Result<(), StoreError>;

    /// Writes something that means nothing, to see whether a commit would succeed.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn probe(&mut self) -> Result<(), StoreError>;

    /// Puts a copy of what was committed where the next daemon finds it; `rows` is what it holds, but for
    /// the events and keys. `None` for a store that is not on disk.
    ///
    /// # Errors
    /// Where no whole copy could be made.
    fn save(&self, rows: &Changes<'_>) -> Result<Option<PathBuf>, StoreError>;
}

macro_rules! boxed {
    ($($store:ty),*) => {$(
        impl From<$store> for Box<dyn Store> {
            fn from(store: $store) -> Box<dyn Store> {
                Box::new(store)
            }
        }
    )*};
}
boxed!(Sqlite, Memory, Faulty);

/// What a file's entry was when it was last applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// Of what it says.
    pub digest: String,
    /// The generation of its job after that.
    pub generation: Generation,
}

/// What is remembered of a deleted job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Its last one.
    pub generation: Generation,
    /// The event of its deletion.
    pub event: u64,
}

/// What a key was used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Of all that the request says.
    pub digest: String,
    /// The job that it changed.
    pub job: JobId,
    /// How it was accepted.
    pub accepted: Accepted,
    /// When, on the host's monotonic clock.
    pub at: Mono,
}

/// Everything that the database holds, but for the events and keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// Jobs.
    pub jobs: BTreeMap<JobId, Job>,
    /// What is kept of each beside its progress.
    pub notes: BTreeMap<JobId, JobNotes>,
    /// Instances.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// Deleted jobs.
    pub tombstones: BTreeMap<JobId, Tombstone>,
    /// What was last applied of each file.
    pub entries: BTreeMap<(PathBuf, JobId), AppliedEntry>,
    /// Instances whose logs are to be removed.
    pub log_drops: BTreeSet<InstanceId>,
    /// The id of the newest event; 0 if there is none.
    pub last_event: u64,
    /// The boot of the host that times are of.
    pub boot_id: Option<String>,
}

/// What a step changed. `None` removes a row.
#[derive(Debug, Default)]
pub struct Changes<'a> {
    /// What is wanted of jobs. One that is new comes with its progress, and goes with it.
    pub jobs: Vec<(JobId, Option<JobRow<'a>>)>,
    /// The progress of jobs.
    pub progress: Vec<(JobId, Option<ProgressRow<'a>>)>,
    /// Instances.
    pub instances: Vec<(InstanceId, Option<InstanceRow>)>,
    /// Deleted jobs.
    pub tombstones: Vec<(JobId, Option<Tombstone>)>,
    /// What was last applied of a file.
    pub entries: Vec<((PathBuf, JobId), Option<AppliedEntry>)>,
    /// Keys, with what they were used for.
    pub keys: Vec<(String, Used)>,
    /// Whether the logs of an instance are to be removed.
    pub log_drops: Vec<(InstanceId, bool)>,
    /// New events, in the order of their ids.
    pub events: Vec<Event>,
    /// Events before this one go.
    pub first_event: u64,
    /// The boot of the host that times are of from now on.
    pub boot_id: Option<String>,
}

impl Changes<'_> {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
            && self.progress.is_empty()
            && self.instances.is_empty()
            && self.tombstones.is_empty()
            && self.entries.is_empty()
            && self.keys.is_empty()
            && self.log_drops.is_empty()
            && self.events.is_empty()
            && self.boot_id.is_none()
    }
}

/// What a commit fails with on a disk that is full.
fn disk_full() -> StoreError {
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    StoreError::Write(rusqlite::Error::SqliteFailure(full, None))
}
