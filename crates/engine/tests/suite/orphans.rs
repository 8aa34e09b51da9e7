//! Instances that the host has and the database does not name.

use crate::world::{World, env, pool, spec};
use hearth_engine::{Accepted, Restart};
use hearth_host::Host;
use hearth_host::sim::SimConfig;
use hearth_model::{End, Generation, InstanceId, Job, JobId, Observed, Value};
use hearth_planner::Status;
use hearth_store::Sqlite;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(3);

fn slow() -> SimConfig {
    SimConfig { work: Duration::from_secs(3600), ..SimConfig::default() }
}

fn id(job: &str) -> JobId {
    JobId::parse(job).unwrap()
}

/// The run of a job, with its failures.
fn failures(job: &Job) -> (Generation, u32) {
    (job.run, job.progress.failures)
}

async fn on_host(world: &World) -> BTreeMap<InstanceId, Observed> {
    world.host.observe(None).await.unwrap().instances
}

/// The next daemon begins with an empty database.
async fn lose_the_database(world: World) -> World {
    let mut world = world.restart(Sqlite::in_memory().unwrap());
    world.run_for(A_WHILE).await;
    world
}

#[tokio::test(start_paused = true)]
async fn lost_database_stops_nothing_and_declared_jobs_are_adopted() {
    let mut world = World::with(slow(), Sqlite::in_memory().unwrap());
    let (web, worker, resize) =
        (spec("service", &[pool(1, 2)]), spec("daemon", &[]), spec("job", &[]));
    for tenant in [Some("prod"), Some("prod")] {
        world.post("web", tenant, &web).await.unwrap();
    }
    let newer = spec("service", &[pool(1, 2), env("2")]);
    world.post("web", Some("prod"), &newer).await.unwrap();
    world.post("worker", None, &worker).await.unwrap();
    world.post("resize", None, &resize).await.unwrap();
    world.run_for(A_WHILE).await;
    let claimed = world.post("web-2", Some("prod"), &newer).await.unwrap();
    assert_eq!(claimed.0, Accepted::Claimed);
    world.run_for(A_WHILE).await;
    let before = on_host(&world).await;
    assert_eq!(before.len(), 5, "three services and daemons, a job, a spare");
    let generation = world.get("web").await.generation;
    assert_eq!(generation, Generation(2));

    let mut world = lose_the_database(world).await;
    assert_eq!(on_host(&world).await, before, "no microVM is touched");
    let left = world.stats().await.unidentified;
    assert_eq!(left.len(), 5, "{left:?}");
    assert!(left.iter().any(|one| one.contains("of job web, generation 2")), "{left:?}");

    world.post("web", Some("prod"), &newer).await.unwrap();
    world.post("web-2", Some("prod"), &newer).await.unwrap();
    world.post("worker", None, &worker).await.unwrap();
    world.post("resize", None, &resize).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(on_host(&world).await, before, "each is what it was");
    for job in ["web", "web-2", "worker", "resize"] {
        let view = world.get(job).await;
        assert_eq!(view.status, Status::Running, "{job}");
        assert!(before.contains_key(&view.instance.unwrap()));
    }
    assert_eq!(world.get("web").await.generation, generation, "no generation is used twice");
    let stats = world.stats().await;
    assert_eq!((stats.unidentified.len(), stats.warm_pool.len()), (0, 1));
    world.engine.audit().unwrap();
}

