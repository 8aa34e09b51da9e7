//! Plans of random worlds: each keeps the invariants that are asserted before it is carried out.

use hearth_model::{
    Assignment, Creation, Digest, End, Exit, Generation, Images, Instance, InstanceId,
    InstanceState, Job, JobId, Lifecycle, Mono, Outcome, Phase, PoolKey, PoolTenant, Progress,
    Resolution, Slot, Spec, SpecHash, Stage, Tenant, Value, Wanted,
};
use hearth_planner::{
    Busy, Capacity, Fleet, Limits, Plan, PoolHealth, Queue, Scope, Step, Subject, Target, Verdict,
    World, check, plan, status, verdict,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const NOW: Mono = Mono(Duration::from_secs(5000));

fn spec(lifecycle: &str, pool: u32) -> Spec {
    let size = vec![("vcpu".into(), Value::Int(1)), ("mem_mb".into(), Value::Int(100))];
    let fields = vec![
        ("rootfs".into(), "r.ext4".into()),
        ("kernel".into(), "vmlinux".into()),
        ("cmd".into(), Value::List(vec!["/app".into()])),
        ("resources".into(), Value::Map(size)),
        ("lifecycle".into(), lifecycle.into()),
        ("warm_pool".into(), Value::Map(vec![("min".into(), pool.into())])),
    ];
    Spec::read(&Value::Map(fields)).unwrap()
}

fn hash(number: u8) -> SpecHash {
    SpecHash([number; 32])
}

fn images() -> Images {
    Images { kernel: Digest([0; 32]), modules: None, rootfs: None }
}

fn job(number: u8, lifecycle: &str, pool: u32, kind: u8) -> Job {
    let id = JobId::parse(&format!("job-{number}")).unwrap();
    Job {
        tenant: Tenant::parse(id.as_str()).unwrap(),
        id,
        tenant_given: false,
        generation: Generation(3),
        run: Generation(2),
        spec: Arc::new(spec(lifecycle, pool)),
        wanted: match kind {
            1 => Wanted::Stopped,
            2 => Wanted::Deleted,
            _ => Wanted::Running,
        },
        progress: Progress {
            outcome: (kind == 3).then_some(Outcome::Completed),
            not_before: (kind == 5).then_some(NOW.after(Duration::from_secs(9))),
            ..Progress::begun(if kind == 4 {
                Resolution::Failed("gone".to_owned())
            } else {
                Resolution::Known { images: images(), hash: hash(number % 2) }
            })
        },
    }
}

fn state(kind: u8) -> Option<InstanceState> {
    let up = |phase, ready, acknowledged| {
        Some(InstanceState::Up { phase, ready, acknowledged, ready_detail: None })
    };
    match kind {
        0 => None,
        1 => Some(InstanceState::Booting),
        2 => up(Phase::Held, false, None),
        3 => up(Phase::Running, true, Some(Generation(2))),
        4 => up(Phase::Running, false, Some(Generation(2))),
        5 => up(Phase::Running, true, None),
        6 => up(Phase::Stopping, true, Some(Generation(2))),
        _ => Some(InstanceState::Exited(Exit { end: End::Code(1), stop_requested: false })),
    }
}

prop_compose! {
    fn instances()(
        raw in proptest::collection::vec(
            (0u8..8, 0u8..9, 1u64..4, any::<bool>(), 0u64..6000), 0..24)
    ) -> BTreeMap<InstanceId, Instance> {
        raw.into_iter().enumerate().map(|(at, (owner, kind, run, stopping, age))| {
            let id = InstanceId::parse(&format!("i{at}")).unwrap();
            let assignment = if owner < 4 {
                let job = JobId::parse(&format!("job-{owner}")).unwrap();
                let claimed_at = (run == 2).then_some(NOW);
                Assignment::Job { job, run: Generation(run), claimed_at }
            } else {
                Assignment::Pool(PoolKey { tenant: PoolTenant::Shared, hash: hash(owner % 3) })
            };
            let instance = Instance {
                id: id.clone(),
                slot: Slot(u32::try_from(at).unwrap()),
                assignment,
                hash: hash(owner % 2),
                images: images(),
                spec: Arc::new(spec("service", 0)),
                stage: if kind == 2 { Stage::Init } else { Stage::App },
                created_at: Mono(NOW.0.saturating_sub(Duration::from_secs(age))),
                seen_at: None,
                awaiting_first_report: false,
                silence: 0,
                unconfined: false,
                running_since: None,
                ready_since: None,
                oom_kills: 0,
                oom_told_at: None,
                assign_failure: None,
                stopping: stopping.then(|| "because".to_owned()),
                state: state(kind),
                creation: Creation::Confirmed,
            };
            (id, instance)
        }).collect()
    }
}

prop_compose! {
    fn jobs()(
        raw in proptest::collection::vec((0usize..3, 0u32..3, 0u8..6), 0..4)
    ) -> BTreeMap<JobId, Job> {
        raw.into_iter().enumerate().map(|(at, (lifecycle, pool, kind))| {
            let lifecycle = ["service", "daemon", "job"][lifecycle];
            let job = job(u8::try_from(at).unwrap(), lifecycle, pool, kind);
            (job.id.clone(), job)
        }).collect()
    }
}

fn fleet(jobs: &BTreeMap<JobId, Job>, instances: &BTreeMap<InstanceId, Instance>) -> Fleet {
    let mut fleet = Fleet::default();
    jobs.values().cloned().for_each(|job| fleet.insert_job(job));
    instances.values().cloned().for_each(|instance| fleet.insert_instance(instance));
    fleet
}

fn world<'a>(
    fleet: &'a Fleet,
    pools: &'a BTreeMap<PoolKey, PoolHealth>,
    memory_mib: u64,
) -> World<'a> {
    let capacity = Capacity { vcpus: 64, memory_mib, overhead_mib: 5, scratch_mib: None };
    World { now: NOW, fleet, pools, capacity, limits: Limits::default(), busy: &EveryOther }
}

