//! Requests. Each is checked whole before it changes anything.

use crate::ask::{
    Call, Changed, Delete, Deleted, Incident, JobChange, Request, Restart, Start, Stop, Upsert,
};
use crate::engine::Engine;
use crate::execute::serves;
use crate::input::{Now, StepOutput};
use crate::reply::{Refusal, Reply};
use crate::view::JobView;
use hearth_model::hash::same_inside;
use hearth_model::{
    Caller, InstanceId, Job, JobId, Lifecycle, Outcome, Progress, Resolution, Spec, Tenant, Wanted,
};
use hearth_planner::{Scope, Status, Step, plan};
use hearth_store::{Accepted, EventKind, JobNotes, caller_word};
use std::sync::Arc;

/// A change of a job that was decided and not made yet.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The job as it will be.
    pub(crate) job: Job,
    pub(crate) kind: ChangeKind,
}

/// How far a change reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// The job is new.
    Create,
    /// It is replaced by a new generation.
    Replace,
    /// Its instance stays.
    Policy,
}

impl Engine {
    /// Carries a request out.
    pub(crate) fn request(
        &mut self,
        now: &Now,
        call: Call,
        alive: &dyn Fn(&InstanceId) -> bool,
        output: &mut StepOutput,
    ) -> Reply {
        let Call { caller, preconditions, request } = call;
        let request = match self.check_preconditions(now, &preconditions, request) {
            Ok(request) => request,
            Err(reply) => return reply,
        };
        match request {
            Request::Change(change, to) => {
                let changed = self.change(now, caller, change, alive);
                if let (Some(repeat), Ok(changed)) = (preconditions.repeat, &changed) {
                    self.note_repeat(now.mono, repeat, changed);
                }
                to.with(changed)
            }
            Request::Delete(Delete { job }, to) => to.with(self.delete(now, caller, &job, output)),
            Request::Apply(load, to) => to.with(Ok(self.apply_file(now, caller, &load, output))),
            Request::Record(Incident { job, message }, to) => {
                self.event_by(now, caller, job.as_ref(), None, EventKind::Error, message);
                to.with(Ok(()))
            }
            Request::Read(read) => self.read(read),
        }
    }

    fn change(
        &mut self,
        now: &Now,
        caller: Caller,
        change: JobChange,
        alive: &dyn Fn(&InstanceId) -> bool,
    ) -> Result<Changed, Refusal> {
        match change {
            JobChange::Upsert(upsert) => self.upsert(now, caller, upsert, alive),
            JobChange::Stop(Stop { job }) => {
                self.want(now, caller, &job, Wanted::Stopped)?;
                self.wanted(now, &job)
            }
            JobChange::Start(Start { job }) => {
                self.want(now, caller, &job, Wanted::Running)?;
                self.claim_now(now, &job, alive);
                self.wanted(now, &job)
            }
            JobChange::Restart(restart) => {
                let job = restart.job.clone();
                self.restart(now, caller, restart)?;
                self.claim_now(now, &job, alive);
                self.changed(now, &job, Accepted::Pending)
            }
        }
    }

    fn changed(&self, now: &Now, id: &JobId, accepted: Accepted) -> Result<Changed, Refusal> {
        Ok(Changed { accepted, job: self.shown(now, id)?, repeated: false })
    }

    /// How far a stop or a start has come within its request.
    fn wanted(&self, now: &Now, id: &JobId) -> Result<Changed, Refusal> {
        let job = self.shown(now, id)?;
        let settled = match job.status {
            Status::Running | Status::Stopped | Status::Completed | Status::Failed => true,
            Status::Pending | Status::Starting | Status::Stopping => false,
        };
        let accepted = if settled { Accepted::Done } else { Accepted::Pending };
        Ok(Changed { accepted, job, repeated: false })
    }

    fn shown(&self, now: &Now, id: &JobId) -> Result<JobView, Refusal> {
        self.view_of(now, id).ok_or_else(|| Refusal::NotFound(id.clone()))
    }

    /// Creates a job or replaces its spec.
    fn upsert(
        &mut self,
        now: &Now,
        caller: Caller,
        upsert: Upsert,
        alive: &dyn Fn(&InstanceId) -> bool,
    ) -> Result<Changed, Refusal> {
        let Upsert { job, tenant, spec, resolution } = upsert;
        let id = job.unwrap_or_else(|| self.fresh_job());
        let decided = self.decide(&id, tenant.as_ref(), &spec, &resolution)?;
        // Whether it wants a new instance.
        let renewed = decided.as_ref().is_some_and(|change| change.kind != ChangeKind::Policy);
        if let Some(change) = decided {
            self.accept(now, caller, change);
        }
        let claimed = if renewed { self.claim_now(now, &id, alive) } else { None };
        let mut job = self.shown(now, &id)?;
        let accepted = match job.status {
            _ if claimed.is_some() => Accepted::Claimed,
            Status::Running if !renewed => Accepted::Done,
            _ => Accepted::Pending,
        };
        if claimed.is_some() {
            // While it is brought up its predecessor may still be what serves.
            job.instance = claimed;
        }
        Ok(Changed { accepted, job, repeated: false })
    }

