//! What can be asked of the engine beyond making and deleting jobs.

use crate::world::{World, pool, spec};
use hearth_engine::{
    Accepted, Changed, Delete, Deleted, List, Preconditions, Refusal, Repeat, Restart, Stop, Upsert,
};
use hearth_host::Host;
use hearth_host::sim::Presence;
use hearth_model::{JobId, Value};
use hearth_planner::Status;
use hearth_store::Sqlite;
use std::sync::Arc;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(5);

fn id(job: &str) -> JobId {
    JobId::parse(job).unwrap()
}

async fn restart(world: &mut World, job: &str) -> Result<Changed, Refusal> {
    let spec = world.get(job).await.spec;
    let resolution = world.resolution(&spec).await;
    world.ask(Restart { job: id(job), spec, resolution }).await
}

#[tokio::test(start_paused = true)]
async fn a_restarted_service_gets_a_new_instance_beside_the_old_one() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let before = world.get("web").await;
    let view = restart(&mut world, "web").await.unwrap().job;
    assert_eq!(view.generation, before.generation.next());
    assert_eq!((view.status, &view.instance), (Status::Running, &before.instance));
    world.run_for(A_WHILE).await;
    let after = world.get("web").await;
    assert_eq!(after.status, Status::Running);
    assert_ne!(after.instance, before.instance);
    assert_eq!(world.host.observe(None).await.unwrap().instances.len(), 1, "the old one is gone");
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
        assert!(world.host.observe(None).await.unwrap().instances.len() <= 1, "two at once");
    }
    let after = world.get("d").await;
    assert_eq!(after.status, Status::Running);
    assert_ne!(after.instance, before.instance);
}

#[tokio::test(start_paused = true)]
async fn restart_claims_warm_reruns_finished_and_starts_stopped_jobs() {
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
    world.ask(Stop { job: id("web") }).await.unwrap();
    world.run_for(A_WHILE).await;
    restart(&mut world, "web").await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("web").await.0, Status::Running);
}

#[tokio::test(start_paused = true)]
async fn restart_resolves_images_again_and_keeps_old_if_missing() {
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
    world.ask(Delete { job: id("web") }).await.unwrap();
    let spec = Arc::new(spec("service", &[]));
    let resolution = world.resolution(&spec).await;
    let restart = Restart { job: id("web"), spec, resolution };
    assert_eq!(world.ask(restart).await, Err(Refusal::NotFound(id("web"))));
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_cancelled_by_a_stop_and_does_not_run_again() {
    let mut world = World::with(
        hearth_host::sim::SimConfig { work: Duration::from_secs(3600), ..Default::default() },
        Sqlite::in_memory().unwrap(),
    );
    world.post("once", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("once").await.0, Status::Running);
    world.ask(Stop { job: id("once") }).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("once").await, (Status::Stopped, None));
    assert!(world.host.observe(None).await.unwrap().instances.is_empty());
    world.run_for(Duration::from_secs(600)).await;
    assert_eq!(world.status("once").await.0, Status::Stopped);
}

