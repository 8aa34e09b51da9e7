//! All jobs and instances there are, with the indexes that let a plan cost what has changed.
//!
//! Nothing is changed but through [`Fleet`]'s own methods, which keep the indexes true, and note whose
//! plan may be another now and which rows of the database are out of date. `change_` and `insert_` change
//! what is stored; `observe_` changes what is only seen, and no row. What a user wants of a job and its
//! progress are rows of their own: `change_progress` cannot reach the other. What each index holds follows
//! from the jobs and instances alone, so that a fleet that is rebuilt from them is the same.

use crate::capacity::{Capacity, Need};
use hearth_model::{
    Assignment, Instance, InstanceId, InstanceState, Job, JobId, Lifecycle, Outcome, PoolKey,
    Progress, Slot, Wanted,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a plan is made for: a job with its instances, or a pool with its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A job, which may be gone while instances of it are left.
    Job(JobId),
    /// A pool.
    Pool(PoolKey),
}

/// Jobs and pools, for instance those whose plan may be another than the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// Jobs.
    pub jobs: BTreeSet<JobId>,
    /// Pools.
    pub pools: BTreeSet<PoolKey>,
}

/// Jobs and instances that were inserted, changed or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Jobs, by what is wanted of them.
    pub jobs: BTreeSet<JobId>,
    /// Jobs, by their progress.
    pub progress: BTreeSet<JobId>,
    /// Instances.
    pub instances: BTreeSet<InstanceId>,
}

/// Jobs and instances.
#[derive(Debug, Default)]
pub struct Fleet {
    jobs: BTreeMap<JobId, Job>,
    instances: BTreeMap<InstanceId, Instance>,
    of_job: BTreeMap<JobId, BTreeSet<InstanceId>>,
    pools: BTreeMap<PoolKey, Pool>,
    load: Load,
    /// Slots below `next_slot` that no instance has.
    free_slots: BTreeSet<Slot>,
    next_slot: u32,
    /// Slots of what the fleet does not hold.
    held_slots: BTreeSet<Slot>,
    due: Subjects,
    changed: Changed,
}

/// A pool: its instances, and what jobs request of it.
#[derive(Debug, Default)]
struct Pool {
    members: BTreeSet<InstanceId>,
    /// Jobs that request spare instances.
    jobs: BTreeSet<JobId>,
    /// Their minima and maxima, each with how many jobs say it.
    min: BTreeMap<u32, usize>,
    max: BTreeMap<u32, usize>,
}

/// How many spare instances a pool is to have: the largest bounds of the jobs that share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Kept.
    pub(crate) min: u32,
    /// Allowed. A target between the two may follow demand one day; until then it is `min`.
    pub(crate) max: u32,
}

/// What the instances that have not ended take of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    all: Share,
    /// Those of them that are being stopped.
    leaving: Share,
    booting: usize,
}

/// What some instances take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    instances: u64,
    vcpus: u64,
    memory_mib: u64,
    scratch_mib: u64,
}

impl Subjects {
    fn add(&mut self, subject: Subject) {
        match subject {
            Subject::Job(id) => self.jobs.insert(id),
            Subject::Pool(key) => self.pools.insert(key),
        };
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.pools.is_empty()
    }
}

impl Fleet {
    /// All jobs, by id.
    #[must_use]
    pub fn jobs(&self) -> &BTreeMap<JobId, Job> {
        &self.jobs
    }

    /// All instances that have not been removed, by id.
    #[must_use]
    pub fn instances(&self) -> &BTreeMap<InstanceId, Instance> {
        &self.instances
    }

