//! What is shown: exits, events with their fields, pools.

use crate::world::{World, env, pool, spec};
use hearth_engine::{
    Accepted, ClaimCounts, Delete, Event, EventKind, Events, JobExit, PoolView, Start, Stop,
};
use hearth_host::sim::SimConfig;
use hearth_model::{End, JobId, OomKill, Tenant, Value};
use hearth_planner::Status;
use hearth_store::Sqlite;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(3);

fn id(job: &str) -> JobId {
    JobId::parse(job).unwrap()
}

/// A job's events of a kind.
async fn events(world: &mut World, job: &str, kind: &str) -> Vec<Event> {
    let events = Events { job: Some(id(job)), after: None, limit: 100 };
    let page = world.ask(events).await.unwrap();
    page.events.into_iter().filter(|event| event.kind.as_str() == kind).collect()
}

fn exit(end: End) -> JobExit {
    JobExit { end, timed_out: false }
}

#[tokio::test(start_paused = true)]
async fn exits_are_typed_in_jobs_and_events() {
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("hearth.db");
    let mut world = World::with(SimConfig::default(), Sqlite::open(&path).unwrap());
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("web").await.exit, None);
    for end in [End::Code(3), End::Signal(9), End::OutOfMemory] {
        let instance = world.get("web").await.instance.unwrap();
        world.host.end(&instance, end.clone());
        world.run_for(Duration::from_secs(20)).await;
        assert_eq!(world.get("web").await.exit, Some(exit(end.clone())));
        let exited = events(&mut world, "web", "exited").await.pop().unwrap();
        assert_eq!(exited.kind, EventKind::Exited(Some(exit(end))));
    }
    assert_eq!(world.get("web").await.exit_code, Some(3), "the last exit that had a code");
    // The next daemon shows the same.
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("web").await.exit, Some(exit(End::OutOfMemory)));
    world.post("web", None, &spec("service", &[env("2")])).await.unwrap();
    assert_eq!(world.get("web").await.exit, None, "another generation has not exited");
}

#[tokio::test(start_paused = true)]
async fn exit_after_the_timeout_is_timed_out() {
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("hearth.db");
    let sim = SimConfig { work: Duration::from_secs(3600), ..SimConfig::default() };
    let mut world = World::with(sim, Sqlite::open(&path).unwrap());
    let timeout = ("timeout_s", Value::Int(5));
    world.post("batch", None, &spec("job", &[timeout])).await.unwrap();
    world.run_for(Duration::from_secs(30)).await;
    let view = world.get("batch").await;
    assert_eq!(view.status, Status::Failed);
    let timed_out = view.exit.unwrap();
    assert!(timed_out.timed_out && matches!(timed_out.end, End::Signal(_)), "{timed_out:?}");
    let exited = events(&mut world, "batch", "exited").await.pop().unwrap();
    assert_eq!(exited.kind, EventKind::Exited(Some(timed_out.clone())));
    // A run that is asked for again has its own exit.
    world.ask(Start { job: id("batch") }).await.unwrap();
    world.run_for(Duration::from_secs(2)).await;
    let instance = world.get("batch").await.instance.unwrap();
    world.host.end(&instance, End::Code(0));
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("batch").await.exit, Some(exit(End::Code(0))));
}

#[tokio::test(start_paused = true)]
async fn events_have_the_fields_of_their_kind() {
    let store = tempfile::tempdir().unwrap();
    let mut world =
        World::with(SimConfig::default(), Sqlite::open(&store.path().join("hearth.db")).unwrap());
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let instance = world.get("web").await.instance.unwrap();
    let kill = OomKill { pid: 42, name: "tail".to_owned() };
    world.host.oom_kill(&instance, kill.clone());
    world.run_for(A_WHILE).await;
    world.ask(Stop { job: id("web") }).await.unwrap();
    world.run_for(A_WHILE).await;
    let killed = events(&mut world, "web", "oom-kill").await.pop().unwrap();
    assert_eq!(killed.kind, EventKind::OomKill { killed: vec![kill], count: Some(1) });
    let stopping = events(&mut world, "web", "stopping").await.pop().unwrap();
    let EventKind::Stopping { reason: Some(reason) } = stopping.kind else { panic!("no reason") };
    assert_eq!(stopping.message, format!("stopping: {reason}"));
    let stopped = events(&mut world, "web", "status").await.pop().unwrap();
    let EventKind::Status { status, .. } = stopped.kind else { panic!("no status") };
    assert_eq!(status, Some(Status::Stopped));
}

