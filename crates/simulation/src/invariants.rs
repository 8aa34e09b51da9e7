//! What must hold in every run, whatever happens. Each is asserted after every step.

use crate::edges::Known;
use hearth_engine::{Engine, Event, EventKind};
use hearth_host::sim::SimState;
use hearth_model::{
    Action, Assignment, Create, Generation, Instance, InstanceId, InstanceState, Job, JobId,
    Lifecycle, Mono, Owner, Phase, PoolKey, PoolTenant, Resolution, Spec, StoredImage, Tenant,
    Wanted, hash,
};
use hearth_planner::{Capacity, Need, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a user was told of a generation of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) generation: Generation,
    pub(crate) wanted: Wanted,
    pub(crate) spec: Arc<Spec>,
}

/// How far a job has come, over all its lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) generation: Generation,
    pub(crate) run: Generation,
    /// Whether it is gone, its name kept with its last generation.
    pub(crate) gone: bool,
}

/// Everything that is remembered in order to see that nothing is lost, done twice or crossed.
#[derive(Debug)]
pub(crate) struct Invariants {
    pub(crate) capacity: Capacity,
    /// The last change of each job that was acknowledged, while the job is there.
    pub(crate) told: BTreeMap<JobId, Told>,
    /// All jobs that ever were.
    pub(crate) lives: BTreeMap<JobId, Life>,
    /// The job that was made or changed under a key.
    pub(crate) keys: BTreeMap<String, JobId>,
    /// The generation whose outcome a job has.
    outcomes: BTreeMap<JobId, Generation>,
    /// The newest event.
    last_event: u64,
    /// The instances that the database names.
    known: BTreeMap<InstanceId, Known>,
    /// Instances that the database no longer names.
    gone: BTreeSet<InstanceId>,
    /// Instances that the last step marked for deletion.
    marked: BTreeSet<InstanceId>,
    /// The revision of the host as it was last judged.
    host_revision: u64,
    /// The generation in the guest's identity file.
    acknowledged: BTreeMap<InstanceId, Generation>,
    /// Instances whose creation the database knows to be done.
    pub(crate) created: BTreeSet<InstanceId>,
    /// Instances whose command has begun.
    begun: BTreeSet<InstanceId>,
    /// How often the command of a generation of a `job` has begun.
    runs: BTreeMap<(JobId, Tenant, Generation), u32>,
    /// The most retries that a generation ever had.
    retries: BTreeMap<(JobId, Tenant, Generation), u32>,
}

impl Invariants {
    pub(crate) fn new(capacity: Capacity) -> Invariants {
        Invariants {
            capacity,
            told: BTreeMap::new(),
            lives: BTreeMap::new(),
            keys: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            last_event: 0,
            known: BTreeMap::new(),
            gone: BTreeSet::new(),
            marked: BTreeSet::new(),
            host_revision: 0,
            acknowledged: BTreeMap::new(),
            created: BTreeSet::new(),
            begun: BTreeSet::new(),
            runs: BTreeMap::new(),
            retries: BTreeMap::new(),
        }
    }

    /// The database is lost, and with it all that clients were told. What the host has stays.
    pub(crate) fn lose(&mut self) {
        self.told.clear();
        self.lives.clear();
        self.keys.clear();
        self.outcomes.clear();
        self.last_event = 0;
        self.known.clear();
        self.created.clear();
        self.runs.clear();
        self.retries.clear();
    }

    /// After the start of a daemon.
    pub(crate) fn started(&mut self, engine: &Engine) -> Result<(), String> {
        self.forget_sights();
        self.acknowledged_is_there(engine)?;
        self.generations_rise(engine)?;
        self.instances(engine)
    }

    /// The engine holds what the database holds, and no longer what was seen of instances.
    pub(crate) fn forget_sights(&mut self) {
        self.known.values_mut().for_each(Known::forget);
    }

    /// An event is on disk, whether it is read or not.
    pub(crate) fn event(&mut self, event: &Event) -> Result<(), String> {
        let last = std::mem::replace(&mut self.last_event, event.id);
        if event.id <= last {
            return Err(format!("event {} comes behind event {last}: {event:?}", event.id));
        }
        let asked_for =
            [EventKind::Accepted, EventKind::Deleted, EventKind::Loaded].contains(&event.kind);
        if event.caller.is_some() != asked_for {
            return Err(format!("a change has a caller, and nothing else has: {event:?}"));
        }
        Ok(())
    }