    /// One job.
    #[must_use]
    pub fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id)
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    /// The instances of a job, ended ones included, by id.
    pub fn of_job(&self, id: &JobId) -> impl Iterator<Item = &Instance> {
        self.of_job.get(id).into_iter().flatten().map(|id| &self.instances[id])
    }

    /// The instances of a pool, ended ones included, by id.
    pub fn of_pool(&self, key: &PoolKey) -> impl Iterator<Item = &Instance> {
        self.pools.get(key).into_iter().flat_map(|pool| &pool.members).map(|id| &self.instances[id])
    }

    /// The pools that jobs want or that have instances.
    pub fn pool_keys(&self) -> impl Iterator<Item = &PoolKey> {
        self.pools.keys()
    }

    /// Whether jobs want a pool, or it has instances.
    #[must_use]
    pub fn has_pool(&self, key: &PoolKey) -> bool {
        self.pools.contains_key(key)
    }

    /// A job whose spec the instances of a pool are made of.
    #[must_use]
    pub fn job_of_pool(&self, key: &PoolKey) -> Option<&Job> {
        self.pools.get(key)?.jobs.first().and_then(|id| self.jobs.get(id))
    }

    /// The pools that no job requests any more once these jobs have changed, or are gone if `None`, each
    /// with how many of its instances are then stopped that are not ending already. By key.
    #[must_use]
    pub fn drained_by(&self, after: &BTreeMap<&JobId, Option<&Job>>) -> Vec<(PoolKey, usize)> {
        let key_of = |job: &Job| pool_request(job).map(|(key, _)| key);
        let requested: BTreeSet<PoolKey> =
            after.values().flatten().filter_map(|job| key_of(job)).collect();
        let left: BTreeSet<PoolKey> =
            after.keys().filter_map(|id| self.jobs.get(*id)).filter_map(key_of).collect();
        let drains = |key: &PoolKey| {
            let others = |pool: &Pool| pool.jobs.iter().any(|id| !after.contains_key(id));
            !requested.contains(key) && !self.pools.get(key).is_some_and(others)
        };
        let stays = |instance: &&Instance| instance.stopping.is_none() && instance.exit().is_none();
        left.into_iter()
            .filter(drains)
            .map(|key| (self.of_pool(&key).filter(stays).count(), key))
            .filter(|(instances, _)| *instances > 0)
            .map(|(instances, key)| (key, instances))
            .collect()
    }

    /// How many jobs want spare instances of a pool, and its target size.
    #[must_use]
    pub fn demand(&self, key: &PoolKey) -> (usize, u32) {
        let jobs = self.pools.get(key).map_or(0, |pool| pool.jobs.len());
        (jobs, self.bounds(key).map_or(0, |bounds| bounds.min))
    }

    pub(crate) fn bounds(&self, key: &PoolKey) -> Option<Bounds> {
        let pool = self.pools.get(key)?;
        let (min, max) = (pool.min.last_key_value()?, pool.max.last_key_value()?);
        Some(Bounds { min: *min.0, max: *max.0 })
    }

    /// Ids of jobs that are gone while instances of theirs are left.
    pub(crate) fn orphaned(&self) -> impl Iterator<Item = &JobId> {
        self.of_job.keys().filter(|id| !self.jobs.contains_key(*id))
    }

    /// What all instances that have not ended take.
    #[must_use]
    pub fn used(&self, capacity: &Capacity) -> Need {
        self.load.all.need(capacity)
    }

    /// What the scratch disks of all instances that have not ended may take, in MiB.
    #[must_use]
    pub fn scratch_mib(&self) -> u64 {
        self.load.all.scratch_mib
    }

    pub(crate) fn leaving(&self, capacity: &Capacity) -> Need {
        self.load.leaving.need(capacity)
    }

    pub(crate) fn booting(&self) -> usize {
        self.load.booting
    }

    /// The lowest slot that nothing has.
    #[must_use]
    pub fn free_slot(&self) -> Slot {
        let beyond = (self.next_slot..).map(Slot);
        let mut free = self.free_slots.iter().copied().chain(beyond);
        free.find(|slot| !self.held_slots.contains(slot)).unwrap_or(Slot(u32::MAX))
    }

    /// Whether an instance has this slot.
    #[must_use]
    pub fn has(&self, slot: Slot) -> bool {
        slot.0 < self.next_slot && !self.free_slots.contains(&slot)
    }

    /// From now on these slots are not free either.
    pub fn hold_slots(&mut self, slots: BTreeSet<Slot>) {
        self.held_slots = slots;
    }

    /// Adds or replaces a job.
    pub fn insert_job(&mut self, job: Job) {
        self.remove_job(&job.id);
        self.changed.jobs.insert(job.id.clone());
        self.changed.progress.insert(job.id.clone());
        self.due.add(Subject::Job(job.id.clone()));
        if let Some(request) = pool_request(&job) {
            self.add_request(&job.id, request);
        }
        self.jobs.insert(job.id.clone(), job);
    }

    /// Takes a job out.
    pub fn remove_job(&mut self, id: &JobId) -> Option<Job> {
        let job = self.jobs.remove(id)?;
        self.changed.jobs.insert(id.clone());
        self.changed.progress.insert(id.clone());
        self.due.add(Subject::Job(id.clone()));
        if let Some(request) = pool_request(&job) {
            self.drop_request(id, request);
        }
        Some(job)
    }

    /// Changes what is wanted of a job, but for its id; where that begins a new run, its progress with it.
    /// `None` where there is no such job.
    pub fn change_job<R>(&mut self, id: &JobId, change: impl FnOnce(&mut Job) -> R) -> Option<R> {
        let before = self.jobs.get(id)?.progress.clone();
        let result = self.update_job(id, change)?;
        self.changed.jobs.insert(id.clone());
        if self.jobs.get(id).is_some_and(|job| job.progress != before) {
            self.changed.progress.insert(id.clone());
        }
        Some(result)
    }

    /// Changes the progress of a job. `None` where there is no such job.
    pub fn change_progress<R>(
        &mut self,
        id: &JobId,
        change: impl FnOnce(&mut Progress) -> R,
    ) -> Option<R> {
        let result = self.observe_progress(id, change)?;
        self.changed.progress.insert(id.clone());
        Some(result)
    }

    /// As [`Fleet::change_progress`], for what its row does not hold.
    pub fn observe_progress<R>(
        &mut self,
        id: &JobId,
        change: impl FnOnce(&mut Progress) -> R,
    ) -> Option<R> {
        self.update_job(id, |job| change(&mut job.progress))
    }

    fn update_job<R>(&mut self, id: &JobId, change: impl FnOnce(&mut Job) -> R) -> Option<R> {
        let job = self.jobs.get_mut(id)?;
        let before = pool_request(job);
        let result = change(job);
        let after = pool_request(job);
        self.due.add(Subject::Job(id.clone()));
        if before != after {
            if let Some(request) = before {
                self.drop_request(id, request);
            }
            if let Some(request) = after {
                self.add_request(id, request);
            }
        }
        Some(result)
    }

    /// Adds an instance.
    ///
    /// # Panics
    /// Where there is one of that id: ids are never reused.
    pub fn insert_instance(&mut self, instance: Instance) {
        self.changed.instances.insert(instance.id.clone());
        self.load.add(Load::of(&instance));
        for unused in self.next_slot..instance.slot.0 {
            self.free_slots.insert(Slot(unused));
        }
        self.next_slot = self.next_slot.max(instance.slot.0 + 1);
        self.free_slots.remove(&instance.slot);
        self.join(subject(&instance), &instance.id);
        let old = self.instances.insert(instance.id.clone(), instance);
        assert!(old.is_none(), "an instance id is never reused");
    }

    /// Takes an instance out.
    pub fn remove_instance(&mut self, id: &InstanceId) -> Option<Instance> {
        let instance = self.instances.remove(id)?;
        self.changed.instances.insert(id.clone());
        self.load.take(Load::of(&instance));
        self.free_slots.insert(instance.slot);
        self.leave(subject(&instance), id);
        Some(instance)
    }

    /// Changes an instance, but for its id and slot. `None` where there is none.
    pub fn change_instance<R>(
        &mut self,
        id: &InstanceId,
        change: impl FnOnce(&mut Instance) -> R,
    ) -> Option<R> {
        let result = self.observe_instance(id, change)?;
        self.changed.instances.insert(id.clone());
        Some(result)
    }

    /// As [`Fleet::change_instance`], for what its row does not hold.
    pub fn observe_instance<R>(
        &mut self,
        id: &InstanceId,
        change: impl FnOnce(&mut Instance) -> R,
    ) -> Option<R> {
        let instance = self.instances.get_mut(id)?;
        let (before, load) = (subject(instance), Load::of(instance));
        let result = change(instance);
        let after = subject(instance);
        let new_load = Load::of(instance);
        self.load.take(load);
        self.load.add(new_load);
        if before == after {
            self.due.add(after);
        } else {
            self.leave(before, id);
            self.join(after, id);
        }
        Some(result)
    }

    /// Whose plan may be another since this was last called.
    pub fn take_due(&mut self) -> Subjects {
        std::mem::take(&mut self.due)
    }

    /// As [`Fleet::take_due`], and they stay due.
    #[must_use]
    pub fn due(&self) -> &Subjects {
        &self.due
    }

    /// Whose rows are out of date since this was last called.
    pub fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// Asks for a plan of this one, for instance since a time has come.
    pub fn replan(&mut self, subject: Subject) {
        self.due.add(subject);
    }

    /// Asks for a plan of the job or pool that an instance belongs to, if it is known.
    pub fn replan_instance(&mut self, id: &InstanceId) {
        if let Some(instance) = self.instances.get(id) {
            self.due.add(subject(instance));
        }
    }

    fn join(&mut self, subject: Subject, id: &InstanceId) {
        let members = match &subject {
            Subject::Job(job) => self.of_job.entry(job.clone()).or_default(),
            Subject::Pool(key) => &mut self.pools.entry(key.clone()).or_default().members,
        };
        members.insert(id.clone());
        self.due.add(subject);
    }

    fn leave(&mut self, subject: Subject, id: &InstanceId) {
        match &subject {
            Subject::Job(job) => {
                if let Some(members) = self.of_job.get_mut(job) {
                    members.remove(id);
                    if members.is_empty() {
                        self.of_job.remove(job);
                    }
                }
            }
            Subject::Pool(key) => {
                if let Some(pool) = self.pools.get_mut(key) {
                    pool.members.remove(id);
                }
                self.drop_if_unused(key);
            }
        }
        self.due.add(subject);
    }

    fn add_request(&mut self, id: &JobId, (key, bounds): (PoolKey, Bounds)) {
        let pool = self.pools.entry(key.clone()).or_default();
        pool.jobs.insert(id.clone());
        *pool.min.entry(bounds.min).or_default() += 1;
        *pool.max.entry(bounds.max).or_default() += 1;
        self.due.add(Subject::Pool(key));
    }

    fn drop_request(&mut self, id: &JobId, (key, bounds): (PoolKey, Bounds)) {
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.jobs.remove(id);
            uncount(&mut pool.min, bounds.min);
            uncount(&mut pool.max, bounds.max);
        }
        self.drop_if_unused(&key);
        self.due.add(Subject::Pool(key));
    }

    fn drop_if_unused(&mut self, key: &PoolKey) {
        let unused = |pool: &Pool| pool.members.is_empty() && pool.jobs.is_empty();
        if self.pools.get(key).is_some_and(unused) {
            self.pools.remove(key);
        }
    }
}

