//! What the engine counts on, whatever the store.

use hearth_model::{
    Assignment, Caller, Creation, Digest, End, Exit, Generation, Images, Instance, InstanceId,
    InstanceState, Job, JobId, Mono, Outcome, PoolKey, PoolTenant, Progress, Resolution, Slot,
    Spec, SpecHash, Stage, Tenant, Value, Wanted,
};
use hearth_store::{
    Accepted, AppliedEntry, Changes, Event, EventKind, EventPage, Events, ExitNote, Faults, Faulty,
    InstanceRow, JobExit, JobNotes, JobRow, KEY_LIVES, KEYS_MAX, Loaded, Memory, Past, ProgressRow,
    Sqlite, Store, Tombstone, Used,
};
use std::path::PathBuf;
use std::sync::Arc;

/// Each of these is a test of either store.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::$name(super::Sqlite::in_memory().unwrap().into()) })*
        }
        mod memory {
            $(#[test] fn $name() { super::$name(super::Memory::default().into()) })*
        }
    };
}

contract!(
    what_was_committed_is_loaded_again,
    progress_alone_leaves_the_rest_of_its_job,
    removed_rows_are_gone,
    refused_commit_changes_nothing,
    keys_go_by_age_and_by_count,
    keys_of_an_earlier_boot_are_as_old_as_this_one,
    events_are_read_from_either_end,
    events_before_the_first_go,
    commit_of_nothing_and_probe_change_nothing,
);

fn job_id(name: &str) -> JobId {
    JobId::parse(name).unwrap()
}

fn instance_id(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

fn images() -> Images {
    Images { kernel: Digest([1; 32]), modules: Some(Digest([2; 32])), rootfs: None }
}

fn spec() -> Arc<Spec> {
    let size = vec![("vcpu".into(), Value::Int(1)), ("mem_mb".into(), Value::Int(100))];
    let fields = vec![
        ("rootfs".into(), "r.ext4".into()),
        ("kernel".into(), "k".into()),
        ("cmd".into(), Value::List(vec!["/a".into(), "\"ö".into()])),
        ("resources".into(), Value::Map(size)),
        ("lifecycle".into(), "job".into()),
    ];
    Arc::new(Spec::read(&Value::Map(fields)).unwrap())
}

/// A job with everything in it, and what is kept beside it.
fn job(name: &str) -> (Job, JobNotes) {
    let job = Job {
        id: job_id(name),
        tenant: Tenant::parse("t").unwrap(),
        tenant_given: true,
        generation: Generation(7),
        run: Generation(5),
        spec: spec(),
        wanted: Wanted::Stopped,
        progress: Progress {
            outcome: Some(Outcome::Failed("exit code 3".to_owned())),
            failures: 2,
            not_before: Some(Mono::from_millis(1234)),
            last_failure: Some("exit code 3".to_owned()),
            ..Progress::begun(Resolution::Known { images: images(), hash: SpecHash([3; 32]) })
        },
    };
    let exit = JobExit { end: End::Code(3), timed_out: true };
    let notes = JobNotes {
        past: vec![Past { instance: "abc".to_owned(), removed_at_ms: 5 }],
        exit_code: Some(3),
        exit: Some(ExitNote::of(5, &exit)),
        status: "failed".to_owned(),
        reason: Some("exit code 3".to_owned()),
        since: "2026-11-25T00:00:00Z".to_owned(),
        finished_at_ms: Some(99),
        deleted_by: Some("hearth".to_owned()),
    };
    (job, notes)
}

fn instance(name: &str, assignment: Assignment) -> Instance {
    Instance {
        id: instance_id(name),
        slot: Slot(3),
        assignment,
        hash: SpecHash([3; 32]),
        images: images(),
        spec: spec(),
        stage: Stage::Init,
        created_at: Mono::from_millis(10),
        seen_at: None,
        awaiting_first_report: false,
        silence: 0,
        unconfined: false,
        running_since: Some(Mono::from_millis(11)),
        ready_since: Some(Mono::from_millis(12)),
        oom_kills: 4,
        oom_told_at: None,
        assign_failure: None,
        stopping: Some("because".to_owned()),
        state: Some(InstanceState::Exited(Exit { end: End::Signal(9), stop_requested: true })),
        creation: Creation::Confirmed,
    }
}

fn put(store: &mut dyn Store, changes: &Changes<'_>) {
    store.commit(changes).unwrap();
}

fn put_job(store: &mut dyn Store, job: &Job, notes: &JobNotes) {
    let id = &job.id;
    let changes = Changes {
        jobs: vec![(id.clone(), Some(JobRow::of(job)))],
        progress: vec![(id.clone(), Some(ProgressRow::of(&job.progress, notes)))],
        ..Changes::default()
    };
    put(store, &changes);
}

fn event(id: u64, job: Option<&str>) -> Event {
    Event {
        id,
        at: "2026-11-25T00:00:00Z".to_owned(),
        job: job.map(job_id),
        instance: (!id.is_multiple_of(2)).then(|| instance_id("abc")),
        generation: Some(Generation(id)),
        caller: id.is_multiple_of(2).then_some(Caller::DesiredFile),
        kind: EventKind::Stopping { reason: Some(format!("reason {id}")) },
        message: format!("event {id}"),
    }
}

fn used(at_ms: u64) -> Used {
    Used {
        digest: "d".to_owned(),
        job: job_id("web"),
        accepted: Accepted::Claimed,
        at: Mono::from_millis(at_ms),
    }
}

fn keys(keys: &[(&str, u64)]) -> Changes<'static> {
    let keys = keys.iter().map(|(key, at_ms)| ((*key).to_owned(), used(*at_ms))).collect();
    Changes { keys, ..Changes::default() }
}

