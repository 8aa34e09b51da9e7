//! What is kept for a while: for how long, and what is the oldest of it.

use hearth_model::{InstanceId, JobId, Mono};
use hearth_store::{JobNotes, Tombstone};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How long finished jobs, events and logs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Finished jobs of the lifecycle `job`: the newest so many. Jobs that a desired-state file
    /// declares are kept whatever their number and age.
    pub finished_jobs_max: usize,
    /// How long a finished job is kept.
    pub finished_for: Duration,
    /// How long a finished job with `auto_remove` is kept for clients that collect its result, and
    /// again after the last of them has gone.
    pub removed_after: Duration,
    /// How long the logs of an instance are kept that is gone, while its job is there.
    pub logs_for: Duration,
    /// Events: the newest so many, and up to a sixteenth more.
    pub events_max: u64,
    /// How long an event is kept.
    pub events_for: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Retention {
    /// A week, within what a small disk holds: 1,000 jobs of 10 MiB of logs at most each, some
    /// days of events of a busy host in 3 MB.
    fn default() -> Retention {
        Retention {
            finished_jobs_max: 1000,
            finished_for: 7 * DAY,
            removed_after: Duration::from_secs(10),
            logs_for: 7 * DAY,
            events_max: 10_000,
            events_for: 7 * DAY,
        }
    }
}

/// What there is to forget, oldest first. Derived from the notes of jobs and from tombstones.
#[derive(Debug, Default)]
pub(crate) struct Oldest {
    /// Jobs by when they finished.
    pub(crate) finished: BTreeSet<(Mono, JobId)>,
    /// Logs by when their instance was removed.
    pub(crate) logs: BTreeSet<(Mono, InstanceId, JobId)>,
    /// Tombstones by the event of their deletion.
    pub(crate) tombstones: BTreeSet<(u64, JobId)>,
    /// The next event at some times past.
    pub(crate) marks: VecDeque<(Mono, u64)>,
}

impl Oldest {
    pub(crate) fn of(
        notes: &BTreeMap<JobId, JobNotes>,
        tombstones: &BTreeMap<JobId, Tombstone>,
    ) -> Oldest {
        let finished =
            notes.iter().filter_map(|(id, notes)| Some((notes.finished_at()?, id.clone())));
        let logs = notes.iter().flat_map(|(id, notes)| {
            notes.past().map(move |(instance, at)| (at, instance, id.clone()))
        });
        let of_tombstones = tombstones.iter().map(|(id, stone)| (stone.event, id.clone()));
        Oldest {
            finished: finished.collect(),
            logs: logs.collect(),
            tombstones: of_tombstones.collect(),
            marks: VecDeque::new(),
        }
    }
}
