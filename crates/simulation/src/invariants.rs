//! What must hold in every run, whatever happens. Each is asserted after every step.

use hearth_engine::{Accepted, Engine, Refusal, Reply};
use hearth_host::sim::Machine;
use hearth_model::{
    Action, Assignment, Create, Generation, Instance, InstanceId, InstanceState, Job, JobId,
    Lifecycle, Mono, Owner, Phase, PoolKey, PoolTenant, Spec, Tenant, Wanted,
};
use hearth_planner::{Capacity, Need, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a user was told of a generation of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    generation: Generation,
    wanted: Wanted,
    spec: Arc<Spec>,
}

/// Everything that is remembered in order to see that nothing is lost, done twice or crossed.
#[derive(Debug)]
pub(crate) struct Invariants {
    pub(crate) capacity: Capacity,
    /// The last change of each job that was acknowledged.
    told: BTreeMap<JobId, Told>,
    generations: BTreeMap<JobId, Generation>,
    /// The generation whose outcome a job has.
    outcomes: BTreeMap<JobId, Generation>,
    /// What each instance that the database ever named was for.
    assignments: BTreeMap<InstanceId, Assignment>,
    /// Instances that the database no longer names.
    gone: BTreeSet<InstanceId>,
    /// Instances that are to end; and those of them for which the last step has decided it.
    stopping: BTreeSet<InstanceId>,
    doomed: BTreeSet<InstanceId>,
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
            generations: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            assignments: BTreeMap::new(),
            gone: BTreeSet::new(),
            stopping: BTreeSet::new(),
            doomed: BTreeSet::new(),
            created: BTreeSet::new(),
            begun: BTreeSet::new(),
            runs: BTreeMap::new(),
            retries: BTreeMap::new(),
        }
    }

    /// The database is lost, and with it all that anybody was told. What the host has stays.
    pub(crate) fn lose(&mut self) {
        self.told.clear();
        self.generations.clear();
        self.outcomes.clear();
        self.assignments.clear();
        self.stopping.clear();
        self.created.clear();
        self.runs.clear();
        self.retries.clear();
    }

    /// After the start of a daemon.
    pub(crate) fn started(&mut self, engine: &Engine) -> Result<(), String> {
        self.acknowledged_is_there(engine)?;
        self.instances(engine)
    }

    /// After a step's commit.
    pub(crate) fn step(&mut self, engine: &Engine, machine: &Machine) -> Result<(), String> {
        self.acknowledged_is_there(engine)?;
        self.generations_rise(engine)?;
        self.outcomes_are_of_their_runs(engine)?;
        self.instances(engine)?;
        self.host(machine)?;
        let used = engine.fleet().used(&self.capacity).plus(self.strays_take(engine, machine));
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
        self.outcomes.retain(|id, _| engine.fleet().job(id).is_some());
        for job in engine.fleet().jobs().values() {
            if job.outcome.is_none() {
                self.outcomes.remove(&job.id);
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
    fn strays_take(&self, engine: &Engine, machine: &Machine) -> Need {
        let strays = machine.instances().filter(|(create, state)| {
            !state.is_exited() && engine.fleet().instance(&create.instance).is_none()
        });
        let needs = strays.map(|(create, _)| self.capacity.need(create.spec.resources));
        needs.fold(Need::default(), Need::plus)
    }

    /// An acknowledged change is there, or a later one is.
    fn acknowledged_is_there(&self, engine: &Engine) -> Result<(), String> {
        for (id, told) in &self.told {
            let Some(job) = engine.fleet().job(id) else {
                let deleted = engine.tombstone(id);
                if told.wanted == Wanted::Deleted && deleted >= Some(told.generation) {
                    continue;
                }
                if deleted > Some(told.generation) {
                    continue;
                }
                return Err(format!("{id} is gone, whose user was told {told:?}"));
            };
            let same = job.wanted == told.wanted && job.spec == told.spec;
            if job.generation < told.generation || (job.generation == told.generation && !same) {
                return Err(format!("a user was told {told:?}, and there is {job:?}"));
            }
        }
        Ok(())
    }

    /// Generations never fall.
    fn generations_rise(&mut self, engine: &Engine) -> Result<(), String> {
        for job in engine.fleet().jobs().values() {
            let last = self.generations.entry(job.id.clone()).or_insert(job.generation);
            if job.generation < *last || job.run > job.generation {
                return Err(format!("the generation of {} fell from {last}", job.id));
            }
            *last = job.generation;
            let run = (job.id.clone(), job.tenant.clone(), job.run);
            let retries = self.retries.entry(run).or_default();
            *retries = (*retries).max(job.spec.retries);
        }
        Ok(())
    }

    /// A claim is for good; a claimed instance is of the tenant's own pool; no name is used twice.
    fn instances(&mut self, engine: &Engine) -> Result<(), String> {
        self.doomed.clear();
        let mut slots = BTreeSet::new();
        for instance in engine.fleet().instances().values() {
            let id = &instance.id;
            if !slots.insert(instance.slot) {
                return Err(format!("{id} has a slot with another"));
            }
            if instance.stopping.is_some() && self.stopping.insert(id.clone()) {
                self.doomed.insert(id.clone());
            }
            if engine.saw_created(id) {
                self.created.insert(id.clone());
            }
            if self.gone.contains(id) {
                return Err(format!("the name {id} is used again"));
            }
            let is = &instance.assignment;
            let was = self.assignments.get(id);
            if was == Some(is) {
                continue;
            }
            match (was, is) {
                (None, _) => {}
                (Some(Assignment::Job { job: left, .. }), Assignment::Job { job: right, .. })
                    if left == right => {}
                (Some(Assignment::Pool(key)), Assignment::Job { job, .. }) => {
                    if let Some(job) = engine.fleet().job(job) {
                        let own = match &key.tenant {
                            PoolTenant::Shared => !job.tenant_given,
                            PoolTenant::Named(tenant) => job.tenant_given && *tenant == job.tenant,
                        };
                        if !own {
                            return Err(format!("{id} of the pool {key:?} serves {job:?}"));
                        }
                    }
                }
                (Some(was), is) => return Err(format!("{id} was for {was:?} and is for {is:?}")),
            }
            self.assignments.insert(id.clone(), is.clone());
        }
        let known = engine.fleet().instances();
        let gone: Vec<_> =
            self.assignments.keys().filter(|id| !known.contains_key(*id)).cloned().collect();
        for id in gone {
            self.assignments.remove(&id);
            self.gone.insert(id);
        }
        Ok(())
    }

    /// What the host does, whoever asked for it: the command of a `job` begins once a generation,
    /// and once more for each retry.
    pub(crate) fn host(&mut self, machine: &Machine) -> Result<(), String> {
        for (create, state) in machine.instances() {
            let InstanceState::Up { phase: Phase::Running, told: Some(told), .. } = state else {
                continue;
            };
            if create.spec.lifecycle != Lifecycle::Job || self.begun.contains(&create.instance) {
                continue;
            }
            self.begun.insert(create.instance.clone());
            let Some(identity) = create.owner.identity() else {
                return Err(format!("{} runs its command for nobody", create.instance));
            };
            let run = (identity.job_id.clone(), identity.tenant.clone(), *told);
            let retries = self.retries.get(&run).copied().unwrap_or_default();
            let runs = self.runs.entry(run).or_default();
            *runs += 1;
            if *runs > 1 + retries {
                return Err(format!("{} ran {runs} times as generation {told}", identity.job_id));
            }
        }
        Ok(())
    }

    /// The database names what an action is about, and nothing that serves is stopped.
    pub(crate) fn action(&self, engine: &Engine, action: &Action) -> Result<(), String> {
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
                let others = engine.fleet().of_job(&job.id).filter(|other| other.serves(job.run));
                let serves = self.doomed.contains(id)
                    && instance.serves(job.run)
                    && job.wanted == Wanted::Running
                    && job.outcome.is_none();
                if serves && others.count() == 1 {
                    return Err(format!("{id} is stopped while it serves {}", job.id));
                }
            }
            Action::Remove { .. } if instance.exit().is_none() => {
                return Err(format!("{id} is removed while it may run"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Somebody is answered.
    pub(crate) fn acknowledged(
        &mut self,
        engine: &Engine,
        machine: &Machine,
        reply: &Result<Reply, Refusal>,
    ) -> Result<(), String> {
        match reply {
            Ok(Reply::Changed(accepted, view)) => {
                // A claim is of an instance that lives.
                if *accepted == Accepted::Claimed
                    && !view.instance.as_ref().is_some_and(|id| machine.alive(id))
                {
                    return Err(format!("{} was given a dead instance", view.job));
                }
                let claimed = view.instance.as_ref().and_then(|id| engine.fleet().instance(id));
                let serves = |instance: &Instance| match &instance.assignment {
                    Assignment::Job { job, run, .. } => *job == view.job && *run == view.generation,
                    Assignment::Pool(_) => false,
                };
                if *accepted == Accepted::Claimed && !claimed.is_some_and(serves) {
                    return Err(format!("{} was given what is not its own: {claimed:?}", view.job));
                }
                let job = engine.fleet().job(&view.job);
                let Some(job) = job.filter(|job| job.generation >= view.generation) else {
                    return Err(format!(
                        "{} was told of {} and has {job:?}",
                        view.job, view.generation
                    ));
                };
                self.tell(job);
            }
            Ok(Reply::Applied(load)) => {
                let changed = load.replace.iter().chain(&load.update).map(|change| &change.job);
                for id in load.create.iter().chain(changed).chain(&load.deleted) {
                    match engine.fleet().job(id) {
                        Some(job) => self.tell(job),
                        None if load.deleted.contains(id) => {}
                        None => return Err(format!("{id} was applied and is not there")),
                    }
                }
            }
            Ok(Reply::Deleted { .. }) => {
                let doomed: Vec<&Job> = engine
                    .fleet()
                    .jobs()
                    .values()
                    .filter(|job| job.wanted == Wanted::Deleted)
                    .collect();
                doomed.into_iter().for_each(|job| self.tell(job));
            }
            _ => {}
        }
        Ok(())
    }

    fn tell(&mut self, job: &Job) {
        let told = Told { generation: job.generation, wanted: job.wanted, spec: job.spec.clone() };
        self.told.insert(job.id.clone(), told);
    }

    /// At rest there is nothing to do, everybody stands as wanted, and the host has what the
    /// database names and nothing else.
    pub(crate) fn at_rest(
        &self,
        engine: &Engine,
        machine: &Machine,
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
        let strays = machine.instances().filter(|(create, _)| !named.contains(&create.instance));
        for (create, _) in strays {
            if belongs(engine, create) {
                return Err(format!("{create:?} belongs to somebody, and nobody took it over"));
            }
        }
        let used = engine.fleet().used(&self.capacity).plus(self.strays_take(engine, machine));
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
        let fine = match (job.wanted, &job.outcome) {
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
        Err(format!("{status:?} is no rest for {job:?} with {instances:?}"))
    }

    /// Whether a job may wait for ever: there is no room for one more.
    fn may_wait(&self, job: &Job, room: Need) -> bool {
        !self.capacity.need(job.spec.resources).fits(room)
    }
}

/// What was told that it is of a tenant's job serves no other tenant.
fn tenants_keep_what_they_have(engine: &Engine, machine: &Machine) -> Result<(), String> {
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

/// What was told that it is of a generation is made of that generation's spec.
fn generations_have_one_spec(engine: &Engine, machine: &Machine) -> Result<(), String> {
    for (create, state) in machine.instances() {
        let InstanceState::Up { told: Some(told), .. } = state else { continue };
        let Some(instance) = engine.fleet().instance(&create.instance) else { continue };
        let Some(job) = instance.job().and_then(|job| engine.fleet().job(job)) else { continue };
        if job.run == *told && job.hash().is_some_and(|hash| hash != create.hash) {
            return Err(format!("{} is generation {told} of {job:?}", create.instance));
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
