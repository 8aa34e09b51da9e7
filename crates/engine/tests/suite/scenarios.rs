//! The seed's behaviour, on the real engine, planner and store over a simulated host.

use crate::world::{World, env, pool, spec};
use hearth_engine::{
    Accepted, Delete, Deleted, Deletions, Events, Preconditions, Refusal, Start, Stop,
};
use hearth_host::Host;
use hearth_host::sim::{Presence, SimConfig};
use hearth_model::{End, InstanceState, JobId, Mono, OomKill, Phase, Value};
use hearth_planner::Status;
use hearth_store::{Faults, Faulty, Sqlite};
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(3);

fn id(job: &str) -> JobId {
    JobId::parse(job).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_post_without_a_warm_instance_is_pending_and_then_runs() {
    let mut world = World::new();
    let (accepted, view) = world.post("web", None, &spec("service", &[])).await.unwrap();
    assert_eq!((accepted, view.status), (Accepted::Pending, Status::Pending));
    assert_eq!(view.tenant.as_str(), "web");
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("web").await, (Status::Running, None));
}

#[tokio::test(start_paused = true)]
async fn post_of_same_spec_and_tenant_claims_from_the_warm_pool() {
    let mut world = World::new();
    let web = spec("service", &[pool(2, 5)]);
    world.post("web-1", Some("prod"), &web).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.warm().await, 2);
    let (accepted, view) = world.post("web-2", Some("prod"), &web).await.unwrap();
    assert_eq!(accepted, Accepted::Claimed);
    assert!(view.instance.is_some());
    let (other, _) = world.post("web-3", Some("other"), &web).await.unwrap();
    assert_eq!(other, Accepted::Pending, "a warm instance never crosses tenants");
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("web-2").await.instance, view.instance);
    assert_eq!(world.status("web-2").await.0, Status::Running);
    assert_eq!(world.warm().await, 4, "both tenants' pools are full again");
}