    /// What it takes that a job is so; `None` where it is. Changes nothing.
    pub(crate) fn decide(
        &self,
        id: &JobId,
        tenant: Option<&Tenant>,
        spec: &Arc<Spec>,
        resolution: &Resolution,
    ) -> Result<Option<Change>, Refusal> {
        let Some(job) = self.fleet.job(id) else {
            let job = self.made(id, tenant, spec, resolution);
            return Ok(Some(Change { job, kind: ChangeKind::Create }));
        };
        if tenant.is_some_and(|tenant| *tenant != job.tenant) {
            return Err(Refusal::OtherTenant(id.clone()));
        }
        let idle = job.wanted != Wanted::Running || job.progress.outcome.is_some();
        let inside = match (resolution, job.hash()) {
            (Resolution::Known { hash, .. }, Some(known)) => *hash == known,
            // Its own look-ups say what becomes of it.
            (_, None) if matches!(job.progress.resolution, Resolution::Preparing(_)) => {
                same_inside(spec, &job.spec)
            }
            (Resolution::Failed(_), None) => same_inside(spec, &job.spec),
            _ => false,
        };
        if inside && !idle && *spec == job.spec {
            return Ok(None);
        }
        let mut after =
            Job { generation: job.generation.next(), spec: spec.clone(), ..job.clone() };
        if inside && !idle {
            return Ok(Some(Change { job: after, kind: ChangeKind::Policy }));
        }
        renew(&mut after, resolution.clone());
        Ok(Some(Change { job: after, kind: ChangeKind::Replace }))
    }

    fn made(
        &self,
        id: &JobId,
        tenant: Option<&Tenant>,
        spec: &Arc<Spec>,
        resolution: &Resolution,
    ) -> Job {
        let own = || Tenant::parse(id.as_str()).expect("job ids and tenants have one grammar");
        let hash = match resolution {
            Resolution::Known { hash, .. } => Some(*hash),
            Resolution::Preparing(_) | Resolution::Failed(_) => None,
        };
        let tenant_given = tenant.is_some();
        let tenant = tenant.cloned().unwrap_or_else(own);
        let generation = self.first_generation(id, &tenant, hash);
        Job {
            id: id.clone(),
            tenant_given,
            tenant,
            generation,
            run: generation,
            spec: spec.clone(),
            wanted: Wanted::Running,
            progress: Progress::begun(resolution.clone()),
        }
    }

    /// Makes a decided change, on the state that it was decided for.
    pub(crate) fn accept(&mut self, now: &Now, caller: Caller, change: Change) {
        let Change { job: after, kind } = change;
        let (id, generation) = (after.id.clone(), after.generation);
        let before = self.fleet.job(&id).map(|job| job.spec.retries);
        if kind == ChangeKind::Replace {
            // They are of the generation before.
            self.agenda.forget(&id);
            let notes = self.notes.entry(id.clone()).or_default();
            (notes.exit_code, notes.exit, notes.deleted_by) = (None, None, None);
            self.journal.note_progress(&id);
        }
        if self.fleet.change_job(&id, |job| *job = after.clone()).is_none() {
            self.fleet.insert_job(after);
            self.notes.insert(id.clone(), JobNotes::default());
        }
        let what = match kind {
            ChangeKind::Create | ChangeKind::Replace => "accepted",
            ChangeKind::Policy => "policy accepted",
        };
        if kind == ChangeKind::Policy {
            self.apply_policy(&id);
        }
        let message = format!("generation {generation} {what}");
        let generation = Some(generation);
        self.event_by(now, caller, Some(&id), generation, EventKind::Accepted, message);
        if let Some(before) = before {
            self.tried_enough(&id, before);
        }
    }

    /// Gives the instances of a job's current run its policy: it is in force when they stop.
    fn apply_policy(&mut self, id: &JobId) {
        let Some(job) = self.fleet.job(id) else { return };
        let (run, spec) = (job.run, job.spec.clone());
        let current: Vec<InstanceId> = self
            .fleet
            .of_job(id)
            .filter(|instance| {
                instance.exit().is_none() && serves(&instance.assignment).1 == Some(run)
            })
            .map(|instance| instance.id.clone())
            .collect();
        for instance in current {
            self.fleet.change_instance(&instance, |instance| instance.spec = spec.clone());
        }
    }

    /// A `job` that waits for a try which its policy, as it is now, no longer allows is over.
    fn tried_enough(&mut self, id: &JobId, retries_before: u32) {
        let Some(job) = self.fleet.job(id).filter(|job| job.progress.outcome.is_none()) else {
            return;
        };
        let tries = job.spec.retries + 1..=retries_before;
        let tried = job.spec.lifecycle == Lifecycle::Job && tries.contains(&job.progress.failures);
        if tried && self.fleet.of_job(id).all(|instance| instance.exit().is_some()) {
            let reason = job.progress.last_failure.clone().unwrap_or_default();
            self.over(id, Outcome::Failed(reason));
        }
    }