#[tokio::test(start_paused = true)]
async fn orphan_declared_with_another_spec_is_replaced_surge_first() {
    let mut world = World::with(slow(), Sqlite::in_memory().unwrap());
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let old = world.get("web").await.instance.unwrap();
    let mut world = lose_the_database(world).await;
    let other = spec("service", &[env("2")]);
    world.post("web", None, &other).await.unwrap();
    for _ in 0..300 {
        let alive = on_host(&world).await.keys().filter(|id| world.host.alive(id)).count();
        assert!(alive >= 1, "one serves at any time");
        world.run_for(Duration::from_millis(10)).await;
    }
    let view = world.get("web").await;
    assert_eq!(view.status, Status::Running);
    assert_ne!(view.instance.as_ref(), Some(&old));
    assert_eq!(view.generation, Generation(2), "1 was another spec");
    assert_eq!(on_host(&world).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn job_that_ended_while_unknown_is_not_run_again() {
    let mut world = World::with(slow(), Sqlite::in_memory().unwrap());
    let resize = spec("job", &[]);
    world.post("resize", None, &resize).await.unwrap();
    world.run_for(A_WHILE).await;
    let ran = world.get("resize").await.instance.unwrap();
    let mut world = lose_the_database(world).await;
    world.host.end(&ran, End::Code(7));
    world.run_for(A_WHILE).await;
    assert!(on_host(&world).await.contains_key(&ran), "its exit code is not thrown away");
    world.post("resize", None, &resize).await.unwrap();
    world.run_for(A_WHILE).await;
    let view = world.get("resize").await;
    assert_eq!((view.status, view.exit_code), (Status::Failed, Some(7)));
    assert!(on_host(&world).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_over_by_another_tenant() {
    let mut world = World::new();
    let web = spec("service", &[pool(1, 1)]);
    world.post("web", Some("red"), &web).await.unwrap();
    world.run_for(A_WHILE).await;
    let red: BTreeSet<InstanceId> = on_host(&world).await.into_keys().collect();
    assert_eq!(red.len(), 2);
    let mut world = lose_the_database(world).await;
    world.post("web", Some("blue"), &web).await.unwrap();
    world.run_for(A_WHILE).await;
    let now: BTreeSet<InstanceId> = on_host(&world).await.into_keys().collect();
    assert_eq!((now.len(), now.intersection(&red).count()), (4, 2), "two more, and red's stay");
    assert!(!red.contains(&world.get("web").await.instance.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn orphan_keeps_its_slot_and_its_share_of_the_host() {
    let sim = SimConfig { cpus: 1, ..SimConfig::default() };
    let mut world = World::with(sim, Sqlite::in_memory().unwrap());
    let large = spec("service", &[("resources", large())]);
    world.post("large", None, &large).await.unwrap();
    world.run_for(A_WHILE).await;
    let mut world = lose_the_database(world).await;
    world.post("other", None, &large).await.unwrap();
    world.post("small", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("other").await.status, Status::Pending, "there is no room for two");
    assert_eq!(world.get("small").await.status, Status::Running);
    let slots: BTreeSet<_> = on_host(&world).await.values().map(|one| one.slot).collect();
    assert_eq!(slots.len(), 2, "each has a slot of its own");
}

/// Five of the eight virtual CPUs that one processor is taken for.
fn large() -> Value {
    let entries = [("vcpu", 5), ("mem_mb", 128)];
    Value::Map(entries.map(|(key, number)| (key.to_owned(), Value::Int(number))).into())
}

#[tokio::test(start_paused = true)]
async fn older_database_wins_over_instances_and_generations_only_grow() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("hearth.db"), dir.path().join("backup.db"));
    let mut world = World::with(slow(), Sqlite::open(&path).unwrap());
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    hearth_store::backup(&path, &backup).unwrap();
    world.post("web", None, &spec("service", &[env("2")])).await.unwrap();
    world.post("later", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let later = world.get("later").await.instance.unwrap();
    let newer = world.get("web").await.instance.unwrap();
    let restored = dir.path().join("restored.db");
    hearth_store::restore(&backup, &restored).unwrap();
    let mut world = world.restart(Sqlite::open(&restored).unwrap());
    world.run_for(A_WHILE).await;
    let view = world.get("web").await;
    assert_eq!(view.status, Status::Running);
    assert_ne!(view.instance, Some(newer), "the spec of the backup runs");
    assert!(view.generation >= Generation(2), "{}", view.generation);
    assert!(world.host.alive(&later), "what the backup does not know is left alone");
    assert_eq!(world.find("later").await, None);
}

#[tokio::test(start_paused = true)]
async fn failures_do_not_count_for_a_later_run_that_is_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("hearth.db"), dir.path().join("backup.db"));
    let mut world = World::with(slow(), Sqlite::open(&path).unwrap());
    let resize = spec("job", &[("retries", Value::Int(1))]);
    world.post("resize", None, &resize).await.unwrap();
    world.run_for(A_WHILE).await;
    let first = world.get("resize").await.instance.unwrap();
    world.host.end(&first, End::Code(1));
    while on_host(&world).await.contains_key(&first) {
        world.run_for(Duration::from_millis(10)).await;
    }
    let failures = |world: &World| world.engine.fleet().job(&id("resize")).map(failures);
    assert_eq!(failures(&world), Some((Generation(1), 1)));
    hearth_store::backup(&path, &backup).unwrap();
    let resolution = world.resolution(&resize).await;
    let restart = Restart { job: id("resize"), spec: Arc::new(resize), resolution };
    world.ask(restart).await.unwrap();
    world.run_for(A_WHILE).await;
    let second = world.get("resize").await.instance.unwrap();
    let restored = dir.path().join("restored.db");
    hearth_store::restore(&backup, &restored).unwrap();
    let mut world = world.restart(Sqlite::open(&restored).unwrap());
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("resize").await.instance, Some(second.clone()), "it is adopted");
    assert_eq!(failures(&world), Some((Generation(2), 0)));
    world.host.end(&second, End::Code(1));
    world.run_for(Duration::from_secs(10)).await;
    let view = world.get("resize").await;
    assert_eq!(view.status, Status::Running, "it has its retry: {:?}", view.reason);
    // What is adopted is on disk with its progress.
    let world = world.restart(Sqlite::open(&restored).unwrap());
    assert_eq!(failures(&world), Some((Generation(2), 1)));
}