#[tokio::test(start_paused = true)]
async fn claim_skips_a_warm_instance_that_has_just_died() {
    for dies in 0..2 {
        let mut world = World::new();
        let web = spec("service", &[pool(2, 2)]);
        world.post("web-1", Some("prod"), &web).await.unwrap();
        world.run_for(A_WHILE).await;
        let seen = world.host.observe(None).await.unwrap().instances;
        let first = world.get("web-1").await.instance;
        let warm: Vec<_> = seen.into_keys().filter(|id| Some(id) != first.as_ref()).collect();
        // There was no look since.
        world.host.end(&warm[dies], End::Vmm("killed".to_owned()));
        let (accepted, view) = world.post("web-2", Some("prod"), &web).await.unwrap();
        assert_eq!((accepted, view.instance), (Accepted::Claimed, Some(warm[1 - dies].clone())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_once_and_stays_completed_over_a_restart() {
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("hearth.db");
    let mut world = World::with(SimConfig::default(), Sqlite::open(&path).unwrap());
    world.post("resize", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let view = world.get("resize").await;
    assert_eq!((view.status, view.exit_code), (Status::Completed, Some(0)));
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    world.run_for(A_WHILE).await;
    let again = world.get("resize").await;
    assert_eq!((again.status, again.exit_code), (Status::Completed, Some(0)));
    assert_eq!(again.instances, view.instances, "nothing was run");
    let (accepted, _) = world.post("resize", None, &spec("job", &[])).await.unwrap();
    assert_eq!(accepted, Accepted::Pending, "the same spec runs a finished job again");
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("resize").await.instances.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn failed_job_keeps_its_code_and_is_retried_as_its_spec_says() {
    let slow = SimConfig { work: Duration::from_secs(3600), ..SimConfig::default() };
    let mut world = World::with(slow, Sqlite::in_memory().unwrap());
    world.post("job", None, &spec("job", &[("retries", Value::Int(1))])).await.unwrap();
    world.run_for(A_WHILE).await;
    let first = world.get("job").await.instance.unwrap();
    world.host.end(&first, End::Code(7));
    world.run_for(A_WHILE).await;
    let second = world.get("job").await.instance.unwrap();
    assert_ne!(first, second);
    world.host.end(&second, End::Code(7));
    world.run_for(A_WHILE).await;
    let view = world.get("job").await;
    assert_eq!(view.status, Status::Failed);
    assert_eq!(
        (view.exit_code, view.reason_at(Mono::default()).as_deref()),
        (Some(7), Some("exit code 7"))
    );
}

#[tokio::test(start_paused = true)]
async fn killed_instance_is_replaced_from_pool_and_crash_loop_waits() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[pool(1, 1)])).await.unwrap();
    world.run_for(A_WHILE).await;
    let first = world.get("web").await.instance.unwrap();
    world.host.end(&first, End::Vmm("killed".to_owned()));
    world.run_for(Duration::from_millis(60)).await;
    assert_eq!(world.status("web").await.0, Status::Running, "the pool's stood in");
    let mut starts = 0;
    let mut last = None;
    for _ in 0..6000 {
        world.run_for(Duration::from_millis(10)).await;
        let view = world.get("web").await;
        if view.status == Status::Running && view.instance != last {
            starts += 1;
            last.clone_from(&view.instance);
            world.host.end(&view.instance.unwrap(), End::Code(1));
        }
    }
    assert!((5..=8).contains(&starts), "{starts} starts in a minute");
    let (status, reason) = world.status("web").await;
    assert_eq!(status, Status::Pending);
    assert!(reason.unwrap().starts_with("exit code 1; "));
}

#[tokio::test(start_paused = true)]
async fn a_service_serves_on_until_its_next_generation_is_ready() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[env("1")])).await.unwrap();
    world.run_for(A_WHILE).await;
    let old = world.get("web").await.instance.unwrap();
    world.post("web", None, &spec("service", &[env("2")])).await.unwrap();
    world.run_for(Duration::from_millis(100)).await;
    assert!(world.host.alive(&old), "the old one serves on");
    assert_eq!(world.status("web").await.0, Status::Running);
    world.run_for(A_WHILE).await;
    let view = world.get("web").await;
    assert_ne!(view.instance.as_ref(), Some(&old));
    assert!(!world.host.alive(&old));
    assert_eq!((view.status, view.generation.0), (Status::Running, 2));
}

#[tokio::test(start_paused = true)]
async fn generation_never_ready_leaves_the_old_one_serving() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let old = world.get("web").await.instance.unwrap();
    world.host.never_ready();
    let check = Value::Map(vec![("tcp".into(), Value::Map(vec![("port".into(), 4000.into())]))]);
    world.post("web", None, &spec("service", &[("ready", check)])).await.unwrap();
    world.run_for(Duration::from_secs(70)).await;
    assert!(world.host.alive(&old));
    let (status, reason) = world.status("web").await;
    assert_eq!(status, Status::Running);
    let reason = reason.unwrap();
    assert!(
        reason.contains("not ready within 60 s") && reason.contains("keeps serving"),
        "{reason}"
    );
}

#[tokio::test(start_paused = true)]
async fn two_generations_of_a_daemon_never_run_at_once() {
    let mut world = World::new();
    world.post("consumer", None, &spec("daemon", &[env("1"), pool(1, 1)])).await.unwrap();
    world.run_for(A_WHILE).await;
    for generation in ["2", "3"] {
        world
            .post("consumer", None, &spec("daemon", &[env(generation), pool(1, 1)]))
            .await
            .unwrap();
        for _ in 0..200 {
            world.run_for(Duration::from_millis(10)).await;
            let seen = world.host.observe(None).await.unwrap();
            let running = seen.instances.values().filter(|observed| {
                matches!(observed.state, InstanceState::Up { phase: Phase::Running, .. })
            });
            assert!(running.count() <= 1);
        }
        assert_eq!(world.status("consumer").await.0, Status::Running);
    }
}

