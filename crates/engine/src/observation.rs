//! Takes in what the host says: states, exits, and what is missing.

use crate::engine::Engine;
use crate::execute::serves;
use crate::input::Now;
use hearth_model::{
    Assignment, Creation, End, Exit, InstanceId, InstanceState, JobId, Mono, Observation, Observed,
    Phase,
};
use hearth_planner::{STREAK_ENDS_AFTER, Verdict, verdict};
use hearth_store::{EventKind, ExitNote, JobExit};
use std::time::Duration;

/// From one event about an instance's memory to the next, so that a guest which loses one process
/// after another does not push everything else out of the events. The last is told at its end.
const OOM_EVENTS_APART: Duration = Duration::from_secs(10);

/// One in so many MiB has to be spare before it is told again that there is too little.
const SPARE_PART: u64 = 10;

impl Engine {
    /// Takes in a look at the host that began at `began`.
    pub(crate) fn apply_observation(&mut self, now: &Now, began: Mono, observation: Observation) {
        let Observation { instances, whole, unidentified, scratch_mib, .. } = observation;
        if whole || self.looked_at.is_some() {
            self.looked_at = self.looked_at.max(Some(began));
        }
        if whole {
            let known = self.fleet.instances().keys();
            // What can't be identified may be alive.
            let (left_alone, missing): (Vec<_>, Vec<_>) = known
                .filter(|id| !instances.contains_key(*id))
                .cloned()
                .partition(|id| unidentified.contains_key(id.as_str()));
            missing.iter().for_each(|id| self.missing(now, began, id));
            let known = |id: &InstanceId| self.fleet.instance(id).is_some();
            self.operations.retain(began, known);
            let before = std::mem::replace(&mut self.unidentified, unidentified);
            for id in left_alone.iter().filter(|id| !before.contains_key(id.as_str())) {
                self.left_alone(now, id);
            }
            self.orphans.clear();
            self.shown.stale_unidentified();
            self.disk_seen(now, scratch_mib);
        }
        for (id, observed) in instances {
            if self.fleet.instance(&id).is_some() {
                self.report_oom_kills(now, &id, &observed);
                self.note_silence(&id, observed.silence);
                self.note_confinement(&id, observed.confined);
                self.see(now, &id, observed.state);
            } else if (whole && !self.operations.ended_since(&id, began))
                || self.orphans.contains(&id)
            {
                // Otherwise it was removed after the look began.
                self.orphans.insert(id, observed);
                self.shown.stale_unidentified();
            }
        }
    }

    /// Records the room for scratch disks, and reports once when they may outgrow it.
    fn disk_seen(&mut self, now: &Now, scratch_mib: Option<u64>) {
        self.scratch_mib = scratch_mib;
        let promised = self.fleet.scratch_mib();
        let Some(room) = scratch_mib else { return };
        let was_short = self.disk_is_short;
        // Reported again only after there was some room to spare.
        let enough = if was_short { room - room / SPARE_PART } else { room };
        self.disk_is_short = promised > enough;
        if self.disk_is_short && !was_short {
            let message = format!(
                "the scratch disks of what runs may come to take {promised} MiB, and the state \
                 directory's disk has {room} MiB for them; free some, lower disk_mb, or set \
                 disk_overcommit to refuse"
            );
            self.event(now, None, None, None, EventKind::Error, message);
        }
    }

    /// The host no longer has anything of this instance.
    fn missing(&mut self, now: &Now, began: Mono, id: &InstanceId) {
        let Some(instance) = self.fleet.instance(id) else { return };
        if self.operations.is_in_flight(id)
            || self.operations.ended_since(id, began)
            || instance.exit().is_some()
        {
            return;
        }
        let end = instance.creation.end_if_missing();
        self.see(now, id, InstanceState::Exited(Exit { end, stop_requested: false }));
    }

