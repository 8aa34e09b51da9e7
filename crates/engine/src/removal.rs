//! Jobs that are deleted by themselves once they have finished (`auto_remove`), and when.
//!
//! A client that waits for such a job still has to read its last output and its exit code. So it is kept for
//! a while after its end, and after its last follower. Nothing of this is stored: an engine counts
//! from when it sees a job as finished, so that a client that waited for a restart of the daemon has the
//! same time.

use crate::engine::Engine;
use crate::input::Now;
use hearth_model::{Caller, JobId, Mono, Wanted};
use hearth_planner::Status;
use std::collections::BTreeSet;

impl Engine {
    /// Keeps in mind since when a job is to be deleted, or that it is not, or no longer.
    pub(crate) fn note_removal(&mut self, now: Mono, id: &JobId) {
        match (self.removals.contains(id), self.removes_itself(id)) {
            (false, true) => self.removals.begin(id, now),
            (true, false) => self.removals.end(id),
            _ => {}
        }
    }

    /// The same for all jobs.
    pub(crate) fn note_removals(&mut self, now: Mono) {
        let jobs = self.fleet.jobs().values().filter(|job| job.spec.auto_remove);
        for id in jobs.map(|job| job.id.clone()).collect::<Vec<_>>() {
            self.note_removal(now, &id);
        }
    }

    /// These jobs are followed, and no others. The time of those that are no longer begins again.
    pub(crate) fn followed(&mut self, now: Mono, jobs: BTreeSet<JobId>) {
        let before = std::mem::replace(&mut self.followed, jobs);
        for id in before.difference(&self.followed) {
            if self.removals.contains(id) {
                self.removals.begin(id, now);
            }
        }
    }

    /// Deletes the jobs whose time is over.
    pub(crate) fn remove_finished(&mut self, now: &Now) {
        for id in self.removals.due(now.mono, self.config.retention.removed_after) {
            // It may have been asked to run again by this very step.
            if !self.removes_itself(&id) {
                continue;
            }
            if self.followed.contains(&id) {
                self.removals.begin(&id, now.mono);
                continue;
            }
            let message = "deleted by itself, since it has finished";
            self.mark_for_deletion(now, Caller::Hearth, &id, message);
        }
    }

    fn removes_itself(&self, id: &JobId) -> bool {
        let asked = |job: &hearth_model::Job| job.spec.auto_remove && job.wanted != Wanted::Deleted;
        let finished = [Status::Completed, Status::Failed, Status::Stopped];
        self.fleet.job(id).is_some_and(asked)
            && self.status_of(id).is_some_and(|status| finished.contains(&status))
    }
}
