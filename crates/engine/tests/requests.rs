//! What can be asked of the engine beyond making and deleting jobs.

#[allow(dead_code, unreachable_pub, missing_docs)]
mod world;

use hearth_engine::{List, Refusal, Reply, Request, Restart};
use hearth_host::Host;
use hearth_host::sim::Presence;
use hearth_model::{JobId, Lifecycle, Tenant};
use hearth_planner::Status;
use std::time::Duration;
use world::{World, pool, spec};

const A_WHILE: Duration = Duration::from_secs(5);

fn id(job: &str) -> JobId {
    JobId::parse(job).unwrap()
}

async fn restart(world: &mut World, job: &str) -> Result<Reply, Refusal> {
    let spec = world.get(job).await.spec;
    let resolution = world.resolution(&spec).await;
    world.ask(Request::Restart(Restart { job: id(job), spec, resolution })).await
}

#[tokio::test(start_paused = true)]
async fn a_restarted_service_gets_a_new_instance_beside_the_old_one() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let before = world.get("web").await;
    let Ok(Reply::Job(view)) = restart(&mut world, "web").await else { panic!("no job") };
    assert_eq!(view.generation, before.generation.next());
    assert_eq!((view.status, &view.instance), (Status::Running, &before.instance));
    world.run_for(A_WHILE).await;
    let after = world.get("web").await;
    assert_eq!(after.status, Status::Running);
    assert_ne!(after.instance, before.instance);
    assert_eq!(world.host.observe().await.unwrap().instances.len(), 1, "the old one is gone");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_daemon_stops_before_it_runs_again() {
    let mut world = World::new();
    world.post("d", None, &spec("daemon", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let before = world.get("d").await;
    restart(&mut world, "d").await.unwrap();
    for _ in 0..200 {
        world.run_for(Duration::from_millis(10)).await;
        assert!(world.host.observe().await.unwrap().instances.len() <= 1, "two at once");
    }
    let after = world.get("d").await;
    assert_eq!(after.status, Status::Running);
    assert_ne!(after.instance, before.instance);
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_a_warm_instance_runs_what_is_over_again_and_starts_what_is_stopped() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[pool(1, 1)])).await.unwrap();
    world.post("once", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("once").await.0, Status::Completed);
    let warm = world.stats().await.warm_pool[0].instance.clone();
    restart(&mut world, "web").await.unwrap();
    restart(&mut world, "once").await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("web").await.instance, Some(warm));
    let once = world.get("once").await;
    assert_eq!((once.status, once.generation.0), (Status::Completed, 2));
    world.ask(Request::Stop { job: id("web") }).await.unwrap();
    world.run_for(A_WHILE).await;
    restart(&mut world, "web").await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("web").await.0, Status::Running);
}

#[tokio::test(start_paused = true)]
async fn a_restart_looks_its_images_up_again_and_the_old_instance_serves_where_they_are_gone() {
    let mut world = World::new();
    let web = spec("service", &[]);
    world.post("web", None, &web).await.unwrap();
    world.run_for(A_WHILE).await;
    world.host.set_missing(&web.kernel, Presence::Missing);
    restart(&mut world, "web").await.unwrap();
    world.run_for(A_WHILE).await;
    let (status, reason) = world.status("web").await;
    assert_eq!(status, Status::Running);
    assert!(reason.unwrap().contains("vmlinux"));
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_is_not_restarted() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    world.ask(Request::Delete { job: id("web") }).await.unwrap();
    let spec = std::sync::Arc::new(spec("service", &[]));
    let resolution = world.resolution(&spec).await;
    let restart = Request::Restart(Restart { job: id("web"), spec, resolution });
    assert_eq!(world.ask(restart).await, Err(Refusal::NotFound(id("web"))));
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_cancelled_by_a_stop_and_does_not_run_again() {
    let mut world = World::with(
        hearth_host::sim::SimConfig { work: Duration::from_secs(3600), ..Default::default() },
        hearth_engine::Store::in_memory().unwrap(),
    );
    world.post("once", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("once").await.0, Status::Running);
    world.ask(Request::Stop { job: id("once") }).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("once").await, (Status::Stopped, None));
    assert!(world.host.observe().await.unwrap().instances.is_empty());
    world.run_for(Duration::from_secs(600)).await;
    assert_eq!(world.status("once").await.0, Status::Stopped);
}

async fn page(world: &mut World, list: List) -> (Vec<String>, bool) {
    match world.ask(Request::List(list)).await {
        Ok(Reply::Jobs { jobs, more }) => {
            (jobs.iter().map(|view| view.job.to_string()).collect(), more)
        }
        other => panic!("a list answered {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_shows_what_its_filters_let_through() {
    let mut world = World::new();
    world.post("a", Some("acme"), &spec("service", &[])).await.unwrap();
    world.post("b", None, &spec("job", &[])).await.unwrap();
    world.post("c", Some("acme"), &spec("daemon", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let all = List { limit: 10, ..List::default() };
    assert_eq!(
        page(&mut world, all.clone()).await,
        (vec!["a".into(), "b".into(), "c".into()], false)
    );
    let statuses = vec![Status::Completed, Status::Failed];
    let ended = List { statuses, ..all.clone() };
    assert_eq!(page(&mut world, ended).await.0, ["b"]);
    let acme = List { tenant: Some(Tenant::parse("acme").unwrap()), ..all.clone() };
    assert_eq!(page(&mut world, acme.clone()).await.0, ["a", "c"]);
    let daemons = List { lifecycle: Some(Lifecycle::Daemon), ..acme };
    assert_eq!(page(&mut world, daemons).await.0, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn pages_stay_where_they_are_while_jobs_come_and_go() {
    let mut world = World::new();
    for job in ["b", "d", "f", "h"] {
        world.post(job, None, &spec("job", &[])).await.unwrap();
    }
    world.run_for(A_WHILE).await;
    let first = List { limit: 2, ..List::default() };
    assert_eq!(page(&mut world, first).await, (vec!["b".into(), "d".into()], true));
    // The cursor itself goes, and what is before it changes.
    world.ask(Request::Delete { job: id("d") }).await.unwrap();
    world.post("a", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let second = List { after: Some(id("d")), limit: 2, ..List::default() };
    assert_eq!(page(&mut world, second).await, (vec!["f".into(), "h".into()], false));
}