/// Busy are the instances of odd numbers.
#[derive(Debug)]
struct EveryOther;

impl Busy for EveryOther {
    fn is_busy(&self, instance: &InstanceId) -> bool {
        instance.as_str().ends_with(['1', '3', '5', '7', '9'])
    }
}

proptest! {
    #[test]
    fn every_plan_keeps_its_invariants_and_is_the_same_again(
        jobs in jobs(), instances in instances(), memory_mib in 0u64..4000,
    ) {
        let pools = BTreeMap::new();
        let fleet = fleet(&jobs, &instances);
        let world = world(&fleet, &pools, memory_mib);
        let first = plan(&world, Scope::All);
        prop_assert_eq!(check(&world, &first), Ok(()));
        prop_assert_eq!(plan(&world, Scope::All), first);
        for job in jobs.values() {
            let one = plan(&world, Scope::Job(&job.id));
            prop_assert_eq!(check(&world, &one), Ok(()));
            let _ = status(&fleet, job, None);
        }
    }

    #[test]
    fn finished_stopped_deleted_or_waiting_jobs_create_nothing(
        jobs in jobs(), instances in instances(),
    ) {
        let pools = BTreeMap::new();
        let fleet = fleet(&jobs, &instances);
        let world = world(&fleet, &pools, 100_000);
        for step in plan(&world, Scope::All).steps {
            if let Step::Create(Target::Job(id)) | Step::Claim { job: id, .. } = step {
                let job = &jobs[&id];
                prop_assert_eq!(job.wanted, Wanted::Running);
                prop_assert!(job.progress.outcome.is_none() && job.progress.not_before.is_none());
            }
        }
    }

    /// A plan for all that are due is the plan for all: nothing is forgotten where the
    /// indexes are used, and what is not due has no step.
    #[test]
    fn plan_for_all_due_subjects_is_the_plan_for_all(
        jobs in jobs(), instances in instances(), memory_mib in 0u64..4000,
    ) {
        let mut fleet = fleet(&jobs, &instances);
        let due = fleet.take_due();
        let (pools, queue) = (BTreeMap::new(), Queue::default());
        let world = world(&fleet, &pools, memory_mib);
        let scope = Scope::Some { jobs: &due.jobs, pools: &due.pools, queue: &queue };
        let (mut some, mut all) = (plan(&world, scope), plan(&world, Scope::All));
        // Jobs that are gone come last in one and by name in the other; what they get is the same.
        let order = |plan: &mut Plan| plan.steps.sort_by_key(|step| format!("{step:?}"));
        order(&mut some);
        order(&mut all);
        prop_assert_eq!(some.steps, all.steps);
    }

    /// Whatever happened to a fleet, its indexes are those of one that is rebuilt.
    #[test]
    fn changed_fleet_equals_a_rebuilt_one(
        jobs in jobs(), instances in instances(), others in instances(),
        changes in proptest::collection::vec((0usize..24, 0u8..6, 0u8..9), 0..40),
    ) {
        let mut changed = fleet(&jobs, &instances);
        let (mut jobs, mut instances) = (jobs, instances);
        for (at, what, kind) in changes {
            let id = InstanceId::parse(&format!("i{at}")).unwrap();
            let job_id = JobId::parse(&format!("job-{}", at % 4)).unwrap();
            match what {
                0 => {
                    instances.remove(&id);
                    changed.remove_instance(&id);
                }
                1 => if let (Some(other), false) = (others.get(&id), instances.contains_key(&id)) {
                    instances.insert(id, other.clone());
                    changed.insert_instance(other.clone());
                },
                2 => if let (Some(known), Some(other)) = (instances.get_mut(&id), others.get(&id)) {
                    let new = Instance { slot: known.slot, state: state(kind), ..other.clone() };
                    known.clone_from(&new);
                    changed.change_instance(&id, |instance| *instance = new);
                },
                3 => {
                    jobs.remove(&job_id);
                    changed.remove_job(&job_id);
                }
                _ => {
                    let pool = u32::from(what) - 3;
                    let new = job(u8::try_from(at % 4).unwrap(), "service", pool, kind);
                    if what == 4 || changed.change_job(&job_id, |job| *job = new.clone()).is_none() {
                        changed.insert_job(new.clone());
                    }
                    jobs.insert(job_id, new);
                }
            }
        }
        let rebuilt = fleet(&jobs, &instances);
        prop_assert_eq!(changed.jobs(), rebuilt.jobs());
        prop_assert_eq!(changed.instances(), rebuilt.instances());
        let pools = BTreeMap::new();
        let [left, right] = [&changed, &rebuilt].map(|fleet| plan(&world(fleet, &pools, 2000), Scope::All));
        prop_assert_eq!(left, right);
        let capacity = world(&rebuilt, &pools, 2000).capacity;
        prop_assert_eq!(changed.used(&capacity), rebuilt.used(&capacity));
        let taken = |slot| instances.values().any(|instance| instance.slot == slot);
        prop_assert!(!taken(changed.free_slot()));
        prop_assert!((0..changed.free_slot().0).all(|below| taken(Slot(below))));
    }
}

