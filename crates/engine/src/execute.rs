//! Carries out a plan: records each step's intent, and makes the host's actions of it.

use crate::engine::Engine;
use crate::input::{ActionId, Effect, Now, StepOutput};
use hearth_host::HostError;
use hearth_model::{
    Action, Assignment, Create, Creation, Delivery, End, Exit, Generation, Identity, Instance,
    InstanceId, InstanceState, Job, JobId, Lifecycle, Machine, Mono, Outcome, Owner, Phase,
    PoolKey, Resolution, Slot, Spec,
};
use hearth_planner::{Step, Subject, Target, backoff};
use hearth_store::{EventKind, Past, Tombstone, caller_of_word};

/// How many ended instances of a job are remembered, for their logs.
pub(crate) const PAST_INSTANCES_MAX: usize = 5;

impl Engine {
    /// Carries out steps in their order. Returns whether the next plan has more to do at once.
    pub(crate) fn carry_out(
        &mut self,
        now: &Now,
        steps: Vec<Step>,
        output: &mut StepOutput,
    ) -> bool {
        let mut again = false;
        for step in steps {
            match step {
                Step::Claim { instance, job } => {
                    self.claim(now, &instance, &job);
                    again = true;
                }
                Step::Create(target) => self.create(now, target, output),
                Step::AssignIdentity { instance, release } => {
                    self.assign_identity(&instance, release, output)
                }
                Step::Stop { instance, reason, failed } => {
                    self.stop(now, &instance, reason, failed, output);
                }
                Step::Remove { instance } => self.act(output, Action::Remove { instance }),
                Step::Resolve { job } => self.resolve(&job, output),
                Step::TimeOut { job, timeout_s } => {
                    self.note_timeout(&job);
                    let reason = format!("timed out after {timeout_s} s");
                    self.over(&job, Outcome::Failed(reason));
                    again = true;
                }
                Step::Forget { job } => self.forget(now, &job, output),
            }
        }
        again
    }

    pub(crate) fn claim(&mut self, now: &Now, instance: &InstanceId, job: &JobId) {
        let Some(wanted) = self.fleet.job(job) else { return };
        let (run, spec) = (wanted.run, wanted.spec.clone());
        let claim = Assignment::Job { job: job.clone(), run, claimed_at: Some(now.mono) };
        let from = self.fleet.change_instance(instance, |claimed| {
            claimed.ready_since = None;
            // The same inside, and from now on this job's policy.
            claimed.spec = spec;
            std::mem::replace(&mut claimed.assignment, claim)
        });
        if let Some(Assignment::Pool(key)) = from {
            self.pools.remove(&key);
            self.claims.hit(key);
        }
        let message = format!("{} claimed from the pool", instance.vm_id());
        self.event(now, Some(job), Some(instance), Some(run), EventKind::Claimed, message);
    }

    fn create(&mut self, now: &Now, target: Target, output: &mut StepOutput) {
        let job = match &target {
            Target::Job(id) => self.fleet.job(id),
            Target::Pool(key) => self.fleet.job_of_pool(key),
        };
        let Some(job) = job.cloned() else { return };
        let wanted = matches!(target, Target::Job(_)).then(|| job.pool_key()).flatten();
        if let Some(key) = wanted.filter(|key| self.fleet.demand(key).1 > 0) {
            self.claims.miss(key);
        }
        let Resolution::Known { images, hash } = job.progress.resolution else { return };
        let (id, slot) = self.fresh();
        let (assignment, owner, stage) = match target {
            Target::Job(job_id) => (
                Assignment::Job { job: job_id, run: job.run, claimed_at: None },
                Owner::Job(identity(&job)),
                hearth_model::Stage::App,
            ),
            Target::Pool(key) => {
                let owner = Owner::Pool(key.tenant.clone());
                (Assignment::Pool(key), owner, job.spec.pool_stage())
            }
        };
        let instance = Instance {
            id: id.clone(),
            slot,
            assignment,
            hash,
            images,
            spec: job.spec.clone(),
            stage,
            created_at: now.mono,
            seen_at: None,
            awaiting_first_report: false,
            silence: 0,
            unconfined: false,
            running_since: None,
            ready_since: None,
            oom_kills: 0,
            oom_told_at: None,
            assign_failure: None,
            stopping: None,
            state: None,
            creation: Creation::Unconfirmed,
        };
        let message = format!("creating {}", instance.display_id());
        let serves = instance.job().cloned();
        self.fleet.insert_instance(instance);
        self.event(now, serves.as_ref(), Some(&id), Some(job.run), EventKind::Creating, message);
        let machine = Machine::boot(&job.spec, &images);
        let workload = Delivery::of(machine.guest(), stage, &owner);
        let spec = job.spec;
        let create = Create { instance: id, slot, spec, machine, hash, stage, owner, workload };
        self.act(output, Action::Create(Box::new(create)));
    }