#[tokio::test(start_paused = true)]
async fn refused_workload_is_why_its_instance_is_replaced() {
    let mut world = World::new();
    let held = spec("job", &[pool(1, 1)]);
    world.post("first", None, &held).await.unwrap();
    world.run_for(A_WHILE).await;
    world.workloads_refused = Some("it has another one");
    let (accepted, claimed) = world.post("second", None, &held).await.unwrap();
    assert_eq!(accepted, Accepted::Claimed);
    let claimed = claimed.instance.unwrap();
    world.run_for(A_WHILE).await;
    let why = format!("instance {claimed} refuses its workload: it has another one");
    assert_eq!(world.status("second").await, (Status::Starting, Some(why.clone())));
    world.run_for(A_WHILE).await;
    let stopping = events(&mut world, "second", "stopping").await.remove(0);
    assert_eq!(stopping.instance, Some(claimed));
    let reason = format!("the guest was not assigned in time: {why}");
    assert_eq!(stopping.kind, EventKind::Stopping { reason: Some(reason) });
    world.workloads_refused = None;
    world.run_for(Duration::from_secs(10)).await;
    assert_eq!(world.get("second").await.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn pools_are_shown_with_their_jobs_and_claims() {
    let mut world = World::new();
    let web = spec("service", &[pool(1, 2)]);
    world.post("web-1", Some("prod"), &web).await.unwrap();
    let shown =
        |pools: &[PoolView]| -> Vec<(Option<Tenant>, usize, u32, usize, usize, ClaimCounts)> {
            let of = |pool: &PoolView| {
                let PoolView { tenant, jobs, target, warm, starting, claims, .. } = pool.clone();
                (tenant, jobs, target, warm, starting, claims)
            };
            pools.iter().map(of).collect()
        };
    let prod = Some(Tenant::parse("prod").unwrap());
    let count = |hits, misses| ClaimCounts { hits, misses };
    // Known by its job before it has an instance.
    let pools = world.stats().await.pools;
    assert_eq!((pools[0].jobs, pools[0].target, pools[0].warm), (1, 1, 0));
    world.run_for(A_WHILE).await;
    let pools = world.stats().await.pools;
    assert_eq!(shown(&pools), [(prod.clone(), 1, 1, 1, 0, count(0, 1))]);
    assert_eq!(pools[0].rootfs.as_deref(), Some("rootfs-web.ext4"));
    // The second one claims, and asks for a larger pool; those without a tenant share another one.
    let larger = spec("service", &[pool(2, 2), ("stop_timeout_s", Value::Int(3))]);
    world.post("web-2", Some("prod"), &larger).await.unwrap();
    world.post("a", None, &web).await.unwrap();
    world.post("b", None, &web).await.unwrap();
    world.run_for(A_WHILE).await;
    let pools = world.stats().await.pools;
    assert_eq!(shown(&pools), [(None, 2, 1, 1, 0, count(0, 2)), (prod, 2, 2, 2, 0, count(1, 1))]);
    assert_eq!(pools[0].hash, pools[1].hash);
    for job in ["a", "b", "web-1", "web-2"] {
        world.ask(Delete { job: id(job) }).await.unwrap();
    }
    world.run_for(Duration::from_secs(30)).await;
    assert_eq!(world.stats().await.pools, []);
}
