//! The decision. For each job, then for each pool: what is the next step from what is seen to
//! what is wanted? It is asked again after every change, so each step may be small.
//!
//! ```text
//!            no instance ──claim──▶ acknowledged? ──▶ release ──▶ ready ──▶ old generation stopped
//!                 │                  ▲
//!                 └──create──────────┘        any end ──▶ remove ──▶ back-off ──▶ no instance
//! ```

use crate::capacity::Need;
use crate::fleet::Subject;
use crate::pool;
use crate::status::{is_current, serves_its_run};
use crate::world::{NextCheck, Plan, Scope, Step, Target, Waiting, World};
use hearth_model::{
    Assignment, Instance, InstanceId, InstanceState, Job, JobId, Lifecycle, Mono, Phase, PoolKey,
    Resolution, Wanted,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// How many of those that wait for room are looked at in one plan that is not for all: a big one at
/// the head must not hide a small one that fits, and thousands must not be looked at for each exit.
const QUEUE_LOOKS_MAX: usize = 64;

/// What to do next. Pure: the same world gives the same plan.
#[must_use]
pub fn plan(world: &World<'_>, scope: Scope<'_>) -> Plan {
    let mut planner = Planner::new(world);
    match scope {
        Scope::Job(id) => planner.job_named(id),
        Scope::All => {
            world.fleet.jobs().keys().for_each(|id| planner.job_named(id));
            world.fleet.orphaned().for_each(|id| planner.job_named(id));
            planner.evict();
            world.fleet.pool_keys().for_each(|key| planner.pool_named(key));
        }
        Scope::Some { jobs, pools, queue } => {
            jobs.iter().for_each(|id| planner.job_named(id));
            for id in queue.jobs.difference(jobs).take(QUEUE_LOOKS_MAX) {
                if planner.boots_left == 0 {
                    break;
                }
                planner.job_named(id);
            }
            planner.evict();
            pools.iter().for_each(|key| planner.pool_named(key));
            for key in queue.pools.difference(pools).take(QUEUE_LOOKS_MAX) {
                if planner.boots_left == 0 {
                    break;
                }
                planner.pool_named(key);
            }
        }
    }
    planner.plan
}

/// A plan in the making: what it took from the world is no longer there for the next job.
pub(crate) struct Planner<'a> {
    pub(crate) world: &'a World<'a>,
    plan: Plan,
    /// Of the job or pool that is being planned.
    pub(crate) next_check: NextCheck,
    /// Instances that the plan has a step for already: there is never a second.
    pub(crate) taken: BTreeSet<InstanceId>,
    /// What is left of the host.
    pub(crate) room: Need,
    /// What jobs that wait for capacity lack; pools leave it alone.
    pub(crate) reserved: Need,
    /// How many more may boot now.
    pub(crate) boots_left: usize,
}