    /// A suffix that no instance has whose logs may still be there, and the lowest free slot.
    fn fresh(&mut self) -> (InstanceId, Slot) {
        let id = loop {
            let id = self.random.instance();
            let known = self.fleet.instance(&id).is_some() || self.orphans.contains(&id);
            if !known && !self.past.contains(&id) {
                break id;
            }
        };
        (id, self.fleet.free_slot())
    }

    fn assign_identity(&mut self, instance: &InstanceId, release: bool, output: &mut StepOutput) {
        let Some(known) = self.fleet.instance(instance) else { return };
        let job = known.job().and_then(|job| self.fleet.job(job));
        let Some(identity) = job.map(identity) else { return };
        let (instance, spec) = (instance.clone(), known.spec.clone());
        self.act(output, Action::AssignIdentity { instance, spec, identity, release });
    }

    fn stop(
        &mut self,
        now: &Now,
        id: &InstanceId,
        reason: String,
        failed: bool,
        output: &mut StepOutput,
    ) {
        let Some(instance) = self.fleet.instance(id) else { return };
        let Spec { stop_signal: signal, stop_timeout_s, .. } = *instance.spec;
        // A VMM that does not answer passes nothing on to its guest.
        let timeout_s = if instance.is_silent() { 0 } else { stop_timeout_s };
        if instance.stopping.is_none() {
            let assignment = instance.assignment.clone();
            self.fleet.change_instance(id, |instance| instance.stopping = Some(reason.clone()));
            let (job, run) = serves(&assignment);
            let kind = EventKind::Stopping { reason: Some(reason.clone()) };
            self.event(now, job.as_ref(), Some(id), run, kind, format!("stopping: {reason}"));
            if failed {
                match assignment {
                    Assignment::Job { job, .. } => self.failed(now.mono, &job, reason),
                    Assignment::Pool(key) => self.pool_failed(now.mono, key, reason),
                }
            }
        }
        // What can't be identified is stopped once it can.
        if !self.unidentified.contains_key(id.as_str()) {
            self.act(output, Action::Stop { instance: id.clone(), signal, timeout_s });
        }
    }

    /// An instance of this job was not up or ready in its time.
    fn failed(&mut self, now: Mono, id: &JobId, reason: String) {
        let Some(job) = self.fleet.job(id) else { return };
        let failures = job.progress.failures.saturating_add(1);
        let over = job.spec.lifecycle == Lifecycle::Job && failures > job.spec.retries;
        self.fleet.change_progress(id, |progress| {
            progress.failures = failures;
            progress.not_before = Some(now.after(backoff(failures)));
            progress.last_failure = Some(reason.clone());
        });
        if over {
            self.over(id, Outcome::Failed(reason));
        }
    }

    pub(crate) fn over(&mut self, id: &JobId, outcome: Outcome) {
        self.fleet.change_progress(id, |progress| {
            if let Outcome::Failed(reason) = &outcome {
                progress.last_failure = Some(reason.clone());
            }
            progress.outcome = Some(outcome);
        });
    }

