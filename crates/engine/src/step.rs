//! One step of the engine: inputs, plan, one commit, then effects.
//!
//! ```text
//!   take_in ──▶ end_cooldowns ──▶ reconcile ──▶ commit ──on disk──▶ the view, effects, replies
//!   (inputs)                      (plan, act)      ├──failed──▶ reload_after_failed_commit: refusals alone
//!                                                  └──files lost──▶ withhold
//! ```

use crate::ask::{Call, Read, Request};
use crate::engine::{Engine, forget_times};
use crate::input::{Effect, Input, Now, StepOutput};
use crate::journal::progress_row;
use crate::reply::Refusal;
use hearth_model::{Creation, InstanceId, JobId, Mono};
use hearth_planner::{Scope, Subject, Subjects, check, plan, status};
use hearth_store::{Changes, Event, EventKind, InstanceRow, JobRow, StoreError};
use std::collections::BTreeSet;
use std::time::Duration;

impl Engine {
    /// One step: takes in the inputs in their order, plans, commits, and returns what to do.
    ///
    /// `alive` says from memory whether an instance's process lives; a dead one is not claimed.
    /// Where the commit fails every change that the step was asked for is refused, nothing is done,
    /// and the engine stands where the database does. What only reads is answered behind the commit.
    ///
    /// # Panics
    /// Where the planner breaks an invariant of its plan, where the database can't be read after a
    /// commit that failed: memory would be ahead of the disk, and where a sync failed: whether the step
    /// is on disk is not known, so it may be neither acknowledged nor refused. No microVM depends on
    /// this process.
    pub fn step(
        &mut self,
        now: &Now,
        inputs: Vec<Input>,
        alive: &dyn Fn(&InstanceId) -> bool,
    ) -> Vec<Effect> {
        let inputs = match self.look_at_files(now, inputs) {
            Ok(inputs) => inputs,
            Err(inputs) => return self.step_without_files(now, inputs),
        };
        let mut output = StepOutput::default();
        let mut reads = Vec::new();
        for input in inputs {
            self.take_in(now, input, alive, &mut output, &mut reads);
        }
        self.end_cooldowns(now.mono);
        let wake_at = self.reconcile(now, &mut output);
        let mut effects = self.commit_and_release(now, output, wake_at);
        self.publish();
        let asked = reads.iter().any(|read| matches!(read, Read::Ready(_)));
        self.try_writing(now.mono, asked);
        // After the commit, so that everything shown is on disk.
        effects.extend(reads.into_iter().map(|read| Effect::Reply(self.read(read))));
        effects
    }

    /// Applies an input. What only reads is answered later, after the commit.
    fn take_in(
        &mut self,
        now: &Now,
        input: Input,
        alive: &dyn Fn(&InstanceId) -> bool,
        output: &mut StepOutput,
        reads: &mut Vec<Read>,
    ) {
        match input {
            Input::Request(Call { request: Request::Read(read), .. }) => reads.push(read),
            Input::Request(call) => {
                let reply = self.request(now, call, alive, output);
                output.replies.push(reply);
            }
            Input::Observed { began, observation } => {
                self.apply_observation(now, began, observation);
            }
            Input::Done(id, result) => self.done(now, id, result, output),
            Input::Resolved(job, run, resolution) => self.resolved(now, &job, run, resolution),
            Input::Followed(jobs) => self.followed(now.mono, jobs),
            Input::Tick => {}
        }
    }

    /// Lets the planner act again on instances whose wait is over.
    fn end_cooldowns(&mut self, now: Mono) {
        for id in self.operations.release_due(now, self.looked_at) {
            self.fleet.replan_instance(&id);
        }
    }

    /// Plans, acts, and records how the jobs stand that may stand differently now. Returns when to step
    /// again, if nothing happens before.
    fn reconcile(&mut self, now: &Now, output: &mut StepOutput) -> Option<Mono> {
        let (wake_at, mut shown) = self.plan_and_act(now, output);
        // What the plan's own steps have changed is planned in the next step, and shown now.
        shown.extend(self.fleet.due().jobs.iter().cloned());
        self.note_statuses(now, &shown);
        self.shown.stale_jobs(shown);
        wake_at.into_iter().chain(self.operations.next_release()).min()
    }