#[test]
fn queue_is_planned_although_other_subjects_are_due() {
    let jobs: BTreeMap<_, _> =
        [job(0, "service", 0, 0), job(1, "service", 0, 0)].map(|job| (job.id.clone(), job)).into();
    let mut fleet = fleet(&jobs, &BTreeMap::new());
    let pools = BTreeMap::new();
    let queue = Queue { jobs: fleet.take_due().jobs, ..Queue::default() };
    let scope = |jobs, pools| Scope::Some { jobs, pools, queue: &queue };
    let small = world(&fleet, &pools, 110);
    let made = plan(&small, scope(&[].into(), &[].into()));
    assert_eq!(made.steps.len(), 1, "one fits: {:?}", made.steps);
    let waiting: Vec<_> =
        made.next_checks.iter().filter(|(_, next_check)| next_check.waiting.is_some()).collect();
    assert_eq!(waiting[0].0, Subject::Job(JobId::parse("job-1").unwrap()));
}

#[test]
fn the_check_refuses_what_no_plan_may_do() {
    let jobs: BTreeMap<_, _> = [job(0, "service", 0, 0)].map(|job| (job.id.clone(), job)).into();
    let (fleet, pools) = (fleet(&jobs, &BTreeMap::new()), BTreeMap::new());
    let create = Step::Create(Target::Job(JobId::parse("job-0").unwrap()));
    let twice = Plan { steps: vec![create.clone(), create], ..Plan::default() };
    let small = world(&fleet, &pools, 105);
    assert!(check(&small, &twice).unwrap_err().0.contains("exceeds the capacity"));
    let unknown = Step::Remove { instance: InstanceId::parse("x").unwrap() };
    let plan = Plan { steps: vec![unknown], ..Plan::default() };
    assert!(check(&small, &plan).unwrap_err().0.contains("unknown instance"));
}

#[test]
fn what_an_end_means_depends_on_the_lifecycle_and_on_who_asked() {
    let mut instance = Instance {
        id: InstanceId::parse("i").unwrap(),
        slot: Slot(0),
        assignment: Assignment::Job {
            job: JobId::parse("job-0").unwrap(),
            run: Generation(2),
            claimed_at: None,
        },
        hash: hash(0),
        images: images(),
        spec: Arc::new(spec("service", 0)),
        stage: Stage::App,
        created_at: NOW,
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
        creation: Creation::Confirmed,
    };
    let exit = |end: End| Exit { end, stop_requested: false };
    let service = job(0, "service", 0, 0);
    let once = job(0, "job", 0, 0);
    assert_eq!(once.spec.lifecycle, Lifecycle::Job);
    let over = |outcome| Verdict::Over(outcome);
    let again = |verdict: Verdict| matches!(verdict, Verdict::Again { .. });
    assert_eq!(verdict(&once, &instance, &exit(End::Code(0)), NOW), over(Outcome::Completed));
    assert_eq!(
        verdict(&once, &instance, &exit(End::Unknown), NOW),
        over(Outcome::Failed("exit unknown".to_owned())),
        "an exit that could not be learned is never success"
    );
    assert!(again(verdict(&once, &instance, &exit(End::NeverStarted), NOW)));
    assert!(again(verdict(&service, &instance, &exit(End::Code(0)), NOW)));
    instance.stopping = Some("replaced".to_owned());
    assert_eq!(verdict(&service, &instance, &exit(End::Signal(15)), NOW), Verdict::Nothing);
    instance.assignment = Assignment::Job {
        job: JobId::parse("job-0").unwrap(),
        run: Generation(1),
        claimed_at: None,
    };
    assert_eq!(verdict(&once, &instance, &exit(End::Code(3)), NOW), Verdict::Nothing);
}
