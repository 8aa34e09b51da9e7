//! What the engine remembers: one writer, one commit a step, all or nothing.
//!
//! ```text
//!   Store ──> Sqlite   a file, or in memory
//!        └──> Memory   what Sqlite does, without it: for simulations in great numbers
//! ```

mod backup;
mod event;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod json;
mod memory;
mod query;
mod row;
mod sqlite;

use hearth_model::{Generation, Instance, InstanceId, Job, JobId, Mono};
use memory::Memory;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use backup::{Contents, backup, gather, inspect, restore};
pub use event::{Event, EventKind, ExitNote, JobExit};
pub use files::{Anchor, Means, saved};
pub use query::{Accepted, EventPage, Events};
pub use row::{InstanceRow, JobNotes, JobRow, Past, ProgressRow};
use sqlite::{Sqlite, connect};

/// How long a key is remembered, by the host's monotonic clock; a reboot of the host restarts the count.
pub const KEY_LIVES: Duration = Duration::from_secs(24 * 60 * 60);

/// How many keys are kept; beyond that the oldest go first. With 24 h each this is more than one a
/// second, and at most some 50 MB on disk. None is held in memory.
const KEYS_MAX: i64 = 100_000;

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

/// The database.
#[derive(Debug)]
pub struct Store {
    backend: Backend,
    /// Simulated: commits fail.
    full: bool,
    /// Simulated: the files are lost.
    lost: bool,
}

#[derive(Debug)]
enum Backend {
    Sqlite(Sqlite),
    Memory(Box<Memory>),
}

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

impl Store {
    /// Opens the database, making it (with mode 0600) where there is none, and brings it to this
    /// version's form.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::Open`], [`StoreError::Damaged`] or [`StoreError::Migrate`]; the
    /// file is then as it was.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        Sqlite::open(path).map(|sqlite| Store::of(Backend::Sqlite(sqlite)))
    }

    /// A database in memory, for simulations.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn in_memory() -> Result<Store, StoreError> {
        Sqlite::in_memory().map(|sqlite| Store::of(Backend::Sqlite(sqlite)))
    }

    /// What does as a database in memory does and is none, for simulations in great numbers.
    #[must_use]
    pub fn model() -> Store {
        Store::of(Backend::Memory(Box::default()))
    }

    fn of(backend: Backend) -> Store {
        Store { backend, full: false, lost: false }
    }

    #[cfg(fuzzing)]
    pub(crate) fn sqlite(&self) -> Option<&Sqlite> {
        match &self.backend {
            Backend::Sqlite(sqlite) => Some(sqlite),
            Backend::Memory(_) => None,
        }
    }

    /// From now on commits fail as on a full disk, or no longer. For simulations.
    pub fn set_disk_full(&mut self, full: bool) {
        self.full = full;
    }

    /// From now on the files are lost, or no longer. For simulations.
    pub fn set_lost(&mut self, lost: bool) {
        self.lost = lost;
    }

    /// Takes the database for a daemon: nobody else gets it while it is open, and these have to stay where
    /// they are as well as its files.
    ///
    /// # Errors
    /// [`StoreError::InUse`].
    pub fn hold(&mut self, around: Vec<Anchor>) -> Result<(), StoreError> {
        match &mut self.backend {
            Backend::Sqlite(sqlite) => sqlite.hold(around),
            Backend::Memory(_) => Ok(()),
        }
    }

    /// Looks whether the files are still those that were opened. Costs some calls of stat(2).
    ///
    /// # Errors
    /// [`StoreError::Lost`].
    pub fn check(&mut self) -> Result<(), StoreError> {
        if self.lost {
            let problem = "the simulated database was removed".to_owned();
            return Err(StoreError::Lost { problem, means: Means::Database });
        }
        match &mut self.backend {
            Backend::Sqlite(sqlite) => sqlite.check(),
            Backend::Memory(_) => Ok(()),
        }
    }

    /// Puts a copy of what was committed where the next daemon finds it; `rows` is what it holds, but for
    /// the events and keys. `None` for a database that is not on disk.
    ///
    /// # Errors
    /// Where no whole copy could be made.
    pub fn save(&self, rows: &Changes<'_>) -> Result<Option<PathBuf>, StoreError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.save(rows),
            Backend::Memory(_) => Ok(None),
        }
    }

    /// Writes something that means nothing, to see whether a commit would succeed.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn probe(&mut self) -> Result<(), StoreError> {
        match &mut self.backend {
            _ if self.full => Err(disk_full()),
            Backend::Sqlite(sqlite) => sqlite.probe(),
            Backend::Memory(_) => Ok(()),
        }
    }

    /// Everything but the events and keys.
    ///
    /// # Errors
    /// [`StoreError::Read`], or [`StoreError::Row`] for a row that holds nonsense.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.load(),
            Backend::Memory(memory) => Ok(memory.load()),
        }
    }

    /// Writes what a step changed, all or nothing, and returns when it is on disk.
    ///
    /// # Errors
    /// [`StoreError::Write`]: nothing was written. [`StoreError::Lost`]: it was, to files that are lost.
    pub fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        match &mut self.backend {
            Backend::Sqlite(sqlite) => sqlite.commit(changes, self.full),
            Backend::Memory(memory) => memory.commit(changes, self.full),
        }
    }

    /// What a key was used for, however long ago.
    ///
    /// # Errors
    /// [`StoreError::Read`], or [`StoreError::Row`] for a row that holds nonsense.
    pub fn used(&self, key: &str) -> Result<Option<Used>, StoreError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.used(key),
            Backend::Memory(memory) => Ok(memory.used(key)),
        }
    }

    /// Events of one job or of all, oldest first: the newest, or those behind one.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub fn events(&self, query: &Events) -> Result<EventPage, StoreError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.events(query),
            Backend::Memory(memory) => Ok(memory.events(query)),
        }
    }
}

/// What a commit fails with on a disk that is full.
fn disk_full() -> StoreError {
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    StoreError::Write(rusqlite::Error::SqliteFailure(full, None))
}