impl Load {
    fn of(instance: &Instance) -> Load {
        if instance.exit().is_some() {
            return Load::default();
        }
        let all = Share {
            instances: 1,
            vcpus: u64::from(instance.spec.resources.vcpu),
            memory_mib: u64::from(instance.spec.resources.mem_mib),
            scratch_mib: instance.spec.scratch_mib(),
        };
        let leaving = if instance.stopping.is_some() { all } else { Share::default() };
        // One that another daemon made has booted, or has its time to say so; no boot waits for it.
        let booting = !instance.awaiting_first_report
            && matches!(instance.state, None | Some(InstanceState::Booting));
        Load { all, leaving, booting: usize::from(booting) }
    }

    fn add(&mut self, other: Load) {
        self.all.add(other.all);
        self.leaving.add(other.leaving);
        self.booting += other.booting;
    }

    fn take(&mut self, other: Load) {
        self.all.take(other.all);
        self.leaving.take(other.leaving);
        self.booting -= other.booting;
    }
}

impl Share {
    fn add(&mut self, other: Share) {
        self.instances += other.instances;
        self.vcpus += other.vcpus;
        self.memory_mib += other.memory_mib;
        self.scratch_mib += other.scratch_mib;
    }

    fn take(&mut self, other: Share) {
        self.instances -= other.instances;
        self.vcpus -= other.vcpus;
        self.memory_mib -= other.memory_mib;
        self.scratch_mib -= other.scratch_mib;
    }