    pub(crate) fn pool_failed(&mut self, now: Mono, key: PoolKey, reason: String) {
        let health = self.pools.entry(key).or_default();
        health.failures = health.failures.saturating_add(1);
        health.not_before = now.after(backoff(health.failures));
        health.reason = reason;
    }

    fn resolve(&mut self, id: &JobId, output: &mut StepOutput) {
        let Some(job) = self.fleet.job(id) else { return };
        if self.resolving.insert(id.clone()) {
            output.effects.push(Effect::Resolve(id.clone(), job.run, job.spec.clone()));
        }
    }

    /// The images of a job were looked up again.
    pub(crate) fn resolved(
        &mut self,
        now: &Now,
        id: &JobId,
        run: Generation,
        resolution: Resolution,
    ) {
        self.resolving.remove(id);
        // It may have another spec, whose images are looked up next.
        self.fleet.replan(Subject::Job(id.clone()));
        // Two look-ups of one run can be under way, the older from before a commit that failed: what the
        // second of them says must not forgive the failures of what the first has started.
        let is_answered = |job: &Job| matches!(job.progress.resolution, Resolution::Known { .. });
        if self.fleet.job(id).is_none_or(|job| job.run != run || is_answered(job)) {
            return;
        }
        let is_preparing = |resolution: &Resolution| matches!(resolution, Resolution::Preparing(_));
        let prepares = self.fleet.job(id).is_some_and(|job| is_preparing(&job.progress.resolution));
        if prepares && is_preparing(&resolution) {
            self.fleet.observe_progress(id, |progress| progress.resolution = resolution);
            return;
        }
        self.fleet.change_progress(id, |progress| {
            match &resolution {
                Resolution::Preparing(_) => {}
                Resolution::Failed(_) => {
                    progress.failures = progress.failures.saturating_add(1);
                    // The first look was the POST's own; from then on the back-off runs.
                    let pause = backoff(progress.failures.saturating_add(1));
                    progress.not_before = Some(now.mono.after(pause));
                }
                Resolution::Known { .. } => {
                    progress.failures = 0;
                    progress.not_before = None;
                }
            }
            progress.resolution = resolution;
        });
    }

    /// A job of which nothing is left: its row becomes a tombstone, its logs go.
    pub(crate) fn forget(&mut self, now: &Now, id: &JobId, output: &mut StepOutput) {
        let Some(job) = self.fleet.remove_job(id) else { return };
        let notes = self.notes.remove(id).unwrap_or_default();
        for (past, removed_at) in notes.past() {
            self.oldest.logs.remove(&(removed_at, past.clone(), id.clone()));
            self.drop_logs(past, output);
        }
        if let Some(at) = notes.finished_at() {
            self.oldest.finished.remove(&(at, id.clone()));
        }
        let tombstone = Tombstone { generation: job.generation, event: self.journal.next_event() };
        if let Some(old) = self.tombstones.insert(id.clone(), tombstone) {
            self.oldest.tombstones.remove(&(old.event, id.clone()));
        }
        self.oldest.tombstones.insert((tombstone.event, id.clone()));
        self.journal.note_tombstone(id);
        // `None` if an older version accepted the deletion.
        let caller = notes.deleted_by.as_deref().map(caller_of_word);
        let generation = Some(job.generation);
        self.event_by(now, caller, Some(id), generation, EventKind::Deleted, "deleted");
    }

    /// The host has answered an action.
    pub(crate) fn done(
        &mut self,
        now: &Now,
        id: ActionId,
        result: Result<(), HostError>,
        output: &mut StepOutput,
    ) {
        let Some(action) = self.operations.finish(id, now.mono) else { return };
        self.fleet.replan_instance(action.instance());
        match result {
            Ok(()) => self.succeeded(now.mono, action, output),
            Err(error) => self.action_failed(now, &action, &error),
        }
    }

