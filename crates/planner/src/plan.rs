//! The decision. For each job, then for each pool: what is the next step from what is seen to
//! what is wanted? It is asked again after every change, so each step may be small.
//!
//! ```text
//!            no instance ──claim──▶ told? ──▶ go ──▶ ready ──▶ old generation is stopped
//!                 │                  ▲
//!                 └──create──────────┘        any end ──▶ remove ──▶ back-off ──▶ no instance
//! ```

use crate::capacity::Need;
use crate::pool;
use crate::status::is_current;
use crate::world::{Plan, Scope, Step, Target, Waiting, World};
use hearth_model::{
    Assignment, Instance, InstanceId, InstanceState, Job, JobId, Lifecycle, Mono, Phase,
    Resolution, Wanted,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What to do next. Pure: the same world gives the same plan.
#[must_use]
pub fn plan(world: &World<'_>, scope: &Scope) -> Plan {
    let mut planner = Planner::new(world);
    match scope {
        Scope::Job(id) => {
            if let Some(job) = world.jobs.get(id) {
                planner.job(job);
            }
        }
        Scope::All => {
            planner.ended();
            world.jobs.values().for_each(|job| planner.job(job));
            planner.strays();
            planner.make_room();
            pool::plan(&mut planner);
        }
    }
    planner.plan
}

/// A plan in the making: what it took from the world is no longer there for the next job.
pub(crate) struct Planner<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) plan: Plan,
    /// Live instances by job.
    by_job: BTreeMap<&'a JobId, Vec<&'a Instance>>,
    /// Instances that the plan has a step for already: there is never a second.
    pub(crate) taken: BTreeSet<InstanceId>,
    /// What is left of the host.
    pub(crate) room: Need,
    /// What jobs that wait for capacity lack; pools leave it alone.
    pub(crate) owed: Need,
    /// How many more may boot now.
    pub(crate) boots_left: usize,
}

impl<'a> Planner<'a> {
    fn new(world: &'a World<'a>) -> Planner<'a> {
        let mut by_job: BTreeMap<&JobId, Vec<&Instance>> = BTreeMap::new();
        let mut used = Need::default();
        let mut booting = 0;
        for instance in world.instances.values().filter(|instance| instance.exit().is_none()) {
            used = used.plus(world.capacity.need(instance.spec.resources));
            booting += usize::from(matches!(instance.state, None | Some(InstanceState::Booting)));
            if let Some(job) = instance.job() {
                by_job.entry(job).or_default().push(instance);
            }
        }
        Planner {
            world,
            plan: Plan::default(),
            by_job,
            taken: BTreeSet::new(),
            room: world.capacity.total().minus(used),
            owed: Need::default(),
            boots_left: world.limits.boots_max.saturating_sub(booting),
        }
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    pub(crate) fn wake_at(&mut self, at: Mono) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(crate) fn stop(&mut self, instance: &Instance, reason: impl Into<String>) {
        self.end(instance, reason.into(), false);
    }