    /// Plans for whom it may make a difference, and at the resync for all; carries the plan out.
    /// Returns when to plan again (at once after a step that needed no host, such as a claim, since
    /// the next plan has more to do), and the jobs that were planned.
    fn plan_and_act(
        &mut self,
        now: &Now,
        output: &mut StepOutput,
    ) -> (Option<Mono>, BTreeSet<JobId>) {
        if !self.observation_is_fresh(now.mono) {
            return (None, BTreeSet::new());
        }
        self.retain(now, output);
        self.adopt_orphans(now);
        for subject in self.agenda.due(now.mono) {
            self.fleet.replan(subject);
        }
        let due = self.fleet.take_due();
        let resync = self.agenda.is_resync_due(now.mono);
        if due.is_empty() && !resync {
            return (self.agenda.next(), BTreeSet::new());
        }
        let world = self.world(now.mono);
        let scope = match resync {
            true => Scope::All,
            false => Scope::Some { jobs: &due.jobs, pools: &due.pools, queue: self.agenda.queue() },
        };
        let plan = plan(&world, scope);
        if let Err(violation) = check(&world, &plan) {
            panic!("the plan breaks an invariant: {}", violation.0);
        }
        if resync {
            self.agenda.restart(now.mono);
            let fleet = &self.fleet;
            self.claims
                .retain(|key| fleet.demand(key).0 > 0 || fleet.of_pool(key).next().is_some());
            self.drop_logs_again(output);
            self.note_removals(now.mono);
        }
        self.shown.stale(Subjects { jobs: BTreeSet::new(), pools: due.pools });
        let mut planned = due.jobs;
        for (subject, next_check) in plan.next_checks {
            if let Subject::Job(id) = &subject {
                planned.insert(id.clone());
            }
            self.agenda.note(subject, next_check);
        }
        let again = self.carry_out(now, plan.steps, output);
        let at_once = now.mono.after(Duration::from_millis(1));
        (if again { Some(at_once) } else { self.agenda.next() }, planned)
    }

    /// Records how these jobs stand, with an event for each that stands differently.
    fn note_statuses(&mut self, now: &Now, ids: &BTreeSet<JobId>) {
        for id in ids {
            self.note_finish(now.mono, id);
            self.note_removal(now.mono, id);
        }
        let mut changed = Vec::new();
        for job in ids.iter().filter_map(|id| self.fleet.job(id)) {
            let stands = status(&self.fleet, job, self.agenda.waiting(&job.id));
            let known = self.notes.get(&job.id);
            let rests_on = stands.instance.as_ref().and_then(|id| self.fleet.instance(id));
            if known.is_some() && rests_on.is_some_and(|instance| instance.awaiting_first_report) {
                // Its status stays until the instance reports or its deadline passes.
                continue;
            }
            let same = known.is_some_and(|known| known.status == stands.status.as_str());
            let reason = stands.reason.as_ref().map(|reason| reason.at(now.mono));
            if !same || known.is_some_and(|known| known.reason != reason) {
                changed.push((job.id.clone(), job.run, same, stands, reason));
            }
        }
        for (id, run, same, stands, reason) in changed {
            let notes = self.notes.entry(id.clone()).or_default();
            notes.reason.clone_from(&reason);
            if same {
                continue;
            }
            stands.status.as_str().clone_into(&mut notes.status);
            notes.since.clone_from(&now.wall);
            self.journal.note_progress(&id);
            let message = match &reason {
                Some(reason) => format!("{}: {reason}", stands.status),
                None => stands.status.to_string(),
            };
            let kind = EventKind::Status { status: Some(stands.status), reason };
            self.event(now, Some(&id), stands.instance.as_ref(), Some(run), kind, message);
        }
    }

