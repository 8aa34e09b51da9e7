//! What is asked of jobs, instances and actions.

use hearth_model::{
    Action, Assignment, Boot, Create, CreatedInstance, Creation, Delivery, Digest, End, Exit,
    Generation, Identity, Images, Instance, InstanceId, InstanceState, Job, JobId, Machine, Mono,
    Owner, Phase, PoolKey, PoolTenant, Progress, Resolution, Signal, Slot, Spec, SpecHash, Stage,
    Tenant, Value, Wanted,
};
use std::sync::Arc;

fn spec() -> Arc<Spec> {
    let size = vec![("vcpu".to_owned(), 1.into()), ("mem_mb".to_owned(), 64.into())];
    let fields = vec![
        ("kernel".to_owned(), "k".into()),
        ("boot".to_owned(), "raw".into()),
        ("lifecycle".to_owned(), "daemon".into()),
        ("resources".to_owned(), Value::Map(size)),
    ];
    Arc::new(Spec::read(&Value::Map(fields)).unwrap())
}

fn images() -> Images {
    Images { kernel: Digest([1; 32]), modules: None, rootfs: None }
}

fn hash() -> SpecHash {
    SpecHash([7; 32])
}

fn job() -> Job {
    Job {
        id: JobId::parse("web").unwrap(),
        tenant: Tenant::parse("t").unwrap(),
        tenant_given: true,
        generation: Generation(3),
        run: Generation(2),
        spec: spec(),
        wanted: Wanted::Running,
        progress: Progress::begun(Resolution::Known { images: images(), hash: hash() }),
    }
}

fn pool() -> Assignment {
    Assignment::Pool(PoolKey { tenant: PoolTenant::Shared, hash: hash() })
}

fn serving() -> Assignment {
    let job = JobId::parse("web").unwrap();
    Assignment::Job { job, run: Generation(2), claimed_at: None }
}

fn instance(assignment: Assignment, stage: Stage, state: Option<InstanceState>) -> Instance {
    Instance {
        id: InstanceId::parse("abc").unwrap(),
        slot: Slot(0),
        assignment,
        hash: hash(),
        images: images(),
        spec: spec(),
        stage,
        created_at: Mono::default(),
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
        state,
        creation: Creation::Confirmed,
    }
}

fn up(phase: Phase, ready: bool, acknowledged: Option<u64>) -> Option<InstanceState> {
    let acknowledged = acknowledged.map(Generation);
    Some(InstanceState::Up { phase, ready, acknowledged, ready_detail: None })
}

fn exited() -> Option<InstanceState> {
    Some(InstanceState::Exited(Exit { end: End::Code(7), stop_requested: false }))
}

#[test]
fn pool_is_known_once_images_are_and_has_the_given_tenant() {
    let known = job();
    assert_eq!(known.hash(), Some(hash()));
    let named = PoolTenant::Named(known.tenant.clone());
    assert_eq!(known.pool_key(), Some(PoolKey { tenant: named, hash: hash() }));
    let shared = Job { tenant_given: false, ..job() };
    assert_eq!(shared.pool_key().unwrap().tenant, PoolTenant::Shared);
    let unknown = Job { progress: Progress::begun(Resolution::Failed("gone".to_owned())), ..job() };
    assert_eq!((unknown.hash(), unknown.pool_key()), (None, None));
}

#[test]
fn an_instance_is_shown_by_what_it_is_for() {
    let of_job = instance(serving(), Stage::App, None);
    assert_eq!((of_job.job().unwrap().as_str(), of_job.display_id()), ("web", "vm-abc".to_owned()));
    let of_pool = instance(pool(), Stage::App, None);
    assert_eq!((of_pool.job(), of_pool.display_id()), (None, "warm-abc".to_owned()));
}

#[test]
fn deadline_starts_no_earlier_than_the_first_observation() {
    let at = |seconds| Mono(std::time::Duration::from_secs(seconds));
    let new = instance(serving(), Stage::App, None);
    assert_eq!(new.deadline_start(at(3)), at(3));
    let seen = Instance { seen_at: Some(at(5)), ..new };
    assert_eq!((seen.deadline_start(at(3)), seen.deadline_start(at(7))), (at(5), at(7)));
}