#[tokio::test(start_paused = true)]
async fn same_spec_changes_nothing_and_policy_alone_replaces_nothing() {
    let mut world = World::new();
    let web = spec("service", &[]);
    world.post("web", None, &web).await.unwrap();
    world.run_for(A_WHILE).await;
    let before = world.get("web").await;
    let (accepted, view) = world.post("web", None, &web).await.unwrap();
    assert_eq!((accepted, view.generation), (Accepted::Done, before.generation));
    let (accepted, _) = world.post("web", None, &spec("service", &[pool(1, 1)])).await.unwrap();
    assert_eq!(accepted, Accepted::Done);
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("web").await.instance, before.instance);
    assert_eq!(world.warm().await, 1);
}

#[tokio::test(start_paused = true)]
async fn another_tenants_job_is_refused_and_unchanged() {
    let mut world = World::new();
    world.post("web", Some("a"), &spec("service", &[])).await.unwrap();
    let refused = world.post("web", Some("b"), &spec("service", &[env("x")])).await;
    assert_eq!(refused.unwrap_err(), Refusal::OtherTenant(id("web")));
    assert_eq!(world.get("web").await.generation.0, 1);
    let (_, kept) = world.post("web", None, &spec("service", &[env("x")])).await.unwrap();
    assert_eq!(kept.tenant.as_str(), "a", "an omitted tenant keeps what was there");
}

#[tokio::test(start_paused = true)]
async fn deleting_takes_the_instance_and_the_pool_with_it() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[pool(2, 2)])).await.unwrap();
    world.run_for(A_WHILE).await;
    let delete = || Delete { job: id("web") };
    assert_eq!(world.ask(delete()).await, Ok(Deleted { gone: false }));
    world.run_for(A_WHILE).await;
    assert_eq!(world.ask(delete()).await, Ok(Deleted { gone: true }));
    assert!(world.host.observe(None).await.unwrap().instances.is_empty());
    let never = world.ask(Delete { job: id("never") }).await;
    assert_eq!(never, Err(Refusal::NotFound(id("never"))));
    let (_, view) = world.post("web", None, &spec("service", &[])).await.unwrap();
    assert!(view.generation.0 > 2, "a generation never falls");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_job_stays_and_starts_again() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[pool(1, 1)])).await.unwrap();
    world.run_for(A_WHILE).await;
    world.ask(Stop { job: id("web") }).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("web").await, (Status::Stopped, None));
    assert!(world.host.observe(None).await.unwrap().instances.is_empty());
    world.ask(Start { job: id("web") }).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("web").await.0, Status::Running);
}

#[tokio::test(start_paused = true)]
async fn missing_image_fails_its_job_by_name_and_is_looked_up_again() {
    let mut world = World::new();
    let web = spec("service", &[]);
    world.host.set_missing(&web.kernel, Presence::Missing);
    world.post("web", None, &web).await.unwrap();
    world.run_for(A_WHILE).await;
    let (status, reason) = world.status("web").await;
    assert_eq!(status, Status::Failed);
    assert!(reason.unwrap().contains("vmlinux"));
    world.host.set_missing(&web.kernel, Presence::There);
    world.run_for(Duration::from_secs(20)).await;
    assert_eq!(world.status("web").await.0, Status::Running);
}

#[tokio::test(start_paused = true)]
async fn job_that_does_not_fit_evicts_warm_ones_and_waits() {
    let small = SimConfig { memory_mib: 3 * 133, ..SimConfig::default() };
    let mut world = World::with(small, Sqlite::in_memory().unwrap());
    world.post("a", None, &spec("service", &[pool(2, 2)])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.warm().await, 2);
    world.post("b", None, &spec("service", &[env("b")])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("b").await.0, Status::Running);
    assert_eq!(world.warm().await, 1);
    let big = spec(
        "service",
        &[(
            "resources",
            Value::Map(vec![("vcpu".into(), 1.into()), ("mem_mb".into(), 4096.into())]),
        )],
    );
    world.post("c", None, &big).await.unwrap();
    world.run_for(A_WHILE).await;
    let (status, reason) = world.status("c").await;
    assert_eq!(status, Status::Pending);
    assert!(reason.unwrap().starts_with("waiting for capacity: it needs 1 vCPU and 4101 MiB"));
    assert_eq!(world.warm().await, 1, "what can never fit evicts no instance");
}

