//! What is forgotten by itself, and what is not.

use crate::world::{World, spec};
use hearth_engine::{Delete, Deletions, Events, Retention, Stop};
use hearth_host::sim::SimConfig;
use hearth_host::{Host, LogQuery};
use hearth_model::{End, InstanceId, JobId, Spec, Value};
use hearth_planner::Status;
use hearth_store::Sqlite;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(3);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn command(line: &str) -> Value {
    Value::List(["sh", "-c", line].map(Value::from).to_vec())
}

async fn names(world: &mut World) -> Vec<String> {
    world.stats().await.jobs.iter().map(|view| view.job.to_string()).collect()
}

async fn has_log(world: &World, instance: &InstanceId) -> bool {
    !world.host.logs(instance, LogQuery::default()).await.unwrap().lines.is_empty()
}

#[tokio::test(start_paused = true)]
async fn of_the_jobs_that_finished_only_the_newest_are_kept() {
    let mut world = World::keeping(Retention { finished_jobs_max: 2, ..Retention::default() });
    world.post("web", None, &spec("service", &[])).await.unwrap();
    // In another order than that of their names.
    for job in ["d", "a", "c", "b"] {
        world.post(job, None, &spec("job", &[])).await.unwrap();
        world.run_for(A_WHILE).await;
    }
    assert_eq!(names(&mut world).await, ["b", "c", "web"]);
    assert_eq!(world.find("a").await, None);
    // Who runs again has not finished.
    world.post("c", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    world.post("e", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(names(&mut world).await, ["c", "e", "web"]);
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_forgotten_by_age_unless_a_file_declares_it() {
    let mut world = World::new();
    let job = spec("job", &[]);
    world.load(&[("declared", &job)], Deletions::Few).await;
    world.post("posted", None, &job).await.unwrap();
    world.run_for(A_WHILE).await;
    tokio::time::sleep(6 * DAY).await;
    world.run_for(A_WHILE).await;
    assert_eq!(names(&mut world).await, ["declared", "posted"]);
    tokio::time::sleep(DAY).await;
    world.run_for(A_WHILE).await;
    assert_eq!(names(&mut world).await, ["declared"]);
    assert_eq!(world.status("declared").await.0, Status::Completed);
}

const GRACE: Duration = Duration::from_secs(10);

fn removed(more: &[(&'static str, Value)]) -> Spec {
    spec("job", &[&[("auto_remove", Value::Bool(true))], more].concat())
}

#[tokio::test(start_paused = true)]
async fn auto_removed_job_goes_a_while_after_its_end() {
    let mut world = World::new();
    world.post("kept", None, &spec("job", &[])).await.unwrap();
    world.post("removed", None, &removed(&[])).await.unwrap();
    world.post("failed", None, &removed(&[("cmd", command("exit 3"))])).await.unwrap();
    world.run_for(GRACE - A_WHILE).await;
    assert_eq!(names(&mut world).await, ["failed", "kept", "removed"]);
    assert_eq!(world.get("failed").await.exit_code, Some(3));
    world.run_for(2 * A_WHILE).await;
    assert_eq!(names(&mut world).await, ["kept"]);
    // The name is free, and the generation continues.
    let (_, again) = world.post("removed", None, &spec("job", &[])).await.unwrap();
    assert!(again.generation.0 > 1, "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn auto_removed_job_goes_after_a_stop_too() {
    let mut world = World::with(
        SimConfig { work: Duration::from_secs(3600), ..SimConfig::default() },
        Sqlite::in_memory().unwrap(),
    );
    world.post("job", None, &removed(&[])).await.unwrap();
    world.run_for(2 * GRACE).await;
    assert_eq!(names(&mut world).await, ["job"], "it runs");
    world.ask(Stop { job: JobId::parse("job").unwrap() }).await.unwrap();
    world.run_for(GRACE / 2).await;
    assert_eq!(world.status("job").await.0, Status::Stopped);
    world.run_for(GRACE).await;
    assert!(names(&mut world).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn auto_removed_job_waits_for_its_followers() {
    let mut world = World::new();
    world.follow(&["job", "other"]);
    world.post("job", None, &removed(&[])).await.unwrap();
    world.run_for(3 * GRACE).await;
    assert_eq!(names(&mut world).await, ["job"]);
    world.follow(&["other"]);
    world.run_for(GRACE - A_WHILE).await;
    assert_eq!(names(&mut world).await, ["job"]);
    world.run_for(2 * A_WHILE).await;
    assert!(names(&mut world).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn auto_removed_job_that_runs_again_stays() {
    let mut world = World::new();
    world.post("job", None, &removed(&[])).await.unwrap();
    world.run_for(GRACE - A_WHILE).await;
    world.post("job", None, &spec("job", &[])).await.unwrap();
    world.run_for(2 * GRACE).await;
    assert_eq!(names(&mut world).await, ["job"]);
    assert_eq!(world.status("job").await.0, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn restarted_daemon_gives_an_auto_removed_job_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    let mut world = World::with(Default::default(), Sqlite::open(&path).unwrap());
    world.post("job", None, &removed(&[])).await.unwrap();
    world.run_for(A_WHILE).await;
    // The daemon is away for longer than that.
    tokio::time::sleep(3 * GRACE).await;
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    world.run_for(GRACE - A_WHILE).await;
    assert_eq!(world.status("job").await.0, Status::Completed);
    world.run_for(2 * A_WHILE).await;
    assert!(names(&mut world).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn ages_continue_over_a_restart_of_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    let mut world = World::with(Default::default(), Sqlite::open(&path).unwrap());
    world.post("posted", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    tokio::time::sleep(5 * DAY).await;
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    tokio::time::sleep(2 * DAY).await;
    world.run_for(A_WHILE).await;
    assert!(names(&mut world).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn logs_of_instances_that_are_gone_are_dropped_by_age() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let first = world.get("web").await.instance.unwrap();
    world.host.end(&first, End::Code(1));
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("web").await.instances.first(), Some(&first));
    assert!(has_log(&world, &first).await);
    tokio::time::sleep(7 * DAY).await;
    world.run_for(A_WHILE).await;
    assert!(!world.get("web").await.instances.contains(&first));
    assert!(!has_log(&world, &first).await);
}

#[tokio::test(start_paused = true)]
async fn logs_that_failed_to_drop_are_dropped_by_the_next_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    let mut world = World::with(Default::default(), Sqlite::open(&path).unwrap());
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let instance = world.get("web").await.instance.unwrap();
    world.host.refuse("drop-logs", 1);
    world.ask(Delete { job: JobId::parse("web").unwrap() }).await.unwrap();
    world.run_for(Duration::from_secs(1)).await;
    assert_eq!(world.find("web").await, None);
    assert!(has_log(&world, &instance).await, "the host refused");
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    world.run_for(A_WHILE).await;
    assert!(!has_log(&world, &instance).await);
}

#[tokio::test(start_paused = true)]
async fn events_are_kept_by_count_and_by_age() {
    let mut world = World::keeping(Retention { events_max: 5, ..Retention::default() });
    for job in ["a", "b", "c"] {
        world.post(job, None, &spec("service", &[])).await.unwrap();
        world.run_for(A_WHILE).await;
    }
    let events = async |world: &mut World| {
        let all = Events { job: None, after: None, limit: 100 };
        world.ask(all).await.unwrap().events
    };
    let kept = events(&mut world).await;
    assert!(kept.len() <= 6, "{kept:?}");
    let last = kept.last().unwrap().id;
    for _ in 0..8 {
        tokio::time::sleep(DAY).await;
        world.run_for(Duration::from_secs(1)).await;
    }
    world.post("d", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert!(events(&mut world).await.iter().all(|event| event.id > last));
}