    /// After a step's commit.
    pub(crate) fn step(&mut self, engine: &Engine, machine: &SimState) -> Result<(), String> {
        self.acknowledged_is_there(engine)?;
        self.generations_rise(engine)?;
        self.outcomes_are_of_their_runs(engine)?;
        self.instances(engine)?;
        let used = engine.fleet().used(&self.capacity).plus(self.orphans_take(engine, machine));
        if !used.fits(self.capacity.total()) {
            return Err(format!("more is reserved than there is: {used:?}"));
        }
        tenants_keep_what_they_have(engine, machine)?;
        generations_have_one_spec(engine, machine)
    }

    /// What a look has shown to be up is known to have come about: it never counts as not started.
    pub(crate) fn seen(engine: &Engine, up: &[InstanceId]) -> Result<(), String> {
        let unknown =
            |id: &&InstanceId| engine.fleet().instance(id).is_some() && !engine.saw_created(id);
        up.iter().find(unknown).map_or(Ok(()), |id| {
            Err(format!("{id} was seen to be up, and the database does not say so"))
        })
    }

    /// An outcome is of the generation that ran, and not of the next.
    fn outcomes_are_of_their_runs(&mut self, engine: &Engine) -> Result<(), String> {
        // One that was deleted may be there again, made by the same step.
        let is_over =
            |id: &JobId, of: Generation| engine.tombstone(id).is_some_and(|last| last >= of);
        self.outcomes.retain(|id, of| engine.fleet().job(id).is_some() && !is_over(id, *of));
        for job in engine.fleet().jobs().values() {
            if job.progress.outcome.is_none() {
                if self.outcomes.remove(&job.id) == Some(job.run) {
                    return Err(format!("generation {} of {} was over", job.run, job.id));
                }
                continue;
            }
            let of = *self.outcomes.entry(job.id.clone()).or_insert(job.run);
            if of != job.run {
                return Err(format!(
                    "generation {} of {} has the outcome of {of}",
                    job.run, job.id
                ));
            }
        }
        Ok(())
    }

    /// What runs and is not in the database takes its share.
    fn orphans_take(&self, engine: &Engine, machine: &SimState) -> Need {
        let orphans = machine.instances().filter(|(create, state)| {
            !state.is_exited() && engine.fleet().instance(&create.instance).is_none()
        });
        let needs = orphans.map(|(create, _)| self.capacity.need(&create.spec));
        needs.fold(Need::default(), Need::plus)
    }

    /// An acknowledged change is there, or a later one is. What becomes of a job that is gone is
    /// [`Self::generations_rise`]'s.
    fn acknowledged_is_there(&mut self, engine: &Engine) -> Result<(), String> {
        let mut gone = Vec::new();
        for (id, told) in &self.told {
            let Some(job) = engine.fleet().job(id) else {
                let last = engine.tombstone(id);
                let deleted = told.wanted == Wanted::Deleted && last >= Some(told.generation);
                if deleted || last > Some(told.generation) {
                    gone.push(id.clone());
                    continue;
                }
                return Err(format!("{id} is gone, whose user was told {told:?}"));
            };
            let same = job.wanted == told.wanted && job.spec == told.spec;
            if job.generation < told.generation || (job.generation == told.generation && !same) {
                return Err(format!("a user was told {told:?}, and there is {job:?}"));
            }
        }
        gone.iter().for_each(|id| drop(self.told.remove(id)));
        Ok(())
    }