#[tokio::test(start_paused = true)]
async fn restart_right_after_a_claim_keeps_it_and_changes_nothing() {
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("hearth.db");
    let mut world = World::with(SimConfig::default(), Sqlite::open(&path).unwrap());
    let web = spec("service", &[pool(1, 1)]);
    world.post("web-1", Some("p"), &web).await.unwrap();
    world.run_for(A_WHILE).await;
    let (_, claimed) = world.post("web-2", Some("p"), &web).await.unwrap();
    let before = world.host.observe(None).await.unwrap();
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    world.run_for(A_WHILE).await;
    let view = world.get("web-2").await;
    assert_eq!((view.status, view.instance), (Status::Running, claimed.instance));
    let after = world.host.observe(None).await.unwrap();
    assert!(before.instances.keys().all(|id| after.instances.contains_key(id)));
}

#[tokio::test(start_paused = true)]
async fn a_failed_look_is_not_an_empty_world() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let before = world.get("web").await.instance;
    world.host.go_blind();
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("web").await.instance, before);
}

/// The word came after the last look, and the next look comes after the time in which it should have been
/// taken: the guest runs its command, though no look has shown it.
#[tokio::test(start_paused = true)]
async fn guest_told_late_is_observed_before_it_is_replaced() {
    let mut world = World::new();
    let held = spec("job", &[pool(2, 2), ("retries", Value::Int(0))]);
    world.post("first", None, &held).await.unwrap();
    world.run_for(A_WHILE).await;
    world.tells_wait = true;
    let (accepted, claimed) = world.post("second", None, &held).await.unwrap();
    assert_eq!(accepted, Accepted::Claimed);
    world.run_for(Duration::from_secs(3)).await;
    world.host.go_blind();
    tokio::time::sleep(Duration::from_millis(800)).await;
    world.tell().await;
    for _ in 0..40 {
        world.step().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = world.get("second").await;
        assert_eq!(now.instance, claimed.instance, "{:?}", now.reason);
    }
}

#[tokio::test(start_paused = true)]
async fn file_entry_applies_when_it_changes_and_http_wins_until_then() {
    let mut world = World::new();
    let (web, changed) = (spec("service", &[env("1")]), spec("service", &[env("2")]));
    let report = world.load(&[("web", &web)], Deletions::Few).await;
    assert_eq!(report.create, [id("web")]);
    world.post("web", None, &changed).await.unwrap();
    assert_eq!(world.load(&[("web", &web)], Deletions::Few).await.unchanged, 1);
    assert_eq!(world.get("web").await.spec.env["V"], "2", "a change over HTTP persists");
    let report = world.load(&[], Deletions::All).await;
    assert!(report.deleted.is_empty(), "HTTP has changed it since");
    assert_eq!(report.kept, [id("web")]);
}

#[tokio::test(start_paused = true)]
async fn file_that_drops_most_of_its_jobs_deletes_none_unasked() {
    let mut world = World::new();
    let web = spec("service", &[]);
    let all: Vec<(&str, &_)> = ["a", "b", "c"].map(|name| (name, &web)).to_vec();
    world.load(&all, Deletions::Few).await;
    assert_eq!(world.load(&all[..1], Deletions::Few).await.held.len(), 2);
    assert_eq!(world.load(&all[..2], Deletions::Wait).await.held.len(), 1);
    assert_eq!(world.load(&all[..2], Deletions::Few).await.deleted, [id("c")]);
    assert_eq!(world.load(&[], Deletions::All).await.deleted.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_instances_die_backs_off_and_says_why() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[pool(1, 1)])).await.unwrap();
    let mut deaths = 0;
    for _ in 0..3000 {
        world.run_for(Duration::from_millis(10)).await;
        for vm in world.stats().await.warm_pool.iter().filter(|vm| vm.status == "warm") {
            deaths += 1;
            world.host.end(&vm.instance, End::Panic("Oops".to_owned()));
        }
    }
    assert!((4..=7).contains(&deaths), "{deaths} deaths in 30 s");
    assert_eq!(world.status("web").await.0, Status::Running, "the job itself is unharmed");
}