impl<'a> Planner<'a> {
    fn new(world: &'a World<'a>) -> Planner<'a> {
        Planner {
            world,
            plan: Plan::default(),
            next_check: NextCheck::default(),
            taken: BTreeSet::new(),
            room: world.capacity.total().minus(world.fleet.used(&world.capacity)),
            reserved: Need::default(),
            boots_left: world.limits.boots_max.saturating_sub(world.fleet.booting()),
        }
    }

    /// Plans for a job, which may be gone, and for what is left of its instances.
    fn job_named(&mut self, id: &JobId) {
        let fleet = self.world.fleet;
        let (ended, live): (Vec<_>, Vec<_>) =
            fleet.of_job(id).partition(|instance| instance.exit().is_some());
        self.remove(&ended);
        match fleet.job(id) {
            Some(job) => self.job(job, &live),
            None => live.iter().for_each(|instance| self.stop(instance, "its job is gone")),
        }
        self.stop_again(&live);
        let next_check = std::mem::take(&mut self.next_check);
        self.plan.next_checks.push((Subject::Job(id.clone()), next_check));
    }

    /// Plans for a pool, which no job may want any more, and for its instances.
    fn pool_named(&mut self, key: &PoolKey) {
        let (ended, live): (Vec<_>, Vec<_>) =
            self.world.fleet.of_pool(key).partition(|instance| instance.exit().is_some());
        self.remove(&ended);
        pool::plan(self, key, &live);
        self.stop_again(&live);
        let next_check = std::mem::take(&mut self.next_check);
        self.plan.next_checks.push((Subject::Pool(key.clone()), next_check));
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    pub(crate) fn wake_at(&mut self, at: Mono) {
        self.next_check.wake_at =
            Some(self.next_check.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(crate) fn stop(&mut self, instance: &Instance, reason: impl Into<String>) {
        self.end(instance, reason.into(), false);
    }

    /// Stops an instance that nothing is being done to; one that is busy is met again.
    pub(crate) fn end(&mut self, instance: &Instance, reason: String, failed: bool) {
        if self.is_free(instance) && self.taken.insert(instance.id.clone()) {
            self.step(Step::Stop { instance: instance.id.clone(), reason, failed });
        }
    }

    /// Whether something may be done to an instance: it is not busy, and has no step in this plan yet.
    fn is_free(&self, instance: &Instance) -> bool {
        !self.world.busy.is_busy(&instance.id) && !self.taken.contains(&instance.id)
    }

    /// Whether `limit` has gone by since `since`; if not, the plan is made again when it has.
    pub(crate) fn overdue(&mut self, since: Mono, limit: Duration) -> bool {
        let due = since.after(limit);
        if self.world.now >= due {
            return true;
        }
        self.wake_at(due);
        false
    }

    /// Removes what has ended.
    fn remove(&mut self, ended: &[&Instance]) {
        for instance in ended.iter().filter(|one| !self.world.busy.is_busy(&one.id)) {
            self.step(Step::Remove { instance: instance.id.clone() });
        }
    }

    /// Stops again what should have ended already.
    fn stop_again(&mut self, live: &[&Instance]) {
        for instance in live {
            if let Some(reason) = &instance.stopping {
                self.stop(instance, reason.clone());
            }
        }
    }

    fn job(&mut self, job: &'a Job, live: &[&'a Instance]) {
        match job.wanted {
            Wanted::Deleted | Wanted::Stopped => {
                for instance in live.iter().filter(|instance| instance.stopping.is_none()) {
                    let reason = match job.wanted {
                        Wanted::Deleted => "its job is deleted",
                        _ => "its job is stopped",
                    };
                    self.stop(instance, reason);
                }
                let nothing_left = self.world.fleet.of_job(&job.id).next().is_none();
                if job.wanted == Wanted::Deleted && nothing_left {
                    self.step(Step::Forget { job: job.id.clone() });
                }
            }
            Wanted::Running if job.progress.outcome.is_some() => {
                for instance in live.iter().filter(|instance| instance.stopping.is_none()) {
                    self.stop(instance, "its job is over");
                }
            }
            Wanted::Running => self.run(job, live),
        }
    }

    fn run(&mut self, job: &'a Job, live: &[&'a Instance]) {
        for instance in live {
            self.end_silent(instance, is_current(instance, job));
        }
        let current: Vec<&Instance> =
            live.iter().copied().filter(|instance| is_current(instance, job)).collect();
        let old: Vec<&Instance> =
            live.iter().copied().filter(|instance| !is_current(instance, job)).collect();
        let beside = job.spec.lifecycle == Lifecycle::Service;
        let replaced = "it is replaced by a newer generation";
        if beside {
            // One is kept until the new one is ready: the newest that serves, or while none is known to,
            // all that may. One that was overtaken before it served, or that another already serves for,
            // only takes capacity.
            let serves = |one: &&&Instance| one.stopping.is_none() && serves_its_run(one);
            let serving = old.iter().filter(serves);
            let kept = serving.max_by_key(|one| one.created_at).map(|one| &one.id);
            let is_spare = |one: &&Instance| match kept {
                Some(kept) => one.id != *kept,
                None => !one.is_silent() && !self.may_serve(one),
            };
            let spare: Vec<&Instance> = old.iter().copied().filter(is_spare).collect();
            self.stop_old(&spare, replaced);
        } else if self.can_start(job) {
            self.stop_old(&old, replaced);
        }
        if let Some((instance, surplus)) = current.split_first() {
            surplus.iter().for_each(|instance| self.stop(instance, "one instance is enough"));
            self.bring_up(job, instance, &old);
            return;
        }
        match (&job.progress.resolution, job.progress.not_before) {
            (Resolution::Known { .. }, _) => {}
            (Resolution::Failed(_), Some(at)) if at > self.world.now => {
                self.wait(Waiting::BackOff(at));
                return;
            }
            // What is being read is read for as long as it is looked up.
            (Resolution::Preparing(_) | Resolution::Failed(_), _) => {
                self.step(Step::Resolve { job: job.id.clone() });
                return;
            }
        }
        if let Some(at) = job.progress.not_before.filter(|at| *at > self.world.now) {
            self.wait(Waiting::BackOff(at));
            return;
        }
        if let Some(warm) = self.claimable(job, beside || old.is_empty()) {
            self.taken.insert(warm.id.clone());
            self.step(Step::Claim { instance: warm.id.clone(), job: job.id.clone() });
            return;
        }
        if !beside && !old.is_empty() {
            self.wait(Waiting::Predecessor);
            return;
        }
        self.create(job);
    }

    /// Ends an instance whose VMM has not answered for too long. Returns whether that is so.
    pub(crate) fn end_silent(&mut self, instance: &Instance, failed: bool) -> bool {
        let silent = instance.silence >= self.world.limits.silence_max;
        if silent && instance.stopping.is_none() {
            let missed = instance.silence;
            self.end(instance, format!("VMM does not answer: it missed {missed} probes"), failed);
        }
        silent
    }

    /// Whether one of which this daemon has not heard yet may serve: it has its time to report.
    fn may_serve(&mut self, instance: &Instance) -> bool {
        let boot = self.world.limits.boot;
        instance.awaiting_first_report
            && !instance.seen_at.is_some_and(|seen| self.overdue(seen, boot))
    }

    /// Whether an instance of this job could start on an empty host: what runs is not ended for one
    /// that can't.
    fn can_start(&self, job: &Job) -> bool {
        let capacity = self.world.capacity;
        let fits = capacity.need(&job.spec).fits(capacity.total());
        fits && matches!(job.progress.resolution, Resolution::Known { .. })
    }

    fn wait(&mut self, waiting: Waiting) {
        if let Waiting::BackOff(at) = waiting {
            self.wake_at(at);
        }
        self.next_check.waiting = Some(waiting);
    }

    fn stop_old(&mut self, old: &[&Instance], reason: &str) {
        for instance in old.iter().filter(|instance| instance.stopping.is_none()) {
            self.stop(instance, reason);
        }
    }

    /// A warm instance for this job. Only a held one may be taken while a predecessor still
    /// runs, so that two never run at once.
    fn claimable(&self, job: &Job, alone: bool) -> Option<&'a Instance> {
        let key = job.pool_key()?;
        self.world.fleet.of_pool(&key).find(|instance| {
            let held = matches!(instance.state, Some(InstanceState::Up { phase: Phase::Held, .. }));
            instance.is_warm() && (alone || held) && self.is_free(instance)
        })
    }

    fn create(&mut self, job: &Job) {
        let need = self.world.capacity.need(&job.spec);
        if !need.fits(self.room) {
            let total = self.world.capacity.total();
            if need.fits(total) {
                self.reserved = self.reserved.plus(need);
            }
            if need.scratch_mib > self.room.scratch_mib {
                let (need_mib, left_mib) = (need.scratch_mib, self.room.scratch_mib);
                self.wait(Waiting::Disk { need_mib, left_mib });
            } else {
                self.wait(Waiting::Capacity { need, total });
            }
        } else if self.boots_left == 0 {
            self.room = self.room.minus(need);
            self.wait(Waiting::Turn);
        } else {
            self.room = self.room.minus(need);
            self.boots_left -= 1;
            self.step(Step::Create(Target::Job(job.id.clone())));
        }
    }

    /// Brings the current instance to where it serves, then ends the old ones.
    fn bring_up(&mut self, job: &Job, instance: &Instance, old: &[&Instance]) {
        if instance.serves(job.run) {
            self.stop_old(old, "a newer generation is ready");
            self.time_limit(job, instance);
            return;
        }
        if instance.is_silent() && instance.state.as_ref().is_some_and(|up| up.serves(job.run)) {
            // It may answer again.
            self.time_limit(job, instance);
            return;
        }
        let limits = self.world.limits;
        let Some(InstanceState::Up { phase, acknowledged, ready_detail, .. }) = &instance.state
        else {
            let booting = instance.state.is_some();
            if booting && self.overdue(instance.deadline_start(instance.created_at), limits.boot) {
                let reason = format!("the guest did not report within {} s", limits.boot.as_secs());
                self.end(instance, reason, true);
            }
            return;
        };
        if *phase == Phase::Stopping {
            return;
        }
        let claimed_at = match &instance.assignment {
            Assignment::Job { claimed_at, .. } => *claimed_at,
            Assignment::Pool(_) => None,
        };
        if *acknowledged != Some(job.run) {
            if claimed_at.is_some_and(|at| self.overdue(instance.deadline_start(at), limits.claim))
            {
                let reason = match &instance.assign_failure {
                    Some(failure) => format!("the guest was not assigned in time: {failure}"),
                    None => "the guest did not take its identity in time".to_owned(),
                };
                self.stop(instance, reason);
                return;
            }
            self.assign_identity(instance, old.is_empty() || *phase == Phase::Running);
            return;
        }
        if *phase == Phase::Held {
            if old.is_empty() || job.spec.lifecycle == Lifecycle::Service {
                self.assign_identity(instance, true);
            }
            return;
        }
        self.time_limit(job, instance);
        let since = instance.running_since.unwrap_or(self.world.now);
        let seconds = job.spec.ready.as_ref().map_or(60, |ready| ready.timeout_s);
        let limit = Duration::from_secs(u64::from(seconds)) * limits.time_factor;
        if self.overdue(since, limit) {
            let detail = ready_detail.as_deref().unwrap_or("its check has not passed");
            self.end(instance, format!("not ready within {seconds} s: {detail}"), true);
        }
    }

    fn assign_identity(&mut self, instance: &Instance, release: bool) {
        if self.is_free(instance) && self.taken.insert(instance.id.clone()) {
            self.step(Step::AssignIdentity { instance: instance.id.clone(), release });
        }
    }

    fn time_limit(&mut self, job: &Job, instance: &Instance) {
        let (Some(timeout_s), Some(since)) = (job.spec.timeout_s, instance.running_since) else {
            return;
        };
        if self.overdue(since, Duration::from_secs(u64::from(timeout_s))) {
            self.step(Step::TimeOut { job: job.id.clone(), timeout_s });
        }
    }

    /// Ends warm instances until what the waiting jobs lack would be free.
    fn evict(&mut self) {
        let (fleet, capacity) = (self.world.fleet, self.world.capacity);
        let mut lacking = self.reserved.minus(self.room).minus(fleet.leaving(&capacity));
        for instance in fleet.pool_keys().flat_map(|key| fleet.of_pool(key)) {
            if lacking == Need::default() {
                return;
            }
            let spare =
                instance.stopping.is_none() && instance.exit().is_none() && self.is_free(instance);
            if spare {
                lacking = lacking.minus(capacity.need(&instance.spec));
                self.stop(instance, "evicted to free capacity");
            }
        }
    }
}
