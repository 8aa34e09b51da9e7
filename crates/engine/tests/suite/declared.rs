//! Loads of declared jobs: what a plan says, an apply does. [`World::apply`] holds every plan here
//! to what applying it answers.

use crate::world::{World, env, pool, spec};
use hearth_engine::{Delete, Deletions, DiffBase, FileLoad, LoadPlan, PlanFile, Stop, Why};
use hearth_host::sim::Presence;
use hearth_model::{JobId, Spec, Value};
use hearth_planner::Status;
use hearth_store::Sqlite;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(5);

fn id(job: &str) -> JobId {
    JobId::parse(job).unwrap()
}

/// `hearth apply -f vms.exs`.
async fn explicit(world: &mut World, jobs: &[(&str, &Spec)], deletions: Deletions) -> LoadPlan {
    let load = world.watched(jobs, deletions).await;
    world.apply(FileLoad { against: DiffBase::Jobs, ..load }).await
}

/// `hearth apply -f -`.
async fn from_stdin(world: &mut World, jobs: &[(&str, &Spec)]) -> LoadPlan {
    let load = world.watched(jobs, Deletions::All).await;
    world.apply(FileLoad { against: DiffBase::Jobs, path: None, ..load }).await
}

fn whys(plan: &LoadPlan) -> Vec<(&str, Why)> {
    plan.replace.iter().map(|change| (change.job.as_str(), change.why)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_for_each_entry_what_applying_does() {
    let mut world = World::new();
    let (one, two) = (spec("service", &[env("1")]), spec("service", &[env("2")]));
    let patient = spec("service", &[env("1"), ("stop_timeout_s", Value::Int(30))]);
    let all = [("gone", &one), ("new", &one), ("patient", &one), ("same", &one)];
    assert_eq!(explicit(&mut world, &all, Deletions::Few).await.create.len(), 4);
    world.run_for(A_WHILE).await;
    let (new, old) = (world.get("new").await, world.get("patient").await);
    world.post("theirs", Some("else"), &one).await.unwrap();
    let mut load = world
        .watched(
            &[
                ("fresh", &one),
                ("new", &two),
                ("patient", &patient),
                ("same", &one),
                ("theirs", &one),
            ],
            Deletions::Few,
        )
        .await;
    load.entries[4].tenant = Some(hearth_model::Tenant::parse("mine").unwrap());
    let plan = world.apply(FileLoad { against: DiffBase::Jobs, ..load }).await;
    assert_eq!(plan.create, [id("fresh")]);
    assert_eq!(whys(&plan), [("new", Why::Spec)]);
    assert_eq!((&*plan.replace[0].before, &*plan.replace[0].after), (&one, &two));
    assert_eq!(plan.update.len(), 1);
    assert_eq!(plan.update[0].job, id("patient"));
    assert_eq!(plan.deleted, [id("gone")]);
    assert_eq!(plan.unchanged, 1);
    assert_eq!(plan.refused.len(), 1);
    assert!(plan.refused[0].1.contains("another tenant"), "{}", plan.refused[0].1);
    world.run_for(A_WHILE).await;
    assert_eq!(world.get("patient").await.instance, old.instance, "its microVM stays");
    assert_ne!(world.get("new").await.instance, new.instance);
    assert_eq!(world.status("fresh").await.0, Status::Running);
    assert!(world.stats().await.jobs.iter().all(|job| job.job != id("gone")));
}

#[tokio::test(start_paused = true)]
async fn a_plan_changes_nothing() {
    let mut world = World::new();
    let web = spec("service", &[pool(1, 1)]);
    world.load(&[("a", &web), ("b", &web)], Deletions::Few).await;
    world.run_for(A_WHILE).await;
    let before = world.stats().await;
    let load = world.watched(&[("c", &web)], Deletions::All).await;
    for against in [DiffBase::LastApplied, DiffBase::Jobs] {
        let plan = world.ask(PlanFile(FileLoad { against, ..load.clone() })).await.unwrap();
        assert_eq!((plan.create.len(), plan.deleted.len()), (1, 2));
    }
    world.run_for(A_WHILE).await;
    assert_eq!(world.stats().await, before);
    assert_eq!(world.load(&[("a", &web), ("b", &web)], Deletions::Few).await.unchanged, 2);
}

#[tokio::test(start_paused = true)]
async fn explicit_apply_undoes_http_changes_and_watched_file_does_not() {
    let mut world = World::new();
    let (one, two) = (spec("service", &[env("1")]), spec("service", &[env("2")]));
    let all = [("changed", &one), ("deleted", &one), ("stopped", &one)];
    explicit(&mut world, &all, Deletions::Few).await;
    world.run_for(A_WHILE).await;
    world.post("changed", None, &two).await.unwrap();
    world.ask(Delete { job: id("deleted") }).await.unwrap();
    world.ask(Stop { job: id("stopped") }).await.unwrap();
    assert_eq!(world.load(&all, Deletions::Few).await.unchanged, 3, "nothing in the file changed");
    let plan = explicit(&mut world, &all, Deletions::Few).await;
    assert_eq!(
        whys(&plan),
        [("changed", Why::Spec), ("deleted", Why::BeingDeleted), ("stopped", Why::Stopped)]
    );
    world.run_for(A_WHILE).await;
    for (job, _) in all {
        assert_eq!(world.status(job).await.0, Status::Running, "{job}");
    }
    world.ask(Delete { job: id("deleted") }).await.unwrap();
    world.run_for(A_WHILE).await;
    let plan = explicit(&mut world, &all, Deletions::Few).await;
    assert_eq!((plan.create, plan.unchanged), (vec![id("deleted")], 2));
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_not_run_again_until_its_entry_changes() {
    let mut world = World::new();
    let (one, two) = (spec("job", &[env("1")]), spec("job", &[env("2")]));
    explicit(&mut world, &[("once", &one)], Deletions::Few).await;
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("once").await.0, Status::Completed);
    assert_eq!(explicit(&mut world, &[("once", &one)], Deletions::Few).await.unchanged, 1);
    assert_eq!(from_stdin(&mut world, &[("once", &one)]).await.unchanged, 1);
    let plan = explicit(&mut world, &[("once", &two)], Deletions::Few).await;
    assert_eq!(whys(&plan), [("once", Why::Finished)]);
    world.run_for(A_WHILE).await;
    assert_eq!(world.status("once").await.0, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn jobs_without_a_file_delete_nothing_and_are_not_remembered() {
    let mut world = World::new();
    let web = spec("service", &[]);
    world.load(&[("a", &web), ("b", &web)], Deletions::Few).await;
    let plan = from_stdin(&mut world, &[("c", &web)]).await;
    assert_eq!((plan.create, plan.deleted), (vec![id("c")], vec![]));
    let plan = from_stdin(&mut world, &[("a", &web)]).await;
    assert_eq!((plan.unchanged, plan.deleted), (1, vec![]));
    let plan = explicit(&mut world, &[], Deletions::All).await;
    assert_eq!(plan.deleted, [id("a"), id("b")], "c is no file's");
}

#[tokio::test(start_paused = true)]
async fn deleting_over_half_of_a_file_needs_permission_one_job_never() {
    let mut world = World::new();
    let web = spec("service", &[]);
    let all = [("a", &web), ("b", &web), ("c", &web)];
    explicit(&mut world, &all, Deletions::Few).await;
    let plan = explicit(&mut world, &all[..1], Deletions::Few).await;
    assert_eq!((plan.deleted, plan.held), (vec![], vec![id("b"), id("c")]));
    let plan = explicit(&mut world, &all[..1], Deletions::All).await;
    assert_eq!((plan.deleted, plan.held), (vec![id("b"), id("c")], vec![]));
    assert_eq!(explicit(&mut world, &[], Deletions::Few).await.deleted, [id("a")]);
}

#[tokio::test(start_paused = true)]
async fn job_changed_over_http_survives_leaving_the_file_until_apply() {
    let mut world = World::new();
    let (one, two) = (spec("service", &[env("1")]), spec("service", &[env("2")]));
    explicit(&mut world, &[("a", &one), ("b", &one)], Deletions::Few).await;
    world.post("a", None, &two).await.unwrap();
    world.post("b", None, &two).await.unwrap();
    // The file follows: nothing is to be done, and the job is the file's again.
    assert_eq!(
        explicit(&mut world, &[("a", &two), ("b", &one)], Deletions::Few).await.unchanged,
        1
    );
    world.post("b", None, &two).await.unwrap();
    let plan = explicit(&mut world, &[], Deletions::All).await;
    assert_eq!((plan.deleted, plan.kept), (vec![id("a")], vec![id("b")]));
    let plan = explicit(&mut world, &[], Deletions::All).await;
    assert_eq!(plan, LoadPlan::default(), "it is in no file now");
}

#[tokio::test(start_paused = true)]
async fn pool_drains_when_its_last_job_is_deleted_or_changed() {
    let mut world = World::new();
    let (one, two) = (spec("service", &[env("1"), pool(2, 2)]), spec("service", &[env("2")]));
    let (acme, mut load) = (Some(hearth_model::Tenant::parse("acme").unwrap()), Vec::new());
    for jobs in [
        vec![("a", &one), ("b", &one)],
        vec![("a", &one), ("b", &two)],
        vec![("a", &two), ("b", &two), ("c", &one)],
        vec![("a", &two), ("b", &two), ("c", &two)],
    ] {
        let mut next = world.watched(&jobs, Deletions::All).await;
        next.entries.iter_mut().for_each(|entry| entry.tenant.clone_from(&acme));
        load.push(next);
    }
    let mut load = load.into_iter();
    world.apply(load.next().unwrap()).await;
    world.run_for(A_WHILE).await;
    assert_eq!(world.warm().await, 2);
    let hash = world.get("a").await.hash.unwrap();
    let plan = world.apply(load.next().unwrap()).await;
    assert_eq!(plan.drained, [], "a still requests it");
    world.run_for(A_WHILE).await;
    let plan = world.apply(load.next().unwrap()).await;
    assert_eq!(plan.drained, [], "c requests it from now on");
    world.run_for(A_WHILE).await;
    let plan = world.apply(load.next().unwrap()).await;
    let drained: Vec<_> = plan.drained.iter().map(|pool| (pool.hash, pool.instances)).collect();
    assert_eq!(drained, [(hash, 2)]);
    world.run_for(A_WHILE).await;
    assert_eq!(world.warm().await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_is_remembered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    let mut world = World::with(Default::default(), Sqlite::open(&path).unwrap());
    let web = spec("service", &[]);
    explicit(&mut world, &[("a", &web), ("b", &web)], Deletions::Few).await;
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    assert_eq!(world.load(&[("a", &web)], Deletions::Few).await.deleted, [id("b")]);
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    assert_eq!(world.load(&[], Deletions::Few).await.deleted, [id("a")]);
}

#[tokio::test(start_paused = true)]
async fn changed_images_are_a_reason_only_for_changed_entries() {
    let mut world = World::new();
    let (web, patient) =
        (spec("service", &[]), spec("service", &[("stop_timeout_s", Value::Int(30))]));
    explicit(&mut world, &[("web", &web)], Deletions::Few).await;
    world.run_for(A_WHILE).await;
    world.host.set_missing(web.rootfs.as_ref().unwrap(), Presence::Missing);
    assert_eq!(explicit(&mut world, &[("web", &web)], Deletions::Few).await.unchanged, 1);
    let plan = explicit(&mut world, &[("web", &patient)], Deletions::Few).await;
    assert_eq!(whys(&plan), [("web", Why::Images)]);
}