#[tokio::test(start_paused = true)]
async fn failed_commit_refuses_the_request_and_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearth.db");
    let mut world = World::with(SimConfig::default(), Sqlite::open(&path).unwrap());
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let before = world.get("web").await;
    let seen = world.host.observe(None).await.unwrap();

    let other = rusqlite::Connection::open(&path).unwrap();
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON events
                   BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END";
    other.execute_batch(trigger).unwrap();
    let refused = world.post("api", None, &spec("service", &[])).await.unwrap_err();
    assert!(matches!(&refused, Refusal::Store { detail, .. } if detail.contains("on fire")));
    let refused = world.ask(Delete { job: id("web") }).await.unwrap_err();
    assert!(matches!(refused, Refusal::Store { .. }));
    world.run_for(A_WHILE).await;
    assert_eq!(world.host.observe(None).await.unwrap(), seen, "nothing was done");
    assert_eq!(world.find("api").await, None);

    other.execute_batch("DROP TRIGGER full").unwrap();
    world.post("api", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("api").await.0, Status::Running);
    assert_eq!(world.get("web").await, before);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_beside_a_change_shows_what_is_on_disk() {
    let faults = Faults::default();
    let store = Faulty::over(Sqlite::in_memory().unwrap(), faults.clone());
    let mut world = World::with(SimConfig::default(), store);
    let (_, view) = world.post("web", None, &spec("service", &[env("1")])).await.unwrap();
    world.run_for(A_WHILE).await;
    let all = async |world: &mut World| {
        let none = || Preconditions::NONE;
        let replace = world.upsert("web", None, &spec("service", &[env("2")])).await;
        let create = world.upsert("api", None, &spec("service", &[])).await;
        let changes = [replace, create].map(|upsert| world.ask_later(none(), upsert));
        let delete = world.ask_later(none(), Delete { job: id("unknown") });
        world.step().await;
        let changes = changes.map(|answer| answer.get().map(drop));
        let view = world.engine.view();
        let shown = ["web", "api"].map(|job| view.job(&id(job)).map(|shown| shown.generation));
        (changes, delete.get().map(drop), shown)
    };
    faults.set_disk_full(true);
    let (changes, delete, shown) = all(&mut world).await;
    for refused in changes.into_iter().chain([delete]) {
        assert!(matches!(refused, Err(Refusal::Store { .. })), "{refused:?}");
    }
    assert_eq!(shown, [Some(view.generation), None]);
    faults.set_disk_full(false);
    let (changes, _, shown) = all(&mut world).await;
    assert_eq!(changes, [Ok(()), Ok(())]);
    assert!(shown[0] > Some(view.generation) && shown[1].is_some(), "{shown:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_identified_may_be_alive_and_gets_no_successor() {
    let slow = SimConfig { work: Duration::from_secs(3600), ..SimConfig::default() };
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("hearth.db");
    let mut world = World::with(slow, Sqlite::open(&path).unwrap());
    for (job, lifecycle) in [("web", "service"), ("worker", "daemon"), ("resize", "job")] {
        let retries = [("retries", Value::Int(3))];
        let more = if lifecycle == "job" { &retries[..] } else { &[] };
        world.post(job, None, &spec(lifecycle, more)).await.unwrap();
    }
    world.run_for(A_WHILE).await;
    let before = world.host.observe(None).await.unwrap().instances;
    assert_eq!(before.len(), 3);
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    let why = "its directory is left alone: no descriptors";
    world.unidentified = before.keys().map(|id| (id.clone(), why.to_owned())).collect();
    world.run_for(Duration::from_secs(600)).await;
    assert_eq!(world.host.observe(None).await.unwrap().instances, before, "nothing was done");
    assert_eq!(world.stats().await.unidentified, [why; 3]);
    let events = Events { job: Some(id("resize")), after: None, limit: 1000 };
    let page = world.ask(events).await.unwrap();
    let said = page.events.iter().filter(|event| event.message == why).count();
    assert_eq!(said, 1, "{page:?}");

    world.unidentified.clear();
    world.run_for(A_WHILE).await;
    assert_eq!(world.host.observe(None).await.unwrap().instances, before);
    for job in ["web", "worker", "resize"] {
        assert_eq!(world.status(job).await, (Status::Running, None), "{job}");
    }
}

#[tokio::test(start_paused = true)]
async fn host_reboot_restarts_services_and_reruns_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hearth.db");
    let slow = SimConfig { work: Duration::from_secs(3600), ..SimConfig::default() };
    let mut world = World::with(slow, Sqlite::open(&path).unwrap());
    world.post("web", None, &spec("service", &[pool(7, 7)])).await.unwrap();
    world.post("job", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!((world.status("job").await.0, world.warm().await), (Status::Running, 7));
    drop(world);
    let mut world = World::booted(Sqlite::open(&path).unwrap());
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("web").await.0, Status::Running);
    let (status, reason) = world.status("job").await;
    assert_eq!((status, reason.as_deref()), (Status::Failed, Some("exit unknown")));
    assert_eq!(world.warm().await, 7, "an end with the host's is no failure of the pool");
}

