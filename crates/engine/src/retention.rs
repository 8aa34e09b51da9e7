//! What is forgotten by itself, by count and by age: finished jobs, the logs of instances that are
//! gone, the names of deleted jobs, events. Ages are of the host's monotonic clock, which a reboot
//! starts again, so that a wall clock that jumps forgets nothing early.

use crate::engine::Engine;
use crate::input::{Now, StepOutput};
use crate::oldest::Retention;
use hearth_model::{Action, Caller, InstanceId, JobId, Mono};
use hearth_planner::Busy;
use std::time::Duration;

/// Deleted jobs whose names are remembered, so that deleting them again is not an error and their
/// generations continue: about 1 MB.
const TOMBSTONES_MAX: usize = 10_000;

/// From one mark of how far the events have come to the next. An event is kept by this much too long.
const MARK_EVERY: Duration = Duration::from_secs(60 * 60);

/// A part of the events' number by which there may be more, so that they go in bulk.
const EVENTS_SLACK: u64 = 16;

impl Engine {
    /// Keeps in mind when a job finished, or that it runs again.
    pub(crate) fn note_finish(&mut self, now: Mono, id: &JobId) {
        let is_over = self.fleet.job(id).is_some_and(|job| job.progress.outcome.is_some());
        let Some(notes) = self.notes.get_mut(id) else { return };
        match (notes.finished_at(), is_over) {
            (None, true) => {
                notes.finished_at_ms = Some(now.as_millis());
                // To the millisecond, as it is read again from the database.
                self.oldest.finished.insert((Mono::from_millis(now.as_millis()), id.clone()));
            }
            (Some(at), false) => {
                notes.finished_at_ms = None;
                self.oldest.finished.remove(&(at, id.clone()));
            }
            _ => return,
        }
        self.journal.note_progress(id);
    }

    /// Forgets what is too old or too many.
    pub(crate) fn retain(&mut self, now: &Now, output: &mut StepOutput) {
        let keep = self.config.retention;
        let old = |at: Mono, age: Duration| now.mono.since(at) >= age;
        self.remove_finished(now);
        while let Some((at, _)) = self.oldest.finished.first()
            && (self.oldest.finished.len() > keep.finished_jobs_max || old(*at, keep.finished_for))
        {
            let Some((_, id)) = self.oldest.finished.pop_first() else { break };
            if self.entries.keys().any(|(_, declared)| *declared == id) {
                continue;
            }
            let message = "forgotten, since it finished long ago or many have finished since";
            self.mark_for_deletion(now, Caller::Hearth, &id, message);
        }
        while let Some((at, _, _)) = self.oldest.logs.first()
            && old(*at, keep.logs_for)
        {
            let Some((_, instance, job)) = self.oldest.logs.pop_first() else { break };
            if let Some(notes) = self.notes.get_mut(&job) {
                notes.past.retain(|past| past.instance != instance.as_str());
                self.journal.note_progress(&job);
            }
            self.drop_logs(instance, output);
        }
        while self.oldest.tombstones.len() > TOMBSTONES_MAX {
            let Some((_, id)) = self.oldest.tombstones.pop_first() else { break };
            self.tombstones.remove(&id);
            self.journal.note_tombstone(&id);
        }
        self.forget_events(now.mono, keep);
    }

    fn forget_events(&mut self, now: Mono, keep: Retention) {
        let marks = &mut self.oldest.marks;
        if marks.back().is_none_or(|(at, _)| now.since(*at) >= MARK_EVERY) {
            marks.push_back((now, self.journal.next_event()));
        }
        // Many at once: that frees whole pages of the database, where one with each new event would
        // write the oldest page again each time.
        let mut first = self.journal.next_event().saturating_sub(keep.events_max);
        if first < self.journal.first_event() + keep.events_max / EVENTS_SLACK {
            first = 0;
        }
        while let Some((at, event)) = self.oldest.marks.front()
            && now.since(*at) >= keep.events_for
        {
            first = first.max(*event);
            self.oldest.marks.pop_front();
        }
        self.journal.forget_events_before(first);
    }

    /// Has the logs of an instance removed. The intent is in the database until it is done.
    pub(crate) fn drop_logs(&mut self, instance: InstanceId, output: &mut StepOutput) {
        self.past.remove(&instance);
        self.log_drops.insert(instance.clone());
        self.journal.note_log_drop(&instance);
        self.begin_log_drop(instance, output);
    }

    /// Asks again for the removals of logs that are not done and not under way, as after a restart.
    pub(crate) fn drop_logs_again(&mut self, output: &mut StepOutput) {
        for instance in self.log_drops.iter().cloned().collect::<Vec<_>>() {
            self.begin_log_drop(instance, output);
        }
    }

    /// Logs of an instance that exists, as damaged rows may ask for, stay until it is removed.
    fn begin_log_drop(&mut self, instance: InstanceId, output: &mut StepOutput) {
        if self.fleet.instance(&instance).is_none() && !self.operations.is_busy(&instance) {
            self.act(output, Action::DropLogs { instance });
        }
    }
}
