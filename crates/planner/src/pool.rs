//! Warm pools: how many spare instances there are to be of each kind.

use crate::plan::Planner;
use crate::world::{Step, Target};
use hearth_model::{
    Assignment, Instance, InstanceState, Job, Lifecycle, Outcome, PoolKey, Resolution, Wanted,
};
use std::collections::BTreeMap;

/// How many spare instances a pool is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Kept.
    pub(crate) min: u32,
    /// Allowed. A target between the two may follow demand one day; until then it is `min`.
    pub(crate) max: u32,
}

/// The pools that jobs want. Those that share one get the largest of their bounds.
pub(crate) fn wanted<'a>(jobs: impl Iterator<Item = &'a Job>) -> BTreeMap<PoolKey, Bounds> {
    let mut pools: BTreeMap<PoolKey, Bounds> = BTreeMap::new();
    for job in jobs.filter(|job| job.wanted == Wanted::Running) {
        let (Some(key), (min, max)) = (job.pool_key(), job.spec.pool_bounds()) else { continue };
        // A `job` that failed for good would fail again in a pool; one that completed may be run
        // again any time.
        let over =
            job.spec.lifecycle == Lifecycle::Job && matches!(job.outcome, Some(Outcome::Failed(_)));
        if max == 0 || over || matches!(job.resolution, Resolution::Failed(_)) {
            continue;
        }
        let bounds = pools.entry(key).or_default();
        bounds.min = bounds.min.max(min);
        bounds.max = bounds.max.max(max);
    }
    pools
}

pub(crate) fn plan(planner: &mut Planner<'_>) {
    let world = planner.world;
    let wanted = wanted(world.jobs.values());
    let mut members: BTreeMap<&PoolKey, Vec<&Instance>> = BTreeMap::new();
    for instance in world.instances.values().filter(|i| i.exit().is_none()) {
        let Assignment::Pool(key) = &instance.assignment else { continue };
        if instance.stopping.is_some() || planner.taken.contains(&instance.id) {
            continue;
        }
        match wanted.get(key) {
            Some(_) => members.entry(key).or_default().push(instance),
            None => planner.stop(instance, "no job wants its pool"),
        }
    }
    for (key, bounds) in &wanted {
        let mut members = members.remove(key).unwrap_or_default();
        members.retain(|instance| !late(planner, instance));
        // The ones that are furthest come first, so that a surplus ends those that have cost least.
        members.sort_by_key(|instance| (!instance.is_warm(), instance.created_at));
        let target = bounds.min as usize;
        for instance in members.iter().skip(bounds.max.max(bounds.min) as usize) {
            planner.stop(instance, "its pool is above its maximum");
        }
        if members.len() < target {
            fill(planner, key, target - members.len());
        }
    }
}

/// Ends a pool instance that has not become warm in its time.
fn late(planner: &mut Planner<'_>, instance: &Instance) -> bool {
    let limits = planner.world.limits;
    let (since, limit, what) = match &instance.state {
        Some(InstanceState::Booting) => {
            (instance.created_at, limits.boot, "the guest did not report".to_owned())
        }
        Some(InstanceState::Up { ready: false, ready_detail, .. }) if !instance.is_warm() => {
            let seconds = instance.spec.ready.as_ref().map_or(60, |ready| ready.timeout_s);
            let detail = ready_detail.as_deref().unwrap_or("its check has not passed");
            (
                instance.running_since.unwrap_or(planner.world.now),
                std::time::Duration::from_secs(u64::from(seconds)) * limits.time_factor,
                format!("not ready: {detail}"),
            )
        }
        _ => return false,
    };
    if !planner.overdue(since, limit) {
        return false;
    }
    planner.end(instance, format!("{what} within {} s", limit.as_secs()), true);
    true
}

fn fill(planner: &mut Planner<'_>, key: &PoolKey, missing: usize) {
    if let Some(health) = planner.world.pools.get(key)
        && health.not_before > planner.world.now
    {
        planner.wake_at(health.not_before);
        return;
    }
    let Some(job) = planner.world.jobs.values().find(|job| job.pool_key().as_ref() == Some(key))
    else {
        return;
    };
    let need = planner.world.capacity.need(job.spec.resources);
    for _ in 0..missing {
        if planner.boots_left == 0 || !need.plus(planner.owed).fits(planner.room) {
            return;
        }
        planner.room = planner.room.minus(need);
        planner.boots_left -= 1;
        planner.step(Step::Create(Target::Pool(key.clone())));
    }
}