    fn fresh_job(&mut self) -> JobId {
        loop {
            let id = JobId::parse(&format!(
                "job-{}",
                self.random.name_in_order(self.journal.next_event())
            ))
            .expect("the alphabet is that of job ids");
            if self.fleet.job(&id).is_none() && !self.tombstones.contains_key(&id) {
                return id;
            }
        }
    }

    /// Claims a warm instance within the request, where there is one that lives.
    fn claim_now(
        &mut self,
        now: &Now,
        id: &JobId,
        alive: &dyn Fn(&InstanceId) -> bool,
    ) -> Option<InstanceId> {
        if !self.observation_is_fresh(now.mono) {
            return None;
        }
        self.adopt_orphans(now);
        loop {
            let plan = plan(&self.world(now.mono), Scope::Job(id));
            let claim = plan.steps.into_iter().find_map(|step| match step {
                Step::Claim { instance, .. } => Some(instance),
                _ => None,
            });
            let warm = claim?;
            if alive(&warm) {
                self.claim(now, &warm, id);
                return Some(warm);
            }
            let reason = "it died before it was claimed".to_owned();
            self.fleet.change_instance(&warm, |dead| dead.stopping = Some(reason));
        }
    }

    fn delete(
        &mut self,
        now: &Now,
        caller: Caller,
        id: &JobId,
        output: &mut StepOutput,
    ) -> Result<Deleted, Refusal> {
        let Some(job) = self.fleet.job(id) else {
            return match self.tombstones.get(id) {
                Some(_) => Ok(Deleted { gone: true }),
                None => Err(Refusal::NotFound(id.clone())),
            };
        };
        if job.wanted != Wanted::Deleted {
            self.mark_for_deletion(now, caller, id, "delete accepted");
        }
        let gone = self.observation_is_fresh(now.mono) && self.fleet.of_job(id).next().is_none();
        if gone {
            self.forget(now, id, output);
        }
        Ok(Deleted { gone })
    }

    /// Marks a job for deletion, as a new generation; the plan does the rest.
    pub(crate) fn mark_for_deletion(
        &mut self,
        now: &Now,
        caller: Caller,
        id: &JobId,
        message: impl Into<String>,
    ) {
        let generation = self.fleet.change_job(id, |job| {
            job.wanted = Wanted::Deleted;
            job.generation = job.generation.next();
            job.generation
        });
        if let Some(notes) = self.notes.get_mut(id) {
            notes.deleted_by = Some(caller_word(caller));
            self.journal.note_progress(id);
        }
        self.event_by(now, caller, Some(id), generation, EventKind::Accepted, message);
    }

    fn want(
        &mut self,
        now: &Now,
        caller: Caller,
        id: &JobId,
        wanted: Wanted,
    ) -> Result<(), Refusal> {
        let not_found = || Refusal::NotFound(id.clone());
        let job = self.fleet.job(id).ok_or_else(not_found)?;
        if job.wanted == Wanted::Deleted {
            return Err(not_found());
        }
        let over = job.progress.outcome.is_some();
        if job.wanted == wanted && !(over && wanted == Wanted::Running) {
            return Ok(());
        }
        if over && wanted == Wanted::Stopped {
            return Ok(());
        }
        let generation = self.fleet.change_job(id, |job| {
            job.generation = job.generation.next();
            job.wanted = wanted;
            if wanted == Wanted::Running {
                renew(job, job.progress.resolution.clone());
            }
            job.generation
        });
        let message = match wanted {
            Wanted::Running => "start accepted",
            _ => "stop accepted",
        };
        self.event_by(now, caller, Some(id), generation, EventKind::Accepted, message);
        Ok(())
    }

    /// Wants a new instance for a job, whatever it does now.
    fn restart(&mut self, now: &Now, caller: Caller, restart: Restart) -> Result<(), Refusal> {
        let Restart { job: id, spec, resolution } = restart;
        if self.fleet.job(&id).is_none_or(|job| job.wanted == Wanted::Deleted) {
            return Err(Refusal::NotFound(id));
        }
        let generation = self.fleet.change_job(&id, |job| {
            job.generation = job.generation.next();
            let same_spec = job.spec == spec;
            renew(job, if same_spec { resolution } else { job.progress.resolution.clone() });
            job.generation
        });
        let message = "restart accepted";
        self.event_by(now, caller, Some(&id), generation, EventKind::Accepted, message);
        Ok(())
    }
}

/// From now on the job's current generation wants an instance of its own, of these images.
fn renew(job: &mut Job, resolution: Resolution) {
    job.run = job.generation;
    job.wanted = Wanted::Running;
    job.progress = Progress::begun(resolution);
}