    /// No generation of a job falls, nor the one that it runs, whether it is deleted in between or not.
    /// What is gone left its last generation behind, and comes back as a later one.
    fn generations_rise(&mut self, engine: &Engine) -> Result<(), String> {
        for job in engine.fleet().jobs().values() {
            let Job { id, generation, run, .. } = job;
            let new = Life { generation: *generation, run: *run, gone: false };
            let known = self.lives.get_mut(id).map(|life| std::mem::replace(life, new));
            let last = known.unwrap_or_else(|| *self.lives.entry(id.clone()).or_insert(new));
            if *generation < last.generation || *run < last.run || run > generation {
                return Err(format!("generation {generation} of {id} runs {run} behind {last:?}"));
            }
            if last.gone && *generation == last.generation {
                return Err(format!("{id} is back, which was deleted as generation {generation}"));
            }
            if known.is_none() || *generation > last.generation {
                let run = (id.clone(), job.tenant.clone(), *run);
                let retries = self.retries.entry(run).or_default();
                *retries = (*retries).max(job.spec.retries);
            }
        }
        if engine.fleet().jobs().len() < self.lives.len() {
            let gone = |(id, _): &(&JobId, &mut Life)| engine.fleet().job(id).is_none();
            for (id, life) in self.lives.iter_mut().filter(gone) {
                match engine.tombstone(id) {
                    Some(last) if last >= life.generation => {
                        (life.generation, life.gone) = (last, true);
                    }
                    last => {
                        return Err(format!("{id} is gone, which was {life:?}, and left {last:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Instances take legal edges only, a claimed one is of the tenant's own pool, no name is used twice.
    fn instances(&mut self, engine: &Engine) -> Result<(), String> {
        self.marked.clear();
        let mut slots = BTreeSet::new();
        for instance in engine.fleet().instances().values() {
            let id = &instance.id;
            if !slots.insert(instance.slot) {
                return Err(format!("{id} has a slot with another"));
            }
            if engine.saw_created(id) {
                self.created.insert(id.clone());
            }
            if self.gone.contains(id) {
                return Err(format!("the name {id} is used again"));
            }
            let Some(known) = self.known.get_mut(id) else {
                let known = Known::of(engine, instance);
                if known.stopping {
                    self.marked.insert(id.clone());
                }
                self.known.insert(id.clone(), known);
                continue;
            };
            if instance.stopping.is_some() && !known.stopping {
                self.marked.insert(id.clone());
            }
            if let (Assignment::Pool(key), Some(job)) = (&known.assignment, instance.job()) {
                claimed_by_its_own(engine, id, key, job)?;
            }
            known.advance(engine, instance)?;
        }
        let named = engine.fleet().instances();
        for (id, known) in self.known.extract_if(.., |id, _| !named.contains_key(id)) {
            if !known.may_go() {
                return Err(format!("{id} is forgotten, which was {known:?}"));
            }
            self.gone.insert(id);
        }
        Ok(())
    }

    /// What the host does, for any reason: no guest is given a second workload, and the command of a `job`
    /// begins once a generation, and once more for each retry.
    pub(crate) fn host(&mut self, machine: &SimState) -> Result<(), String> {
        if let Some(refusal) = machine.workload_refusal() {
            return Err(refusal.to_owned());
        }
        if std::mem::replace(&mut self.host_revision, machine.revision()) == machine.revision() {
            return Ok(());
        }
        for (create, state) in machine.instances() {
            let InstanceState::Up { phase, acknowledged: Some(acknowledged), .. } = state else {
                continue;
            };
            let last = self.acknowledged.get(&create.instance);
            if last != Some(acknowledged) {
                if last > Some(acknowledged) {
                    return Err(format!(
                        "{} was told {acknowledged} behind {last:?}",
                        create.instance
                    ));
                }
                self.acknowledged.insert(create.instance.clone(), *acknowledged);
            }
            if *phase != Phase::Running {
                continue;
            }
            if let Some(of) = machine.delivered(&create.instance).filter(|of| of != acknowledged) {
                return Err(format!(
                    "{} runs the workload of {of} as {acknowledged}",
                    create.instance
                ));
            }
            if create.spec.lifecycle != Lifecycle::Job || self.begun.contains(&create.instance) {
                continue;
            }
            self.begun.insert(create.instance.clone());
            let Some(identity) = create.owner.identity() else {
                return Err(format!("{} runs its command without an identity", create.instance));
            };
            let run = (identity.job_id.clone(), identity.tenant.clone(), *acknowledged);
            let retries = self.retries.get(&run).copied().unwrap_or_default();
            let runs = self.runs.entry(run).or_default();
            *runs += 1;
            if *runs > 1 + retries {
                return Err(format!(
                    "{} ran {runs} times as generation {acknowledged}",
                    identity.job_id
                ));
            }
        }
        Ok(())
    }

    /// The database names what an action is about, and nothing that serves is stopped, whether it has
    /// reported that to this daemon or not.
    pub(crate) fn action(
        &self,
        engine: &Engine,
        action: &Action,
        truly_serves: impl Fn(&Instance, Generation) -> bool,
    ) -> Result<(), String> {
        let id = action.instance();
        if matches!(action, Action::DropLogs { .. }) {
            return Ok(());
        }
        let Some(instance) = engine.fleet().instance(id) else {
            return Err(format!("{action:?} is about an instance that the database does not name"));
        };
        match action {
            Action::Stop { .. } if instance.stopping.is_none() => {
                return Err(format!("{id} is stopped, and the database does not say so"));
            }
            Action::Stop { .. } => {
                let Assignment::Job { job, .. } = &instance.assignment else { return Ok(()) };
                let Some(job) = engine.fleet().job(job) else { return Ok(()) };
                // What a service had before serves until there is more.
                let serves = |one: &Instance| match &one.assignment {
                    Assignment::Job { run, .. } if job.spec.lifecycle == Lifecycle::Service => {
                        truly_serves(one, *run)
                    }
                    _ => truly_serves(one, job.run),
                };
                let is_needed = self.marked.contains(id)
                    && serves(instance)
                    && job.wanted == Wanted::Running
                    && job.progress.outcome.is_none();
                let mut others = engine.fleet().of_job(&job.id);
                if is_needed && !others.any(|other| other.stopping.is_none() && serves(other)) {
                    return Err(format!("{id} is stopped while it serves {}", job.id));
                }
            }
            Action::AssignIdentity { identity, .. }
                if !serves(instance, &identity.job_id, identity.generation) =>
            {
                return Err(format!("{id} is to be told {identity:?}, and is {instance:?}"));
            }
            Action::AssignIdentity { spec, .. } if !hash::same_inside(spec, &instance.spec) => {
                return Err(format!("{id} is to get a workload that is not its own"));
            }
            Action::Remove { .. } if instance.exit().is_none() => {
                return Err(format!("{id} is removed while it may run"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Copies of images were removed: none that a job, an instance of the database or one of the host has.
    /// Of the others that were listed none is left, unless a job waits for its images.
    pub(crate) fn pruned(
        engine: &Engine,
        listed: &[StoredImage],
        removed: &[String],
    ) -> Result<(), String> {
        let jobs = engine.fleet().jobs().values();
        let mut used = BTreeMap::new();
        for job in jobs.clone() {
            if let Resolution::Known { images, .. } = &job.progress.resolution {
                used.extend(
                    images.digests().map(|digest| (digest.to_string(), job.id.to_string())),
                );
            }
        }
        for one in engine.fleet().instances().values() {
            used.extend(
                one.images.digests().map(|digest| (digest.to_string(), one.id.to_string())),
            );
        }
        if let Some(name) = removed.iter().find(|name| used.contains_key(*name)) {
            return Err(format!("the copy {name} was removed, which {} has", used[name]));
        }
        let awaited = |job: &Job| matches!(job.progress.resolution, Resolution::Preparing(_));
        let stays = |one: &&StoredImage| {
            one.linked || used.contains_key(&one.name) || removed.contains(&one.name)
        };
        let left = listed.iter().find(|one| !stays(one));
        match left {
            Some(left) if !jobs.clone().any(awaited) => {
                Err(format!("the copy {} was left, which nothing uses", left.name))
            }
            _ => Ok(()),
        }
    }

    /// At rest there is nothing to do, every job has the status that is wanted, and the host has what the
    /// database names and nothing else.
    pub(crate) fn at_rest(
        &self,
        engine: &Engine,
        machine: &SimState,
        now: Mono,
    ) -> Result<(), String> {
        let plan = engine.whole_plan(now);
        if !plan.steps.is_empty() {
            return Err(format!("there is still something to do: {:?}", plan.steps));
        }
        let named: BTreeSet<&InstanceId> = engine.fleet().instances().keys().collect();
        let there: BTreeSet<&InstanceId> =
            machine.instances().map(|(create, _)| &create.instance).collect();
        if !named.is_subset(&there) {
            return Err(format!("the database names {named:?}, the host has {there:?}"));
        }
        let orphans = machine.instances().filter(|(create, _)| !named.contains(&create.instance));
        for (create, _) in orphans {
            if self.gone.contains(&create.instance) {
                return Err(format!("{create:?} is there, and the database has forgotten it"));
            }
            if belongs(engine, create) {
                return Err(format!("{create:?} belongs to a job or pool and was not adopted"));
            }
        }
        let used = engine.fleet().used(&self.capacity).plus(self.orphans_take(engine, machine));
        let room = self.capacity.total().minus(used);
        for job in engine.fleet().jobs().values() {
            self.stands(engine, job, room)?;
        }
        Ok(())
    }

    fn stands(&self, engine: &Engine, job: &Job, room: Need) -> Result<(), String> {
        let serving = engine.fleet().of_job(&job.id).filter(|one| one.serves(job.run)).count();
        let there = engine.fleet().of_job(&job.id).count();
        let status = engine.status_of(&job.id);
        let fine = match (job.wanted, &job.progress.outcome) {
            (Wanted::Deleted, _) => false,
            (Wanted::Stopped, _) | (Wanted::Running, Some(_)) => there == 0,
            (Wanted::Running, None) => {
                let waits = matches!(status, Some(Status::Pending | Status::Failed)) && there == 0;
                // Its old generation serves until there is room for the new one beside it.
                let beside = job.spec.lifecycle == Lifecycle::Service && serving == 0 && there == 1;
                (serving == 1 && there == 1) || ((waits || beside) && self.may_wait(job, room))
            }
        };
        if fine {
            return Ok(());
        }
        let instances: Vec<_> = engine.fleet().of_job(&job.id).collect();
        Err(format!("{status:?} is not a resting state of {job:?} with {instances:?}"))
    }

    /// Whether a job may wait for ever: there is no room for one more.
    fn may_wait(&self, job: &Job, room: Need) -> bool {
        !self.capacity.need(&job.spec).fits(room)
    }
}

/// What was told that it is of a tenant's job serves no other tenant.
fn tenants_keep_what_they_have(engine: &Engine, machine: &SimState) -> Result<(), String> {
    for (create, _) in machine.instances() {
        let (Some(identity), Some(instance)) =
            (create.owner.identity(), engine.fleet().instance(&create.instance))
        else {
            continue;
        };
        let job = instance.job().and_then(|job| engine.fleet().job(job));
        if job.is_some_and(|job| job.tenant != identity.tenant || job.id != identity.job_id) {
            return Err(format!("{identity:?} has {}, which serves {job:?}", create.instance));
        }
    }
    Ok(())
}

/// Whether the database says that an instance is of this generation of a job.
pub(crate) fn serves(instance: &Instance, id: &JobId, generation: Generation) -> bool {
    match &instance.assignment {
        Assignment::Job { job, run, .. } => job == id && *run == generation,
        Assignment::Pool(_) => false,
    }
}

/// A claim is by a job of the pool's own tenant.
fn claimed_by_its_own(
    engine: &Engine,
    id: &InstanceId,
    key: &PoolKey,
    job: &JobId,
) -> Result<(), String> {
    let Some(job) = engine.fleet().job(job) else { return Ok(()) };
    let own = match &key.tenant {
        PoolTenant::Shared => !job.tenant_given,
        PoolTenant::Named(tenant) => job.tenant_given && *tenant == job.tenant,
    };
    if own { Ok(()) } else { Err(format!("{id} of the pool {key:?} serves {job:?}")) }
}

/// What was told that it is of a generation is made of that generation's spec.
fn generations_have_one_spec(engine: &Engine, machine: &SimState) -> Result<(), String> {
    for (create, state) in machine.instances() {
        let InstanceState::Up { acknowledged: Some(acknowledged), .. } = state else { continue };
        let Some(instance) = engine.fleet().instance(&create.instance) else { continue };
        let Some(job) = instance.job().and_then(|job| engine.fleet().job(job)) else { continue };
        if *acknowledged > job.generation {
            return Err(format!(
                "{} was told {acknowledged}, and there is {job:?}",
                create.instance
            ));
        }
        if job.run == *acknowledged && job.hash().is_some_and(|hash| hash != create.hash) {
            return Err(format!("{} is generation {acknowledged} of {job:?}", create.instance));
        }
    }
    Ok(())
}

/// Whether there is a job or a pool that an instance of this make is of.
fn belongs(engine: &Engine, create: &Create) -> bool {
    match &create.owner {
        Owner::Job(identity) => {
            engine.fleet().job(&identity.job_id).is_some_and(|job| job.tenant == identity.tenant)
        }
        Owner::Pool(tenant) => {
            let key = PoolKey { tenant: tenant.clone(), hash: create.hash };
            engine.fleet().job_of_pool(&key).is_some()
        }
    }
}