fn page(
    store: &dyn Store,
    job: Option<&str>,
    after: Option<u64>,
    limit: usize,
) -> (Vec<u64>, bool) {
    let query = Events { job: job.map(job_id), after, limit };
    let EventPage { events, more, .. } = store.events(&query).unwrap();
    (events.iter().map(|event| event.id).collect(), more)
}

/// Rows of each kind, with which a store is no longer empty.
fn all_kinds(store: &mut dyn Store) -> Loaded {
    let (web, notes) = job("web");
    put_job(store, &web, &notes);
    let of_job = Assignment::Job { job: job_id("web"), run: Generation(5), claimed_at: None };
    let key = PoolKey { tenant: PoolTenant::Shared, hash: SpecHash([3; 32]) };
    let instances = [instance("a", of_job), instance("b", Assignment::Pool(key))];
    let tombstone = Tombstone { generation: Generation(4), event: 2 };
    let entry = AppliedEntry { digest: "d".to_owned(), generation: Generation(7) };
    let file = PathBuf::from("/etc/vms.exs");
    let changes = Changes {
        instances: instances
            .iter()
            .map(|instance| (instance.id.clone(), Some(InstanceRow::of(instance))))
            .collect(),
        tombstones: vec![(job_id("gone"), Some(tombstone))],
        entries: vec![((file.clone(), job_id("web")), Some(entry.clone()))],
        log_drops: vec![(instance_id("old"), true)],
        keys: vec![("k".to_owned(), used(1))],
        events: vec![event(1, Some("web")), event(2, None)],
        boot_id: Some("boot-1".to_owned()),
        ..Changes::default()
    };
    put(store, &changes);
    Loaded {
        jobs: [(web.id.clone(), web.clone())].into(),
        notes: [(web.id.clone(), notes)].into(),
        instances: instances.into_iter().map(|instance| (instance.id.clone(), instance)).collect(),
        tombstones: [(job_id("gone"), tombstone)].into(),
        entries: [((file, job_id("web")), entry)].into(),
        log_drops: [instance_id("old")].into(),
        last_event: 2,
        boot_id: Some("boot-1".to_owned()),
    }
}

