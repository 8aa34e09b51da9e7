//! Warm pools: how many spare instances there are to be of each kind.

use crate::plan::Planner;
use crate::world::{Step, Target};
use hearth_model::{Instance, InstanceState, PoolKey};

/// Plans for one pool and its instances that have not ended.
pub(crate) fn plan(planner: &mut Planner<'_>, key: &PoolKey, live: &[&Instance]) {
    let staying = live.iter().copied().filter(|instance| instance.stopping.is_none());
    let mut members: Vec<&Instance> =
        staying.filter(|instance| !planner.taken.contains(&instance.id)).collect();
    let Some(bounds) = planner.world.fleet.bounds(key) else {
        members.iter().for_each(|instance| planner.stop(instance, "no job wants its pool"));
        return;
    };
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

/// Ends a pool instance that has not become warm in its time, or whose VMM does not answer.
fn late(planner: &mut Planner<'_>, instance: &Instance) -> bool {
    if planner.end_silent(instance, true) {
        return true;
    }
    let limits = planner.world.limits;
    let (since, limit, what) = match &instance.state {
        Some(InstanceState::Booting) => {
            let since = instance.deadline_start(instance.created_at);
            (since, limits.boot, "the guest did not report".to_owned())
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
    let Some(job) = planner.world.fleet.job_of_pool(key) else { return };
    let need = planner.world.capacity.need(&job.spec);
    for _ in 0..missing {
        if planner.boots_left == 0 || !need.plus(planner.reserved).fits(planner.room) {
            planner.next_check.unfilled = true;
            return;
        }
        planner.room = planner.room.minus(need);
        planner.boots_left -= 1;
        planner.step(Step::Create(Target::Pool(key.clone())));
    }
}