    /// Reports once that the host can't identify an instance. Until it can, or until nothing of the instance
    /// is left, no action touches it, and its job gets no other.
    fn left_alone(&mut self, now: &Now, id: &InstanceId) {
        let assignment = self.fleet.instance(id).map(|instance| instance.assignment.clone());
        let (job, run) = assignment.map_or((None, None), |assignment| serves(&assignment));
        let sentence = self.unidentified[id.as_str()].clone();
        self.event(now, job.as_ref(), Some(id), run, EventKind::Error, sentence);
    }

    /// Reports the processes that a guest's kernel has killed for lack of memory. Counts are compared,
    /// so that a missed observation loses nothing.
    pub(crate) fn report_oom_kills(&mut self, now: &Now, id: &InstanceId, observed: &Observed) {
        let Some(instance) = self.fleet.instance(id) else { return };
        let kills = &observed.oom_kills;
        let new = kills.count.saturating_sub(instance.oom_kills) as usize;
        let soon = instance.oom_told_at.is_some_and(|at| now.mono.since(at) < OOM_EVENTS_APART);
        if new == 0 || (soon && !observed.state.is_exited()) {
            return;
        }
        let last = &kills.last[kills.last.len().saturating_sub(new)..];
        let killed: Vec<String> = last.iter().map(ToString::to_string).collect();
        let others = match new - last.len() {
            0 => String::new(),
            others => format!(" and {others} before"),
        };
        let message = format!(
            "{} is short of memory: its kernel killed {}{others}",
            instance.display_id(),
            killed.join(", ")
        );
        let (job, run) = serves(&instance.assignment);
        self.fleet.change_instance(id, |instance| {
            instance.oom_kills = kills.count;
            instance.oom_told_at = Some(now.mono);
        });
        let count = u32::try_from(new).ok();
        let kind = EventKind::OomKill { killed: last.to_vec(), count };
        self.event(now, job.as_ref(), Some(id), run, kind, message);
    }

    /// Whether the VMM of an instance answers.
    pub(crate) fn note_silence(&mut self, id: &InstanceId, silence: u32) {
        if self.fleet.instance(id).is_some_and(|instance| instance.silence != silence) {
            self.fleet.observe_instance(id, |instance| instance.silence = silence);
        }
    }

    /// Whether the VMM of an instance is confined.
    pub(crate) fn note_confinement(&mut self, id: &InstanceId, confined: bool) {
        if self.fleet.instance(id).is_some_and(|instance| instance.unconfined == confined) {
            self.fleet.observe_instance(id, |instance| instance.unconfined = !confined);
        }
    }

    /// Records what an instance does. An end is recorded once, with what it means for its job.
    pub(crate) fn see(&mut self, now: &Now, id: &InstanceId, state: InstanceState) {
        let Some(instance) = self.fleet.instance(id) else { return };
        let is_created = instance.creation == Creation::Confirmed;
        if matches!(state, InstanceState::Up { .. }) && !is_created {
            // It was created, whatever the host answers to its creation.
            self.fleet.change_instance(id, |instance| instance.creation = Creation::Confirmed);
        }
        let Some(instance) = self.fleet.instance(id) else { return };
        if instance.exit().is_some() || instance.state.as_ref() == Some(&state) {
            return;
        }
        // While a creation is under way its own result says why nothing was started.
        if self.operations.is_in_flight(id)
            && matches!(&state, InstanceState::Exited(exit) if exit.end == End::NeverStarted)
        {
            return;
        }
        let creation = instance.creation.clone();
        if self.operations.confirm(id) {
            self.fleet.replan_instance(id);
        }
        if let InstanceState::Exited(exit) = &state {
            let mut exit = exit.clone();
            if let (End::NeverStarted, Creation::OutcomeUnknown(end)) = (&exit.end, &creation) {
                exit.end = end.clone();
            }
            self.ended(now, id, &exit);
            let state = InstanceState::Exited(exit);
            self.fleet.change_instance(id, |instance| {
                instance.state = Some(state);
                instance.awaiting_first_report = false;
            });
            return;
        }
        let runs = matches!(state, InstanceState::Up { phase: Phase::Running, .. });
        self.fleet.observe_instance(id, |instance| {
            instance.state = Some(state);
            let is_heard =
                instance.awaiting_first_report && instance.state != Some(InstanceState::Booting);
            if is_heard || instance.seen_at.is_none() {
                instance.seen_at = Some(now.mono);
            }
            instance.awaiting_first_report &= !is_heard;
        });
        let Some(instance) = self.fleet.instance(id) else { return };
        let serving = match &instance.assignment {
            Assignment::Job { run, .. } => instance.serves(*run),
            Assignment::Pool(_) => instance.is_warm(),
        };
        let running_since = instance.running_since.or(runs.then_some(now.mono));
        let ready_since = instance.ready_since.or(serving.then_some(now.mono));
        if (running_since, ready_since) != (instance.running_since, instance.ready_since) {
            self.fleet.change_instance(id, |instance| {
                (instance.running_since, instance.ready_since) = (running_since, ready_since);
            });
        }
    }