#[tokio::test(start_paused = true)]
async fn failed_action_is_retried_only_after_a_cooldown() {
    let mut world = World::new();
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    world.host.refuse("remove", 3);
    world.ask(Delete { job: id("web") }).await.unwrap();
    world.run_for(Duration::from_millis(2500)).await;
    assert_eq!(world.host.observe(None).await.unwrap().instances.len(), 1);
    world.run_for(Duration::from_millis(1500)).await;
    assert!(world.host.observe(None).await.unwrap().instances.is_empty());
    let events = Events { job: Some(id("web")), after: None, limit: 100 };
    let events = world.ask(events).await.unwrap().events;
    assert_eq!(events.iter().filter(|event| event.kind.as_str() == "error").count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_fails_backs_off_with_its_reason() {
    let mut world = World::new();
    world.host.refuse("create", 4);
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(Duration::from_secs(4)).await;
    let (status, reason) = world.status("web").await;
    assert_eq!(status, Status::Pending);
    assert!(reason.unwrap().starts_with("the simulated host refuses to create; 4 failures"));
    world.run_for(Duration::from_secs(8)).await;
    assert_eq!(world.status("web").await.0, Status::Running);
}

#[tokio::test(start_paused = true)]
async fn job_that_could_not_be_created_has_not_failed_and_runs_later() {
    let mut world = World::new();
    world.host.refuse("create", 2);
    world.post("job", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("job").await.0, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn daemon_job_runs_until_its_new_generation_can_start() {
    let mut world = World::new();
    world.post("eater", None, &spec("daemon", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let before = world.get("eater").await.instance;
    let gone = hearth_model::ImageName::parse("gone.ext4").unwrap();
    world.host.set_missing(&gone, Presence::Missing);
    world.post("eater", None, &spec("daemon", &[("rootfs", "gone.ext4".into())])).await.unwrap();
    world.run_for(A_WHILE).await;
    let view = world.get("eater").await;
    assert_eq!((view.status, view.instance.clone()), (Status::Running, before.clone()));
    assert!(view.reason_at(Mono::default()).unwrap().contains("gone.ext4"));
    let resources = |mem_mb| {
        let fields = vec![("vcpu".into(), Value::Int(1)), ("mem_mb".into(), Value::Int(mem_mb))];
        ("resources", Value::Map(fields))
    };
    world.post("eater", None, &spec("daemon", &[resources(1_000_000)])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("eater").await.instance, before, "more than the host has");
    let (_, view) = world.post("eater", None, &spec("daemon", &[resources(256)])).await.unwrap();
    assert!(
        !view.reason_at(Mono::default()).unwrap_or_default().contains("capacity"),
        "what it waited for is past"
    );
    world.run_for(A_WHILE).await;
    let view = world.get("eater").await;
    assert!(view.status == Status::Running && view.instance != before, "{view:?}");
}

#[tokio::test(start_paused = true)]
async fn stop_uses_the_policy_that_its_job_has_now() {
    let signal = |name: &str| ("stop_signal", Value::String(name.to_owned()));
    let how_it_ended = async |world: &mut World, job: &str| {
        world.ask(Stop { job: id(job) }).await.unwrap();
        world.run_for(A_WHILE).await;
        let exited = events(world, job, "exited").await.pop().unwrap();
        exited.split_once(" ended: ").unwrap().1.to_owned()
    };
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("hearth.db");
    let mut world = World::with(SimConfig::default(), Sqlite::open(&path).unwrap());
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.post("founder", None, &spec("service", &[pool(1, 1), env("1")])).await.unwrap();
    world.run_for(A_WHILE).await;
    // Changed while it runs, and over a restart of the daemon.
    world.post("web", None, &spec("service", &[signal("SIGINT")])).await.unwrap();
    // Claimed from a pool of instances that were made with another policy.
    let quits = spec("service", &[pool(1, 1), env("1"), signal("SIGQUIT")]);
    assert_eq!(world.post("claims", None, &quits).await.unwrap().0, Accepted::Claimed);
    world.run_for(A_WHILE).await;
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    world.run_for(A_WHILE).await;
    assert_eq!(how_it_ended(&mut world, "web").await, "killed by signal 2");
    assert_eq!(how_it_ended(&mut world, "claims").await, "killed by signal 3");
    assert_eq!(how_it_ended(&mut world, "founder").await, "killed by signal 15");
}

/// The messages of a job's events of a kind.
async fn events(world: &mut World, job: &str, kind: &str) -> Vec<String> {
    let events = Events { job: Some(id(job)), after: None, limit: 100 };
    let page = world.ask(events).await.unwrap();
    page.events
        .into_iter()
        .filter(|event| event.kind.as_str() == kind)
        .map(|event| event.message)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn oom_kills_are_events_each_told_once() {
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("hearth.db");
    let mut world = World::with(SimConfig::default(), Sqlite::open(&path).unwrap());
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    let instance = world.get("web").await.instance.unwrap();
    let kill = |pid| OomKill { pid, name: "tail".to_owned() };
    let said =
        |what: &str| format!("{} is short of memory: its kernel killed {what}", instance.vm_id());
    world.host.oom_kill(&instance, kill(42));
    world.run_for(A_WHILE).await;
    let first = said("process 42 (tail)");
    assert_eq!(events(&mut world, "web", "oom-kill").await.join(""), first);
    assert_eq!(world.status("web").await, (Status::Running, None), "it changes nothing else");
    // One after the other: together, and not before some time is over.
    (43..=45).for_each(|pid| world.host.oom_kill(&instance, kill(pid)));
    world.run_for(A_WHILE).await;
    assert_eq!(events(&mut world, "web", "oom-kill").await.len(), 1);
    world.run_for(Duration::from_secs(30)).await;
    let second = said("process 45 (tail) and 2 before");
    assert_eq!(events(&mut world, "web", "oom-kill").await, [first.clone(), second.clone()]);
    // The next daemon tells nothing again, and what was not told yet at the end.
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    world.run_for(A_WHILE).await;
    assert_eq!(events(&mut world, "web", "oom-kill").await.len(), 2);
    world.host.oom_kill(&instance, kill(46));
    world.host.oom_kill(&instance, kill(47));
    world.host.end(&instance, End::Code(3));
    world.run_for(A_WHILE).await;
    let third = said("process 47 (tail) and 1 before");
    assert_eq!(events(&mut world, "web", "oom-kill").await, [first, second, third]);
    let exited = events(&mut world, "web", "exited").await;
    assert!(exited[0].ends_with("exit code 3"), "{exited:?}");
}
