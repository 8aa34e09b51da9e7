//! Jobs whose images have to be read first, which takes its time.

use crate::world::{World, env, pool, spec};
use hearth_engine::{Accepted, Delete, Deletions, DiskOvercommit, Input, Stop};
use hearth_host::sim::{Presence, SimConfig};
use hearth_model::{End, Generation, ImageName, InstanceId, JobId, Mono, Resolution, Value};
use hearth_planner::Status;
use hearth_store::Sqlite;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(3);

fn id(job: &str) -> JobId {
    JobId::parse(job).unwrap()
}

fn large() -> ImageName {
    ImageName::parse("large.ext4").unwrap()
}

/// A spec whose root file system has to be read.
fn unread(lifecycle: &str, more: &[(&str, Value)]) -> hearth_model::Spec {
    hearth_model::Spec { rootfs: Some(large()), ..spec(lifecycle, more) }
}

/// A world in which the large image takes so many seconds to be read.
fn reading(seconds: u64) -> World {
    let world = World::new();
    world.host.replace_image(&large(), Duration::from_secs(seconds));
    world
}

async fn reason(world: &mut World, job: &str) -> String {
    let (status, reason) = world.status(job).await;
    format!("{status}: {}", reason.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn job_is_pending_with_the_progress_until_its_image_is_read() {
    let mut world = reading(20);
    let (accepted, view) = world.post("web", None, &unread("service", &[])).await.unwrap();
    assert_eq!((accepted, view.status), (Accepted::Pending, Status::Pending));
    assert_eq!(
        view.reason_at(Mono::default()).as_deref(),
        Some("preparing image large.ext4 (0 of 20 GiB)")
    );
    world.run_for(A_WHILE * 2).await;
    let later = reason(&mut world, "web").await;
    assert!(later.starts_with("pending: preparing image large.ext4 ("), "{later}");
    assert_ne!(later, "pending: preparing image large.ext4 (0 of 20 GiB)", "it continues");
    world.engine.audit().unwrap();
    // Another job does not wait for it, and one with the same image waits no longer.
    world.post("small", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("small").await.0, Status::Running);
    world.post("api", None, &unread("service", &[env("api")])).await.unwrap();
    world.run_for(Duration::from_secs(15)).await;
    for job in ["web", "api"] {
        assert_eq!(world.status(job).await, (Status::Running, None), "{job}");
    }
}

/// The next instance that is there.
async fn next_instance(world: &mut World, last: Option<&InstanceId>) -> InstanceId {
    for _ in 0..1000 {
        world.run_for(Duration::from_millis(10)).await;
        let mut instances = world.engine.fleet().instances().keys();
        if let Some(next) = instances.find(|id| Some(*id) != last) {
            return next.clone();
        }
    }
    panic!("there is none within 10 s: {:?}", world.status("once").await);
}

/// A commit that fails forgets which look-ups are under way, so that a second one is made.
#[tokio::test(start_paused = true)]
async fn late_look_up_forgives_no_failure_of_a_run() {
    let mut world = reading(5);
    world.post("once", None, &unread("job", &[("retries", Value::Int(1))])).await.unwrap();
    let first = next_instance(&mut world, None).await;
    world.host.end(&first, End::Code(7));
    world.run_for(Duration::from_millis(20)).await;
    let job = world.engine.fleet().job(&id("once")).unwrap().clone();
    assert_eq!(job.progress.failures, 1);
    for resolution in [Resolution::Preparing(None), job.progress.resolution.clone()] {
        world.pending.push(Input::Resolved(job.id.clone(), job.run, resolution));
    }
    let second = next_instance(&mut world, Some(&first)).await;
    world.host.end(&second, End::Code(7));
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("once").await.0, Status::Failed);
}

#[tokio::test(start_paused = true)]
async fn image_that_no_job_wants_is_read_no_longer() {
    for deletes in [true, false] {
        let mut world = reading(60);
        let web = unread("service", &[]);
        world.post("web", None, &web).await.unwrap();
        world.run_for(Duration::from_secs(20)).await;
        match deletes {
            true => drop(world.ask(Delete { job: id("web") }).await.unwrap()),
            false => drop(world.ask(Stop { job: id("web") }).await.unwrap()),
        }
        world.run_for(Duration::from_secs(12)).await;
        world.post("web", None, &web).await.unwrap();
        let again = reason(&mut world, "web").await;
        let from_the_start =
            [0, 1].map(|done| format!("pending: preparing image large.ext4 ({done} of 59 GiB)"));
        assert!(from_the_start.contains(&again), "{again}");
    }
}

#[tokio::test(start_paused = true)]
async fn old_instance_serves_while_the_next_image_is_read() {
    for lifecycle in ["service", "daemon"] {
        let mut world = reading(8);
        world.post("web", None, &spec(lifecycle, &[])).await.unwrap();
        world.run_for(A_WHILE).await;
        let first = world.get("web").await.instance.unwrap();
        world.post("web", None, &unread(lifecycle, &[])).await.unwrap();
        world.run_for(A_WHILE).await;
        let view = world.get("web").await;
        assert_eq!((view.status, view.instance.as_ref()), (Status::Running, Some(&first)));
        let reason = view.reason_at(Mono::default()).unwrap();
        assert!(reason.starts_with("replacing it with generation 2: preparing image"), "{reason}");
        world.run_for(Duration::from_secs(10)).await;
        let view = world.get("web").await;
        assert_eq!((view.status, view.generation), (Status::Running, Generation(2)));
        assert_ne!(view.instance, Some(first));
    }
}

#[tokio::test(start_paused = true)]
async fn repeated_post_while_the_image_is_read_changes_nothing() {
    let mut world = reading(10);
    let web = unread("service", &[]);
    world.post("web", None, &web).await.unwrap();
    world.run_for(A_WHILE).await;
    let (accepted, view) = world.post("web", None, &web).await.unwrap();
    assert_eq!((accepted, view.generation), (Accepted::Pending, Generation(1)));
    let (_, view) = world.post("web", None, &unread("service", &[pool(1, 1)])).await.unwrap();
    assert_eq!(view.generation, Generation(2), "its policy is another");
    let (_, view) = world.post("web", None, &spec("service", &[])).await.unwrap();
    assert_eq!(view.generation, Generation(3));
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("web").await, (Status::Running, None));
}