    /// Commits, and hands out what the step came to: all of it once it is on disk, nothing otherwise.
    fn commit_and_release(
        &mut self,
        now: &Now,
        output: StepOutput,
        wake_at: Option<Mono>,
    ) -> Vec<Effect> {
        match self.commit(now.mono) {
            Ok(events) => {
                let StepOutput { mut effects, replies } = output;
                effects.extend(replies.into_iter().map(Effect::Reply));
                effects.extend(events.into_iter().map(Effect::Log));
                effects.extend(wake_at.map(|at| Effect::WakeIn(at.since(now.mono))));
                effects
            }
            Err(error) if error.is_sync_failed() => {
                panic!(
                    "the disk failed to sync the database; look for its errors in the kernel's log"
                )
            }
            Err(error) if error.is_lost() => self.withhold(&error, output),
            Err(error) => self.reload_after_failed_commit(&error, output),
        }
    }

    fn commit(&mut self, now: Mono) -> Result<Vec<Event>, StoreError> {
        let pending = self.journal.take(self.fleet.take_changed());
        let job_row = |id: &JobId| self.fleet.job(id).map(JobRow::of);
        let progress_row = |id: &JobId| progress_row(&self.fleet, &self.notes, id);
        let instance_row = |id: &InstanceId| self.fleet.instance(id).map(InstanceRow::of);
        let changes = Changes {
            jobs: pending.jobs.iter().map(|id| (id.clone(), job_row(id))).collect(),
            progress: pending.progress.iter().map(|id| (id.clone(), progress_row(id))).collect(),
            instances: pending.instances.iter().map(|id| (id.clone(), instance_row(id))).collect(),
            tombstones: pending
                .tombstones
                .iter()
                .map(|id| (id.clone(), self.tombstones.get(id).copied()))
                .collect(),
            log_drops: pending
                .log_drops
                .iter()
                .map(|id| (id.clone(), self.log_drops.contains(id)))
                .collect(),
            entries: pending
                .entries
                .iter()
                .map(|key| (key.clone(), self.entries.get(key).cloned()))
                .collect(),
            keys: pending.keys.into_iter().collect(),
            events: pending.events,
            first_event: self.journal.first_event(),
            boot_id: self.journal.rebooted().then(|| self.config.boot_id.clone()),
        };
        let committed = self.store.commit(&changes);
        let wrote = !changes.is_empty();
        let events = changes.events;
        if wrote {
            self.note_commit(now, committed.as_ref().err());
        }
        self.shown.stale_jobs(pending.jobs.into_iter().chain(pending.progress));
        committed?;
        self.journal.committed();
        Ok(events)
    }

    /// Back to what the database holds, after a commit that failed. Actions that were under way
    /// before this step stay known, so that nothing is done to their instances meanwhile.
    fn reload_after_failed_commit(
        &mut self,
        error: &StoreError,
        output: StepOutput,
    ) -> Vec<Effect> {
        let refusal = Refusal::from(error);
        for effect in &output.effects {
            if let Effect::Apply(id, _) = effect {
                self.operations.cancel(*id);
            }
        }
        let mut loaded = match self.store.load() {
            Ok(loaded) => loaded,
            Err(error) => panic!("cannot read the database after a failed write: {error}"),
        };
        if self.journal.rebooted() {
            forget_times(&mut loaded);
        }
        for (id, instance) in &mut loaded.instances {
            let Some(held) = self.fleet.instance(id) else { continue };
            (instance.seen_at, instance.awaiting_first_report) =
                (held.seen_at, held.awaiting_first_report);
            (instance.silence, instance.unconfined) = (held.silence, held.unconfined);
            if let Creation::OutcomeUnknown(end) = &held.creation {
                let row = std::mem::take(&mut instance.creation);
                instance.creation = row.failed_with_unknown_outcome(end.clone());
            }
        }
        self.hold(loaded);
        // What was seen and not recorded has to be seen again.
        self.looked_at = None;
        self.resolving.clear();
        let mut effects: Vec<Effect> = output
            .replies
            .into_iter()
            .map(|reply| Effect::Reply(reply.refused(refusal.clone())))
            .collect();
        effects.push(Effect::WakeIn(Duration::from_secs(1)));
        effects
    }
}