    fn succeeded(&mut self, now: Mono, action: Action, output: &mut StepOutput) {
        let id = action.instance();
        match action {
            Action::Create(_) => {
                self.fleet.change_instance(id, |made| made.creation = Creation::Confirmed);
            }
            Action::Remove { instance } => self.removed(now, &instance, output),
            Action::DropLogs { instance } => {
                self.log_drops.remove(&instance);
                self.journal.note_log_drop(&instance);
            }
            Action::AssignIdentity { .. } | Action::Stop { .. } => {
                if let Action::AssignIdentity { .. } = action {
                    self.fleet.observe_instance(id, |instance| instance.assign_failure = None);
                }
                if self.fleet.instance(id).is_some_and(|instance| !shows(instance, &action)) {
                    self.operations.await_confirmation(id, now);
                }
            }
        }
    }

    fn action_failed(&mut self, now: &Now, action: &Action, error: &HostError) {
        let id = action.instance();
        let assignment = self.fleet.instance(id).map(|known| known.assignment.clone());
        if !matches!(action, Action::Create(_)) && assignment.is_some() {
            self.operations.cool_down(id, now.mono);
        }
        let sentence = error.sentence();
        if let Action::AssignIdentity { .. } = action {
            let failure = Some(sentence.clone());
            self.fleet.observe_instance(id, |instance| instance.assign_failure = failure);
        }
        let (job, run) = assignment.as_ref().map_or((None, None), serves);
        let message = format!("cannot {}: {sentence}", action.name());
        self.event(now, job.as_ref(), Some(id), run, EventKind::Error, message);
        if let Action::Create(_) = action {
            let transient = error.is_transient();
            let end = if transient { End::NotCreated(sentence) } else { End::Vmm(sentence) };
            if error.has_unknown_outcome() {
                self.fleet.observe_instance(id, |instance| {
                    let creation = std::mem::take(&mut instance.creation);
                    instance.creation = creation.failed_with_unknown_outcome(end);
                });
                return;
            }
            let exit = Exit { end, stop_requested: false };
            self.see(now, id, InstanceState::Exited(exit));
        }
    }

    /// What an instance left is gone; its logs stay while its job remembers it.
    fn removed(&mut self, now: Mono, id: &InstanceId, output: &mut StepOutput) {
        let Some(instance) = self.fleet.remove_instance(id) else { return };
        let job = instance.job().filter(|job| self.fleet.job(job).is_some()).cloned();
        let Some(job) = job else { return self.drop_logs(id.clone(), output) };
        let past = Past { instance: id.to_string(), removed_at_ms: now.as_millis() };
        let removed_at = Mono::from_millis(past.removed_at_ms);
        self.oldest.logs.insert((removed_at, id.clone(), job.clone()));
        self.past.insert(id.clone());
        let notes = self.notes.entry(job.clone()).or_default();
        notes.past.push(past);
        let surplus = notes.past().count().saturating_sub(PAST_INSTANCES_MAX);
        let dropped: Vec<_> = notes.past().take(surplus).collect();
        notes.past.drain(..surplus);
        self.journal.note_progress(&job);
        for (instance, removed_at) in dropped {
            self.oldest.logs.remove(&(removed_at, instance.clone(), job.clone()));
            self.drop_logs(instance, output);
        }
    }
}

/// Whether the state of an instance shows the effect of an action.
fn shows(instance: &Instance, action: &Action) -> bool {
    match (action, &instance.state) {
        (
            Action::AssignIdentity { identity, release, .. },
            Some(InstanceState::Up { phase, acknowledged, .. }),
        ) => *acknowledged >= Some(identity.generation) && !(*release && *phase == Phase::Held),
        _ => instance.exit().is_some(),
    }
}

fn identity(job: &Job) -> Identity {
    Identity { job_id: job.id.clone(), tenant: job.tenant.clone(), generation: job.run }
}

pub(crate) fn serves(assignment: &Assignment) -> (Option<JobId>, Option<Generation>) {
    match assignment {
        Assignment::Job { job, run, .. } => (Some(job.clone()), Some(*run)),
        Assignment::Pool(_) => (None, None),
    }
}