    fn need(self, capacity: &Capacity) -> Need {
        let overhead_mib = self.instances * capacity.overhead_mib;
        Need {
            vcpus: self.vcpus,
            memory_mib: self.memory_mib + overhead_mib,
            scratch_mib: capacity.scratch_mib.map_or(0, |_| self.scratch_mib),
        }
    }
}

/// Whose an instance is.
fn subject(instance: &Instance) -> Subject {
    match &instance.assignment {
        Assignment::Job { job, .. } => Subject::Job(job.clone()),
        Assignment::Pool(key) => Subject::Pool(key.clone()),
    }
}

/// The spare instances that a job requests.
fn pool_request(job: &Job) -> Option<(PoolKey, Bounds)> {
    // A `job` that failed for good would fail again in a pool; one that completed may be run
    // again any time.
    let over = job.spec.lifecycle == Lifecycle::Job
        && matches!(job.progress.outcome, Some(Outcome::Failed(_)));
    let (min, max) = job.spec.pool_bounds();
    if job.wanted != Wanted::Running || max == 0 || over {
        return None;
    }
    Some((job.pool_key()?, Bounds { min, max }))
}

fn uncount(counts: &mut BTreeMap<u32, usize>, value: u32) {
    if let Some(count) = counts.get_mut(&value) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&value);
        }
    }
}
