//! What is in a store, and what a step changes of it.

use crate::event::Event;
use crate::query::Accepted;
use crate::row::{InstanceRow, JobNotes, JobRow, ProgressRow};
use hearth_model::{Generation, Instance, InstanceId, Job, JobId, Mono};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// How long a key is remembered, by the host's monotonic clock; a reboot of the host restarts the count.
pub const KEY_LIVES: Duration = Duration::from_secs(24 * 60 * 60);

/// How many keys are kept; beyond that the oldest go first. With 24 h each this is more than one a
/// second, and at most some 50 MB on disk. None is held in memory.
pub const KEYS_MAX: i64 = 100_000;

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