#[test]
fn only_a_spare_instance_at_its_stage_that_stays_is_warm() {
    let warm = |stage, state| instance(pool(), stage, state).is_warm();
    assert!(warm(Stage::App, up(Phase::Running, true, None)));
    assert!(!warm(Stage::App, up(Phase::Running, false, None)), "its check has not passed");
    assert!(!warm(Stage::App, up(Phase::Held, true, None)));
    assert!(warm(Stage::Init, up(Phase::Held, false, None)));
    assert!(!warm(Stage::Init, up(Phase::Running, true, None)), "it would have run already");
    assert!(!warm(Stage::App, Some(InstanceState::Booting)) && !warm(Stage::Init, None));
    assert!(!warm(Stage::App, exited()));
    let ready = up(Phase::Running, true, None);
    assert!(!instance(serving(), Stage::App, ready.clone()).is_warm());
    let going = Some("it is going".to_owned());
    assert!(!Instance { stopping: going, ..instance(pool(), Stage::App, ready) }.is_warm());
}

#[test]
fn what_serves_runs_is_ready_and_knows_its_generation() {
    let serves = |state| instance(serving(), Stage::App, state).serves(Generation(2));
    assert!(serves(up(Phase::Running, true, Some(2))));
    assert!(!serves(up(Phase::Running, false, Some(2))));
    assert!(!serves(up(Phase::Running, true, Some(1))) && !serves(up(Phase::Running, true, None)));
    assert!(!serves(up(Phase::Held, true, Some(2))) && !serves(up(Phase::Stopping, true, Some(2))));
    assert!(!serves(exited()) && !serves(None));
}

#[test]
fn an_end_is_known_when_it_was_seen() {
    let ended = instance(serving(), Stage::App, exited());
    assert_eq!(ended.exit().map(|exit| &exit.end), Some(&End::Code(7)));
    assert!(ended.state.as_ref().unwrap().is_exited());
    let running = instance(serving(), Stage::App, up(Phase::Running, true, None));
    assert_eq!(running.exit(), None);
    assert!(!running.state.as_ref().unwrap().is_exited());
    assert!(instance(serving(), Stage::App, None).exit().is_none());
}

#[test]
fn an_action_names_its_instance_and_itself() {
    let id = InstanceId::parse("abc").unwrap();
    let identity = Identity { job_id: job().id, tenant: job().tenant, generation: Generation(2) };
    let create = Create {
        instance: id.clone(),
        slot: Slot(0),
        spec: spec(),
        machine: Machine::boot(&spec(), &images()),
        hash: hash(),
        stage: Stage::App,
        owner: Owner::Job(identity.clone()),
        workload: Delivery::Inline,
    };
    assert_eq!(create.owner.identity(), Some(&identity));
    assert_eq!(Owner::Pool(PoolTenant::Shared).identity(), None);
    let actions = [
        (Action::Create(Box::new(create)), "create"),
        (
            Action::AssignIdentity { instance: id.clone(), spec: spec(), identity, release: true },
            "assign-identity",
        ),
        (Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s: 1 }, "stop"),
        (Action::Remove { instance: id.clone() }, "remove"),
        (Action::DropLogs { instance: id.clone() }, "drop-logs"),
    ];
    for (action, name) in actions {
        assert_eq!((action.instance(), action.name()), (&id, name));
    }
}

#[test]
fn workload_is_late_only_in_a_pool_that_holds_it() {
    let pool = Owner::Pool(PoolTenant::Shared);
    let identity = Identity { job_id: job().id, tenant: job().tenant, generation: Generation(2) };
    let job = Owner::Job(identity);
    assert_eq!(Delivery::of(Boot::Init, Stage::Init, &pool), Delivery::Late);
    for (guest, stage, owner) in [
        (Boot::Init, Stage::App, &pool),
        (Boot::Init, Stage::Init, &job),
        (Boot::Init, Stage::App, &job),
        (Boot::Raw, Stage::Init, &pool),
    ] {
        assert_eq!(Delivery::of(guest, stage, owner), Delivery::Inline, "{guest:?} {stage:?}");
    }
}

#[test]
fn what_is_remembered_of_an_assignment_is_the_latest_generation() {
    let identity = |generation| Identity {
        job_id: job().id,
        tenant: job().tenant,
        generation: Generation(generation),
    };
    let of = |owner| CreatedInstance {
        owner,
        images: images(),
        stage: Stage::App,
        resources: spec().resources,
    };
    let generation =
        |made: CreatedInstance| made.owner.identity().map(|identity| identity.generation.0);
    let spare = of(Owner::Pool(PoolTenant::Shared));
    assert_eq!(generation(spare.assigned(&identity(2))), Some(2));
    let known = of(Owner::Job(identity(2)));
    assert_eq!(generation(known.assigned(&identity(1))), Some(2), "it does not forget");
    assert_eq!(generation(known.assigned(&identity(3))), Some(3));
}
