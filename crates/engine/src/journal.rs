//! What a step changes, until its commit is on disk. Rows of jobs and instances follow from the changes of
//! the fleet; everything else is noted here when it changes. Which job or pool is planned again is not:
//! the fleet knows.

use hearth_model::{InstanceId, JobId};
use hearth_planner::{Changed, Fleet};
use hearth_store::{Event, JobNotes, ProgressRow, Used};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The changes of a step, and the numbers of events.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pending: Pending,
    next_event: u64,
    first_event: u64,
    /// Whether the database still names another boot: times of it are void once a commit says so.
    rebooted: bool,
}

/// What a commit has to write. A row that no longer exists is removed.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Jobs, by what is wanted of them.
    pub(crate) jobs: BTreeSet<JobId>,
    /// Jobs, by their progress and what is kept beside it.
    pub(crate) progress: BTreeSet<JobId>,
    pub(crate) instances: BTreeSet<InstanceId>,
    pub(crate) tombstones: BTreeSet<JobId>,
    pub(crate) log_drops: BTreeSet<InstanceId>,
    pub(crate) entries: BTreeSet<(PathBuf, JobId)>,
    pub(crate) keys: BTreeMap<String, Used>,
    pub(crate) events: Vec<Event>,
}

impl Journal {
    /// Of a database whose last event is this one.
    pub(crate) fn after(last_event: u64, rebooted: bool) -> Journal {
        Journal { next_event: last_event + 1, rebooted, ..Journal::default() }
    }

    /// What is kept beside the progress of a job has changed.
    pub(crate) fn note_progress(&mut self, id: &JobId) {
        self.pending.progress.insert(id.clone());
    }

    pub(crate) fn note_tombstone(&mut self, id: &JobId) {
        self.pending.tombstones.insert(id.clone());
    }

    pub(crate) fn note_log_drop(&mut self, id: &InstanceId) {
        self.pending.log_drops.insert(id.clone());
    }

    pub(crate) fn note_entry(&mut self, key: (PathBuf, JobId)) {
        self.pending.entries.insert(key);
    }

    pub(crate) fn note_key(&mut self, key: String, used: Used) {
        self.pending.keys.insert(key, used);
    }

    /// What a key was used for by an earlier request of this step.
    pub(crate) fn used(&self, key: &str) -> Option<&Used> {
        self.pending.keys.get(key)
    }

    /// Records an event, which is made of its id.
    pub(crate) fn event(&mut self, event: impl FnOnce(u64) -> Event) {
        self.pending.events.push(event(self.next_event));
        self.next_event += 1;
    }

    /// The id of the next event.
    pub(crate) fn next_event(&self) -> u64 {
        self.next_event
    }

    /// Events before this one are forgotten. The newest one stays, whatever its age: the next id follows
    /// from it.
    pub(crate) fn first_event(&self) -> u64 {
        self.first_event.min(self.next_event.saturating_sub(1))
    }

    pub(crate) fn forget_events_before(&mut self, event: u64) {
        self.first_event = self.first_event.max(event);
    }

    /// Whether the database still names another boot.
    pub(crate) fn rebooted(&self) -> bool {
        self.rebooted
    }

    /// A commit has written what was taken.
    pub(crate) fn committed(&mut self) {
        self.rebooted = false;
    }

    /// Takes what has changed, beside these changes of the fleet.
    pub(crate) fn take(&mut self, fleet: Changed) -> Pending {
        let mut pending = std::mem::take(&mut self.pending);
        pending.jobs.extend(fleet.jobs);
        pending.progress.extend(fleet.progress);
        pending.instances.extend(fleet.instances);
        pending
    }
}

/// The row of a job's progress; `None` if there is no such job.
pub(crate) fn progress_row<'a>(
    fleet: &'a Fleet,
    notes: &'a BTreeMap<JobId, JobNotes>,
    id: &JobId,
) -> Option<ProgressRow<'a>> {
    Some(ProgressRow::of(&fleet.job(id)?.progress, notes.get(id)?))
}
