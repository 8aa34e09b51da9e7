//! Plans of random worlds: each keeps the invariants that are asserted before it is carried out.

use hearth_model::{
    Assignment, Digest, End, Exit, Generation, Images, Instance, InstanceId, InstanceState, Job,
    JobId, Lifecycle, Mono, Outcome, Phase, PoolKey, PoolTenant, Resolution, Slot, Spec, SpecHash,
    Stage, Tenant, Value, Wanted,
};
use hearth_planner::{
    Capacity, Limits, Plan, PoolHealth, Scope, Step, Target, Verdict, World, check, plan, status,
    verdict,
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
        resolution: if kind == 4 {
            Resolution::Failed("gone".to_owned())
        } else {
            Resolution::Known { images: images(), hash: hash(number % 2) }
        },
        wanted: match kind {
            1 => Wanted::Stopped,
            2 => Wanted::Deleted,
            _ => Wanted::Running,
        },
        outcome: (kind == 3).then_some(Outcome::Completed),
        failures: 0,
        not_before: (kind == 5).then_some(NOW.after(Duration::from_secs(9))),
        last_failure: None,
    }
}

fn state(kind: u8) -> Option<InstanceState> {
    let up =
        |phase, ready, told| Some(InstanceState::Up { phase, ready, told, ready_detail: None });
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
            (0u8..8, 0u8..9, 1u64..4, any::<bool>(), any::<bool>(), 0u64..6000), 0..24)
    ) -> BTreeMap<InstanceId, Instance> {
        raw.into_iter().enumerate().map(|(at, (owner, kind, run, busy, stopping, age))| {
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
                running_since: None,
                ready_since: None,
                stopping: stopping.then(|| "because".to_owned()),
                state: state(kind),
                busy,
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

fn world<'a>(
    jobs: &'a BTreeMap<JobId, Job>,
    instances: &'a BTreeMap<InstanceId, Instance>,
    pools: &'a BTreeMap<PoolKey, PoolHealth>,
    memory_mib: u64,
) -> World<'a> {
    let capacity = Capacity { vcpus: 64, memory_mib, overhead_mib: 5 };
    World { now: NOW, jobs, instances, pools, capacity, limits: Limits::default() }
}

proptest! {
    #[test]
    fn every_plan_keeps_its_invariants_and_is_the_same_again(
        jobs in jobs(), instances in instances(), memory_mib in 0u64..4000,
    ) {
        let pools = BTreeMap::new();
        let world = world(&jobs, &instances, &pools, memory_mib);
        let first = plan(&world, &Scope::All);
        prop_assert_eq!(check(&world, &first), Ok(()));
        prop_assert_eq!(plan(&world, &Scope::All), first);
        for job in jobs.values() {
            let one = plan(&world, &Scope::Job(job.id.clone()));
            prop_assert_eq!(check(&world, &one), Ok(()));
            let _ = status(&world, job, None);
        }
    }

    #[test]
    fn nothing_is_created_for_jobs_that_are_over_stopped_deleted_or_backing_off(
        jobs in jobs(), instances in instances(),
    ) {
        let pools = BTreeMap::new();
        let world = world(&jobs, &instances, &pools, 100_000);
        for step in plan(&world, &Scope::All).steps {
            if let Step::Create(Target::Job(id)) | Step::Claim { job: id, .. } = step {
                let job = &jobs[&id];
                prop_assert_eq!(job.wanted, Wanted::Running);
                prop_assert!(job.outcome.is_none() && job.not_before.is_none());
            }
        }
    }
}

#[test]
fn the_check_refuses_what_no_plan_may_do() {
    let jobs: BTreeMap<_, _> = [job(0, "service", 0, 0)].map(|job| (job.id.clone(), job)).into();
    let (instances, pools) = (BTreeMap::new(), BTreeMap::new());
    let create = Step::Create(Target::Job(JobId::parse("job-0").unwrap()));
    let twice = Plan { steps: vec![create.clone(), create], ..Plan::default() };
    let small = world(&jobs, &instances, &pools, 105);
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
        running_since: None,
        ready_since: None,
        stopping: None,
        state: None,
        busy: false,
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