    /// Stops an instance that nothing is being done to; one that is busy is met again.
    pub(crate) fn end(&mut self, instance: &Instance, reason: String, failed: bool) {
        if !instance.busy && self.taken.insert(instance.id.clone()) {
            self.step(Step::Stop { instance: instance.id.clone(), reason, failed });
        }
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
    fn ended(&mut self) {
        let world = self.world;
        for instance in world.instances.values().filter(|i| i.exit().is_some() && !i.busy) {
            self.step(Step::Remove { instance: instance.id.clone() });
        }
    }

    /// Instances of jobs that are no more, and stops that must be said again.
    fn strays(&mut self) {
        let world = self.world;
        for instance in world.instances.values().filter(|i| i.exit().is_none()) {
            if let Some(reason) = &instance.stopping {
                self.stop(instance, reason.clone());
            } else if instance.job().is_some_and(|job| !world.jobs.contains_key(job)) {
                self.stop(instance, "its job is gone");
            }
        }
    }

    fn job(&mut self, job: &'a Job) {
        let live = self.by_job.get(&job.id).cloned().unwrap_or_default();
        match job.wanted {
            Wanted::Deleted | Wanted::Stopped => {
                for instance in live.iter().filter(|instance| instance.stopping.is_none()) {
                    let reason = match job.wanted {
                        Wanted::Deleted => "its job is deleted",
                        _ => "its job is stopped",
                    };
                    self.stop(instance, reason);
                }
                let of_job = |i: &Instance| i.job() == Some(&job.id);
                if job.wanted == Wanted::Deleted && !self.world.instances.values().any(of_job) {
                    self.step(Step::Forget { job: job.id.clone() });
                }
            }
            Wanted::Running if job.outcome.is_some() => {
                for instance in live.iter().filter(|instance| instance.stopping.is_none()) {
                    self.stop(instance, "its job is over");
                }
            }
            Wanted::Running => self.run(job, &live),
        }
    }

    fn run(&mut self, job: &'a Job, live: &[&'a Instance]) {
        let current: Vec<&Instance> =
            live.iter().copied().filter(|instance| is_current(instance, job)).collect();
        let old: Vec<&Instance> =
            live.iter().copied().filter(|instance| !is_current(instance, job)).collect();
        let beside = job.spec.lifecycle == Lifecycle::Service;
        if !beside {
            self.stop_old(&old, "it is replaced by a newer generation");
        }
        if let Some((instance, surplus)) = current.split_first() {
            surplus.iter().for_each(|instance| self.stop(instance, "one instance is enough"));
            self.bring_up(job, instance, &old);
            return;
        }
        if let Resolution::Failed(_) = job.resolution {
            match job.not_before {
                Some(at) if at > self.world.now => {
                    self.wait(job, Waiting::BackOff(at));
                }
                _ => self.step(Step::Resolve { job: job.id.clone() }),
            }
            return;
        }
        if let Some(at) = job.not_before.filter(|at| *at > self.world.now) {
            self.wait(job, Waiting::BackOff(at));
            return;
        }
        if let Some(warm) = self.claimable(job, beside || old.is_empty()) {
            self.taken.insert(warm.id.clone());
            self.step(Step::Claim { instance: warm.id.clone(), job: job.id.clone() });
            return;
        }
        if !beside && !old.is_empty() {
            self.wait(job, Waiting::Predecessor);
            return;
        }
        self.create(job);
    }

    fn wait(&mut self, job: &Job, waiting: Waiting) {
        if let Waiting::BackOff(at) = waiting {
            self.wake_at(at);
        }
        self.plan.waiting.insert(job.id.clone(), waiting);
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
        self.world.instances.values().find(|instance| {
            let Assignment::Pool(pool) = &instance.assignment else { return false };
            let held = matches!(instance.state, Some(InstanceState::Up { phase: Phase::Held, .. }));
            *pool == key
                && instance.is_warm()
                && !instance.busy
                && (alone || held)
                && !self.taken.contains(&instance.id)
        })
    }

    fn create(&mut self, job: &Job) {
        let need = self.world.capacity.need(job.spec.resources);
        if !need.fits(self.room) {
            let total = self.world.capacity.total();
            if need.fits(total) {
                self.owed = self.owed.plus(need);
            }
            self.wait(job, Waiting::Capacity { need, total });
        } else if self.boots_left == 0 {
            self.room = self.room.minus(need);
            self.wait(job, Waiting::Turn);
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
        let limits = self.world.limits;
        let Some(InstanceState::Up { phase, told, ready_detail, .. }) = &instance.state else {
            let booting = instance.state.is_some();
            if booting && self.overdue(instance.created_at, limits.boot) {
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
        if *told != Some(job.run) {
            if let Some(at) = claimed_at.filter(|_| instance.spec.boot == hearth_model::Boot::Init)
                && self.overdue(at, limits.claim)
            {
                self.stop(instance, "the guest did not take its identity in time");
                return;
            }
            self.tell(instance, old.is_empty() || *phase == Phase::Running);
            return;
        }
        if *phase == Phase::Held {
            if old.is_empty() || job.spec.lifecycle == Lifecycle::Service {
                self.tell(instance, true);
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

    fn tell(&mut self, instance: &Instance, go: bool) {
        if !instance.busy && self.taken.insert(instance.id.clone()) {
            self.step(Step::Tell { instance: instance.id.clone(), go });
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
    fn make_room(&mut self) {
        let mut lacking = self.owed.minus(self.room);
        let leaving = self
            .world
            .instances
            .values()
            .filter(|instance| instance.exit().is_none() && instance.stopping.is_some());
        for instance in leaving {
            lacking = lacking.minus(self.world.capacity.need(instance.spec.resources));
        }
        for instance in self.world.instances.values() {
            if lacking == Need::default() {
                return;
            }
            let spare = matches!(instance.assignment, Assignment::Pool(_))
                && instance.stopping.is_none()
                && instance.exit().is_none()
                && !instance.busy
                && !self.taken.contains(&instance.id);
            if spare {
                lacking = lacking.minus(self.world.capacity.need(instance.spec.resources));
                self.stop(instance, "a job needs its room");
            }
        }
    }
}