async fn page(world: &mut World, list: List) -> (Vec<String>, bool) {
    world.step().await;
    let page = world.engine.view().page(&list);
    (page.jobs.iter().map(|view| view.job.to_string()).collect(), page.more)
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
    let mut acme = all.clone();
    acme.selector.add("tenant", "acme").unwrap().unwrap();
    assert_eq!(page(&mut world, acme.clone()).await.0, ["a", "c"]);
    let mut daemons = acme;
    daemons.selector.add("lifecycle", "daemon").unwrap().unwrap();
    assert_eq!(page(&mut world, daemons).await.0, ["c"]);
    for (job, given) in [
        ("d", vec![("app", "web"), ("tier", "front")]),
        ("e", vec![("app", "web")]),
        ("f", vec![("tier", "")]),
    ] {
        let given = given.into_iter().map(|(key, value)| (key.to_owned(), value.into()));
        let labelled = spec("service", &[("labels", Value::Map(given.collect()))]);
        world.post(job, None, &labelled).await.unwrap();
    }
    let labels = |conditions: &[&str]| {
        let mut list = all.clone();
        for condition in conditions {
            list.selector.add("label", condition).unwrap().unwrap();
        }
        list
    };
    assert_eq!(page(&mut world, labels(&["app=web"])).await.0, ["d", "e"]);
    assert_eq!(page(&mut world, labels(&["tier"])).await.0, ["d", "f"]);
    assert_eq!(page(&mut world, labels(&["app=web", "tier"])).await.0, ["d"]);
    assert_eq!(page(&mut world, labels(&["tier="])).await.0, ["f"]);
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
    world.ask(Delete { job: id("d") }).await.unwrap();
    world.post("a", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let second = List { after: Some(id("d")), limit: 2, ..List::default() };
    assert_eq!(page(&mut world, second).await, (vec!["f".into(), "h".into()], false));
}

fn keyed(key: &str, digest: &str) -> Preconditions {
    let repeat = Some(Repeat { key: key.into(), digest: digest.into() });
    Preconditions { repeat, generations: None }
}

fn at(generations: &[u64]) -> Preconditions {
    Preconditions { repeat: None, generations: Some(generations.to_vec()) }
}

/// Whether a change was accepted before.
async fn repeats(world: &mut World, preconditions: Preconditions, upsert: &Upsert) -> bool {
    world.ask_if(preconditions, upsert.clone()).await.unwrap().repeated
}

async fn nameless(world: &World) -> Upsert {
    let spec = Arc::new(spec("service", &[pool(1, 2)]));
    let resolution = world.resolution(&spec).await;
    Upsert { job: None, tenant: None, spec, resolution }
}

#[tokio::test(start_paused = true)]
async fn repeat_with_same_key_makes_no_second_job_and_is_marked() {
    let mut world = World::new();
    let (key, post) = (keyed("k", "d"), nameless(&world).await);
    let Changed { accepted, job: made, repeated } =
        world.ask_if(key.clone(), post.clone()).await.unwrap();
    assert_eq!((accepted, repeated), (Accepted::Pending, false));
    world.run_for(A_WHILE).await;
    let Changed { accepted, job: view, repeated } =
        world.ask_if(key.clone(), post.clone()).await.unwrap();
    assert!(repeated);
    assert_eq!((accepted, &view.job), (Accepted::Pending, &made.job), "as it was answered");
    assert_eq!(view.status, Status::Running, "the job as it is now");
    let refused = Refusal::KeyOfAnother { key: "k".into(), job: made.job.clone() };
    let other = world.ask_if(keyed("k", "another"), nameless(&world).await).await;
    assert_eq!(other, Err(refused.clone()));
    let delete = Delete { job: made.job.clone() };
    assert_eq!(world.ask_if(keyed("k", "another"), delete).await, Err(refused));
    assert_eq!(page(&mut world, List { limit: 9, ..List::default() }).await.0.len(), 1);
    world.ask(Delete { job: made.job.clone() }).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.ask_if(key, post).await, Err(Refusal::GoneSince(made.job)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_change_uses_no_key() {
    let mut world = World::new();
    let (key, stop) = (keyed("k", "stop"), Stop { job: id("web") });
    let refused = world.ask_if(key.clone(), stop.clone()).await;
    assert_eq!(refused, Err(Refusal::NotFound(id("web"))));
    world.post("web", None, &spec("service", &[])).await.unwrap();
    assert!(!world.ask_if(key, stop).await.unwrap().repeated);
}

#[tokio::test(start_paused = true)]
async fn a_key_lives_a_day_and_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    let mut world = World::with(Default::default(), Sqlite::open(&path).unwrap());
    let (key, post) = (keyed("k", "d"), nameless(&world).await);
    assert!(!repeats(&mut world, key.clone(), &post).await);
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    tokio::time::advance(Duration::from_secs(24 * 3600 - 10)).await;
    assert!(repeats(&mut world, key.clone(), &post).await);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert!(!repeats(&mut world, key.clone(), &post).await, "another job");
    assert!(repeats(&mut world, key, &post).await, "the key's next life");
}

#[tokio::test(start_paused = true)]
async fn change_for_another_generation_is_refused_with_the_current() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let stop = Stop { job: id("web") };
    let refused =
        Refusal::OtherGeneration { job: id("web"), current: Some(hearth_model::Generation(1)) };
    assert_eq!(world.ask_if(at(&[2, 7]), stop.clone()).await, Err(refused));
    assert_eq!(world.status("web").await.0, Status::Running);
    assert!(!world.ask_if(at(&[1]), stop.clone()).await.unwrap().repeated);
    assert!(!world.ask_if(at(&[]), stop).await.unwrap().repeated, "any");
    let never = Refusal::OtherGeneration { job: id("nope"), current: None };
    let spec = Arc::new(spec("service", &[]));
    let resolution = world.resolution(&spec).await;
    let upsert = Upsert { job: Some(id("nope")), tenant: None, spec, resolution };
    assert_eq!(world.ask_if(at(&[]), upsert).await, Err(never));
    let delete = Delete { job: id("web") };
    let refused = world.ask_if(at(&[1]), delete.clone()).await;
    assert!(refused.is_err(), "the stop made generation 2");
    world.ask_if(at(&[2]), delete.clone()).await.unwrap();
    world.run_for(A_WHILE).await;
    let again = world.ask_if(at(&[2]), delete).await;
    assert_eq!(again, Ok(Deleted { gone: true }), "what was asked for has happened");
}