fn what_was_committed_is_loaded_again(mut store: Box<dyn Store>) {
    assert_eq!(store.load().unwrap(), Loaded::default());
    let expected = all_kinds(&mut *store);
    assert_eq!(store.load().unwrap(), expected);
    assert_eq!(store.used("k").unwrap(), Some(used(1)));
    let query = Events { job: None, after: None, limit: 9 };
    let page = store.events(&query).unwrap();
    assert_eq!(page.events, [event(1, Some("web")), event(2, None)]);
    assert_eq!((page.oldest, page.newest), (1, 2));
}

fn progress_alone_leaves_the_rest_of_its_job(mut store: Box<dyn Store>) {
    let mut expected = all_kinds(&mut *store);
    let id = job_id("web");
    let web = expected.jobs.get_mut(&id).unwrap();
    web.progress = Progress::begun(Resolution::Failed("no such rootfs".to_owned()));
    let notes = JobNotes { status: "failed".to_owned(), ..JobNotes::default() };
    let row = ProgressRow::of(&web.progress, &notes);
    let progress = vec![(id.clone(), Some(row))];
    put(&mut *store, &Changes { progress, ..Changes::default() });
    expected.notes.insert(id.clone(), notes);
    assert_eq!(store.load().unwrap(), expected);
    let web = expected.jobs.get_mut(&id).unwrap();
    (web.generation, web.wanted) = (Generation(8), Wanted::Running);
    let jobs = vec![(id, Some(JobRow::of(web)))];
    put(&mut *store, &Changes { jobs, ..Changes::default() });
    assert_eq!(store.load().unwrap(), expected);
}

fn removed_rows_are_gone(mut store: Box<dyn Store>) {
    all_kinds(&mut *store);
    let id = job_id("web");
    let changes = Changes {
        jobs: vec![(id.clone(), None)],
        progress: vec![(id.clone(), None)],
        instances: ["a", "b", "never"].map(|name| (instance_id(name), None)).into(),
        tombstones: vec![(job_id("gone"), None), (job_id("never"), None)],
        entries: vec![((PathBuf::from("/etc/vms.exs"), id), None)],
        log_drops: vec![(instance_id("old"), false)],
        ..Changes::default()
    };
    put(&mut *store, &changes);
    let left = Loaded { last_event: 2, boot_id: Some("boot-1".to_owned()), ..Loaded::default() };
    assert_eq!(store.load().unwrap(), left);
}

fn refused_commit_changes_nothing(store: Box<dyn Store>) {
    let faults = Faults::default();
    let mut store = Faulty::over(store, faults.clone());
    let before = all_kinds(&mut store);
    faults.set_disk_full(true);
    let (api, notes) = job("api");
    let changes = Changes {
        jobs: vec![(api.id.clone(), Some(JobRow::of(&api))), (job_id("web"), None)],
        progress: vec![
            (api.id.clone(), Some(ProgressRow::of(&api.progress, &notes))),
            (job_id("web"), None),
        ],
        keys: vec![("k".to_owned(), used(5))],
        events: vec![event(3, None)],
        first_event: 2,
        ..Changes::default()
    };
    assert!(store.commit(&changes).unwrap_err().is_disk_full());
    assert!(store.probe().unwrap_err().is_disk_full());
    assert_eq!(store.load().unwrap(), before);
    assert_eq!(store.used("k").unwrap(), Some(used(1)));
    assert_eq!(page(&store, None, Some(0), 9), (vec![1, 2], false));
    faults.set_disk_full(false);
    store.probe().unwrap();
    put(&mut store, &changes);
    assert_eq!(store.load().unwrap().jobs, [(api.id.clone(), api)].into());
    assert_eq!(store.used("k").unwrap(), Some(used(5)));
    assert_eq!(page(&store, None, Some(0), 9), (vec![2, 3], false));
    faults.set_lost(true);
    assert!(store.check().unwrap_err().is_lost());
    faults.set_lost(false);
    store.check().unwrap();
}

