//! Who asked for what, in the events.

use crate::world::{World, spec};
use hearth_engine::{Delete, Deletions, Event, Events, Incident, Start, Stop};
use hearth_model::{Caller, JobId, KnownBy, Value};
use hearth_store::Sqlite;
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(3);
const ALICE: Caller = Caller::User { uid: 1000, known_by: KnownBy::PeerCredentials };
const BOB: Caller = Caller::User { uid: 1001, known_by: KnownBy::SocketOwner };

fn id(job: &str) -> JobId {
    JobId::parse(job).unwrap()
}

/// All events, oldest first.
async fn events(world: &mut World) -> Vec<Event> {
    world.ask(Events { job: None, after: Some(0), limit: 1000 }).await.unwrap().events
}

/// Those that have a caller: kind, job, caller.
async fn called(world: &mut World) -> Vec<(String, Option<JobId>, Caller)> {
    let word = |event: &Event| event.kind.as_str().to_owned();
    let events = events(world).await;
    events
        .iter()
        .filter_map(|event| Some((word(event), event.job.clone(), event.caller?)))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_change_names_its_caller() {
    let mut world = World::new();
    let of_web = |kind: &str, caller| (kind.to_owned(), Some(id("web")), caller);
    world.caller = ALICE;
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    world.caller = BOB;
    world.ask(Stop { job: id("web") }).await.unwrap();
    world.caller = Caller::Unknown;
    world.ask(Start { job: id("web") }).await.unwrap();
    world.run_for(A_WHILE).await;
    world.caller = BOB;
    world.ask(Incident { job: Some(id("web")), message: "m".to_owned() }).await.unwrap();
    assert_eq!(
        called(&mut world).await,
        [
            of_web("accepted", ALICE),
            of_web("accepted", BOB),
            of_web("accepted", Caller::Unknown),
            of_web("error", BOB),
        ]
    );
    let all = events(&mut world).await;
    assert!(all.len() > 6, "what follows from a change has no caller: {all:?}");
}

#[tokio::test(start_paused = true)]
async fn deletion_names_its_caller_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearth.db");
    let mut world = World::with(Default::default(), Sqlite::open(&path).unwrap());
    world.caller = ALICE;
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    world.caller = BOB;
    assert!(!world.ask(Delete { job: id("web") }).await.unwrap().gone);
    world.caller = ALICE;
    // A second request for the same is not whose deletion it is.
    assert!(!world.ask(Delete { job: id("web") }).await.unwrap().gone);
    let mut world = world.restart(Sqlite::open(&path).unwrap());
    world.run_for(A_WHILE).await;
    let called = called(&mut world).await;
    let deleted = ("deleted".to_owned(), Some(id("web")), BOB);
    assert_eq!(called.last(), Some(&deleted), "{called:?}");
    assert_eq!(called.len(), 3, "{called:?}");
}

#[tokio::test(start_paused = true)]
async fn loads_and_own_deletions_name_the_file_and_hearth() {
    let mut world = World::new();
    world.caller = Caller::DesiredFile;
    let web = spec("service", &[]);
    world.load(&[("web", &web), ("api", &web)], Deletions::All).await;
    world.load(&[("web", &web)], Deletions::All).await;
    world.caller = ALICE;
    world.post("once", None, &spec("job", &[("auto_remove", Value::Bool(true))])).await.unwrap();
    world.run_for(Duration::from_secs(30)).await;
    let of = |kind: &str, job: Option<&str>, caller| (kind.to_owned(), job.map(id), caller);
    let file = Caller::DesiredFile;
    assert_eq!(
        called(&mut world).await,
        [
            of("accepted", Some("web"), file),
            of("accepted", Some("api"), file),
            of("loaded", None, file),
            of("accepted", Some("api"), file),
            of("loaded", None, file),
            of("accepted", Some("once"), ALICE),
            of("deleted", Some("api"), file),
            of("accepted", Some("once"), Caller::Hearth),
            of("deleted", Some("once"), Caller::Hearth),
        ]
    );
}