#[tokio::test(start_paused = true)]
async fn vanished_image_fails_its_job_until_it_is_back() {
    let mut world = reading(10);
    world.post("web", None, &unread("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    world.host.set_missing(&large(), Presence::Missing);
    world.run_for(A_WHILE).await;
    let failed = reason(&mut world, "web").await;
    assert!(failed.starts_with("failed: cannot open large.ext4"), "{failed}");
    world.host.set_missing(&large(), Presence::There);
    world.host.replace_image(&large(), Duration::from_secs(5));
    world.run_for(Duration::from_secs(60)).await;
    assert_eq!(world.status("web").await, (Status::Running, None));
}

#[tokio::test(start_paused = true)]
async fn preparation_continues_under_the_next_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    let mut world = World::with(SimConfig::default(), Sqlite::open(&path).unwrap());
    world.host.replace_image(&large(), Duration::from_secs(20));
    world.post("web", None, &unread("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    assert_eq!(reason(&mut world, "web").await, "pending: preparing its images");
    world.run_for(A_WHILE).await;
    let told = reason(&mut world, "web").await;
    assert!(told.starts_with("pending: preparing image large.ext4 ("), "{told}");
    world.engine.audit().unwrap();
    world.run_for(Duration::from_secs(20)).await;
    assert_eq!(world.status("web").await, (Status::Running, None));
}

#[tokio::test(start_paused = true)]
async fn file_applies_its_other_entries_while_an_image_is_read() {
    let mut world = reading(20);
    let (large, small) = (unread("service", &[]), spec("service", &[]));
    let plan = world.load(&[("large", &large), ("small", &small)], Deletions::Few).await;
    assert_eq!((plan.create.len(), plan.refused.len()), (2, 0));
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("small").await, (Status::Running, None));
    assert_eq!(world.status("large").await.0, Status::Pending);
    let plan = world.load(&[("large", &large), ("small", &small)], Deletions::Few).await;
    assert_eq!((plan.applied(), plan.unchanged), (0, 2), "it is in force");
    world.run_for(Duration::from_secs(20)).await;
    assert_eq!(world.status("large").await, (Status::Running, None));
}

#[tokio::test(start_paused = true)]
async fn restart_while_the_new_image_is_read_keeps_what_serves() {
    let mut world = World::new();
    let web = unread("service", &[]);
    world.post("web", None, &web).await.unwrap();
    world.run_for(A_WHILE).await;
    let first = world.get("web").await.instance;
    world.host.replace_image(&large(), Duration::from_secs(8));
    let resolution = world.resolution(&web).await;
    let spec = world.get("web").await.spec;
    let restart = hearth_engine::Restart { job: id("web"), spec, resolution };
    assert_eq!(world.ask(restart).await.unwrap().accepted, Accepted::Pending);
    world.run_for(A_WHILE).await;
    let view = world.get("web").await;
    assert_eq!((view.status, &view.instance), (Status::Running, &first));
    world.run_for(Duration::from_secs(10)).await;
    let view = world.get("web").await;
    assert_eq!(view.status, Status::Running);
    assert_ne!(view.instance, first);
}

/// Jobs with a scratch disk of 1024 MiB each.
async fn three_jobs(world: &mut World) -> usize {
    for job in ["a", "b", "c"] {
        world.post(job, None, &spec("service", &[])).await.unwrap();
    }
    world.run_for(A_WHILE).await;
    let jobs = world.stats().await.jobs;
    jobs.iter().filter(|job| job.status == Status::Running).count()
}

async fn errors(world: &mut World) -> Vec<String> {
    let events = hearth_engine::Events { job: None, after: Some(0), limit: 1000 };
    let page = world.ask(events).await.unwrap();
    let errors = page.events.into_iter().filter(|event| event.kind.as_str() == "error");
    errors.map(|event| event.message).collect()
}

#[tokio::test(start_paused = true)]
async fn scratch_disks_that_may_not_fit_start_and_it_is_told_once() {
    let mut world = World::with_disk(2500, DiskOvercommit::Warn);
    assert_eq!(three_jobs(&mut world).await, 3);
    let told = "the scratch disks of what runs may come to take 3072 MiB, and the state directory's \
                disk has 2500 MiB for them; free some, lower disk_mb, or set disk_overcommit to refuse";
    assert_eq!(errors(&mut world).await, [told]);
}

#[tokio::test(start_paused = true)]
async fn scratch_disks_that_may_not_fit_wait_where_that_is_refused() {
    let mut world = World::with_disk(2500, DiskOvercommit::Refuse);
    assert_eq!(three_jobs(&mut world).await, 2);
    let waits = "pending: no room for its scratch disk: it may take 1024 MiB and 452 MiB are left; \
                 free some of the state directory's disk, or lower disk_mb";
    assert_eq!(reason(&mut world, "c").await, waits);
    assert_eq!(errors(&mut world).await, [""; 0]);
    // A smaller one fits, and what ends makes room.
    world.post("c", None, &spec("service", &[("disk_mb", Value::Int(450))])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("c").await, (Status::Running, None));
    world.post("d", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("d").await.0, Status::Pending);
    world.ask(Delete { job: id("a") }).await.unwrap();
    world.run_for(Duration::from_secs(15)).await;
    assert_eq!(world.status("d").await, (Status::Running, None));
}