fn keys_go_by_age_and_by_count(mut store: Box<dyn Store>) {
    let day = u64::try_from(KEY_LIVES.as_millis()).unwrap();
    let there = |store: &dyn Store, key: &str| store.used(key).unwrap().is_some();
    put(&mut *store, &keys(&[("old", 10)]));
    put(&mut *store, &keys(&[("young", day)]));
    assert!(there(&*store, "old"));
    put(&mut *store, &keys(&[("younger", 10 + day)]));
    assert!(!there(&*store, "old") && there(&*store, "young"));
    // One that is used again counts as new.
    put(&mut *store, &keys(&[("young", 11 + day)]));
    let many: Vec<String> = (1..KEYS_MAX).map(|number| number.to_string()).collect();
    let many: Vec<(&str, u64)> = many.iter().map(|key| (key.as_str(), 11 + day)).collect();
    put(&mut *store, &keys(&many));
    assert!(!there(&*store, "younger") && there(&*store, "young") && there(&*store, "1"));
    put(&mut *store, &keys(&[("last", 11 + day)]));
    assert!(!there(&*store, "young") && there(&*store, "1") && there(&*store, "last"));
}

fn keys_of_an_earlier_boot_are_as_old_as_this_one(mut store: Box<dyn Store>) {
    put(&mut *store, &keys(&[("k", 1_000_000)]));
    let boot_id = Some("another".to_owned());
    put(&mut *store, &Changes { boot_id, ..Changes::default() });
    assert_eq!(store.used("k").unwrap(), Some(used(0)));
}

fn events_are_read_from_either_end(mut store: Box<dyn Store>) {
    assert_eq!(page(&*store, None, None, 5), (vec![], false));
    let of = |id: u64| event(id, [None, Some("a"), Some("b")][id as usize % 3]);
    let events = (1..=10).map(of).collect();
    put(&mut *store, &Changes { events, ..Changes::default() });
    assert_eq!(page(&*store, None, None, 3), (vec![8, 9, 10], false), "the newest");
    assert_eq!(page(&*store, None, Some(0), 3), (vec![1, 2, 3], true));
    assert_eq!(page(&*store, None, Some(3), 7), (vec![4, 5, 6, 7, 8, 9, 10], false));
    assert_eq!(page(&*store, None, Some(10), 7), (vec![], false));
    assert_eq!(page(&*store, Some("a"), None, 2), (vec![7, 10], false));
    assert_eq!(page(&*store, Some("a"), Some(1), 2), (vec![4, 7], true));
    assert_eq!(page(&*store, Some("b"), Some(2), 2), (vec![5, 8], false));
    assert_eq!(page(&*store, Some("c"), Some(0), 2), (vec![], false));
}

fn events_before_the_first_go(mut store: Box<dyn Store>) {
    let events = (1..=10).map(|id| event(id, None)).collect();
    put(&mut *store, &Changes { events, first_event: 4, ..Changes::default() });
    assert_eq!(page(&*store, None, Some(0), 9), (vec![4, 5, 6, 7, 8, 9, 10], false));
    let query = Events { job: None, after: None, limit: 1 };
    let EventPage { oldest, newest, .. } = store.events(&query).unwrap();
    assert_eq!((oldest, newest), (4, 10));
    let events = vec![event(11, None)];
    put(&mut *store, &Changes { events, first_event: 11, ..Changes::default() });
    assert_eq!(page(&*store, None, Some(0), 9), (vec![11], false));
    assert_eq!(store.load().unwrap().last_event, 11);
}

fn commit_of_nothing_and_probe_change_nothing(mut store: Box<dyn Store>) {
    let before = all_kinds(&mut *store);
    // Not even what goes with other changes.
    put(&mut *store, &Changes { first_event: 2, ..Changes::default() });
    store.probe().unwrap();
    store.check().unwrap();
    assert_eq!(store.save(&Changes::default()).unwrap(), None);
    assert_eq!(store.load().unwrap(), before);
    assert_eq!(page(&*store, None, Some(0), 9), (vec![1, 2], false));
}