    fn ended(&mut self, now: &Now, id: &InstanceId, exit: &Exit) {
        let Some(instance) = self.fleet.instance(id).cloned() else { return };
        let (job_id, run) = serves(&instance.assignment);
        let message = format!("{} ended: {}", instance.display_id(), exit.end);
        let kind = EventKind::Exited(Some(self.note_exit(&instance.assignment, &exit.end)));
        self.event(now, job_id.as_ref(), Some(id), run, kind, message);
        match &instance.assignment {
            Assignment::Pool(key) => {
                let lasted = instance
                    .ready_since
                    .is_some_and(|since| now.mono.since(since) >= STREAK_ENDS_AFTER);
                if lasted {
                    self.pools.remove(key);
                }
                // An exit while no daemon ran, as in a reboot of the host, is no failure of its pool.
                let failed = exit.end != End::NeverStarted && !instance.awaiting_first_report;
                if instance.stopping.is_none() && failed {
                    self.pool_failed(now.mono, key.clone(), exit.end.to_string());
                }
            }
            Assignment::Job { job: of, .. } => {
                let Some(job) = self.fleet.job(of) else { return };
                let verdict = verdict(job, &instance, exit, now.mono);
                match verdict {
                    Verdict::Nothing => {}
                    Verdict::Over(outcome) => self.over(of, outcome),
                    Verdict::Again { failures, not_before, reason } => {
                        self.fleet.change_progress(of, |progress| {
                            progress.failures = failures;
                            progress.not_before = Some(not_before);
                            progress.last_failure = Some(reason);
                        });
                    }
                }
            }
        }
    }

    /// Records that the current run of a job has exceeded its time, before its instance exits.
    pub(crate) fn note_timeout(&mut self, id: &JobId) {
        let Some(run) = self.fleet.job(id).map(|job| job.run) else { return };
        let exit = JobExit { end: End::Unknown, timed_out: true };
        self.notes.entry(id.clone()).or_default().exit = Some(ExitNote::of(run.0, &exit));
        self.journal.note_progress(id);
    }

    /// Records how an instance exited, if it served the current run of its job.
    pub(crate) fn note_exit(&mut self, assignment: &Assignment, end: &End) -> JobExit {
        let mut exit = JobExit { end: end.clone(), timed_out: false };
        let Assignment::Job { job, run, .. } = assignment else { return exit };
        if self.fleet.job(job).is_none_or(|job| job.run != *run) {
            return exit;
        }
        let notes = self.notes.entry(job.clone()).or_default();
        exit.timed_out =
            notes.exit.as_ref().is_some_and(|known| known.timed_out && known.run == run.0);
        notes.exit = Some(ExitNote::of(run.0, &exit));
        if let End::Code(code) = end {
            notes.exit_code = Some(*code);
        }
        self.journal.note_progress(job);
        exit
    }
}
