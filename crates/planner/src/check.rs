//! The invariants of a plan, checked before it is carried out. A plan that breaks one is a defect
//! of the planner and must not reach the host.

use crate::world::{Plan, Step, Target, World};
use hearth_model::{Assignment, Instance, InstanceId};
use std::collections::BTreeSet;

/// A plan's invariant that does not hold, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// Checks a plan against the world that it was made of.
///
/// # Errors
/// The first [`Violation`]: an instance is acted on twice or while it is busy; a claim takes an
/// instance that is not warm, or of another pool; a creation exceeds the capacity; a job that has
/// an instance of its current generation gets another.
pub fn check(world: &World<'_>, plan: &Plan) -> Result<(), Violation> {
    let mut touched: BTreeSet<&InstanceId> = BTreeSet::new();
    let mut left = world.capacity.total().minus(world.fleet.used(&world.capacity));
    for step in &plan.steps {
        if let Some(instance) = acted_on(step) {
            let known = world.fleet.instance(instance);
            require(known.is_some(), || format!("{step:?} names an unknown instance"))?;
            let busy = world.busy.is_busy(instance);
            require(!busy, || format!("{step:?} while it is busy"))?;
            require(touched.insert(instance), || format!("{step:?} is a second step on it"))?;
        }
        match step {
            Step::Claim { instance, job } => {
                let (instance, job) =
                    (&world.fleet.instances()[instance], &world.fleet.jobs()[job]);
                let pool = matches!((&instance.assignment, job.pool_key()),
                    (Assignment::Pool(key), Some(wanted)) if *key == wanted);
                require(instance.is_warm() && pool, || format!("{step:?} of an unfit instance"))?;
            }
            Step::Create(target) => {
                let job = match target {
                    Target::Job(id) => {
                        let job = &world.fleet.jobs()[id];
                        let has = |i: &Instance| crate::status::is_current(i, job);
                        let double = world.fleet.of_job(id).any(has);
                        require(!double, || format!("{step:?} beside a current instance"))?;
                        Some(job)
                    }
                    Target::Pool(key) => world.fleet.job_of_pool(key),
                };
                let job = job.ok_or_else(|| Violation(format!("{step:?} without a job")))?;
                let need = world.capacity.need(&job.spec);
                require(need.fits(left), || format!("{step:?} exceeds the capacity"))?;
                left = left.minus(need);
            }
            _ => {}
        }
    }
    Ok(())
}

fn acted_on(step: &Step) -> Option<&InstanceId> {
    match step {
        Step::Claim { instance, .. }
        | Step::AssignIdentity { instance, .. }
        | Step::Stop { instance, .. }
        | Step::Remove { instance } => Some(instance),
        Step::Create(_) | Step::Resolve { .. } | Step::TimeOut { .. } | Step::Forget { .. } => None,
    }
}

fn require(holds: bool, violation: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(violation())) }
}
