//! The same changes at random on both stores: no answer may differ.

use fastrand::Rng;
use hearth_model::{Caller, Generation, InstanceId, JobId, KnownBy, Mono};
use hearth_store::{
    Accepted, AppliedEntry, Changes, Event, EventKind, Events, Faults, Faulty, Memory, Sqlite,
    Store, Tombstone, Used,
};
use std::path::PathBuf;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn job(number: u64) -> JobId {
    JobId::parse(&format!("job-{number}")).unwrap()
}

/// Changes of everything but jobs and instances, which the simulation changes: of few names, so that
/// rows are replaced and removed, and of some that are not there.
fn changes(random: &mut Rng, first_event: u64, time_ms: u64) -> Changes<'static> {
    let mut any = |below: u64| random.u64(..below);
    let instance = |number: u64| InstanceId::parse(&format!("vm{number}")).unwrap();
    let entry = |number| AppliedEntry {
        digest: format!("digest {number}"),
        generation: Generation(1 + number),
    };
    let used = |number| Used {
        digest: format!("digest {number}"),
        job: job(number),
        accepted: if number % 2 == 0 { Accepted::Pending } else { Accepted::Claimed },
        at: Mono::from_millis(time_ms),
    };
    let event = |id| Event {
        id,
        at: "2026-11-25T00:00:00Z".to_owned(),
        job: (id % 3 > 0).then(|| job(id % 3)),
        instance: (id % 2 > 0).then(|| instance(id)),
        generation: (id % 5 > 0).then_some(Generation(id)),
        caller: (id % 3 > 0).then(|| {
            let uid = u32::try_from(id).unwrap();
            Caller::User { uid, known_by: KnownBy::SocketOwner }
        }),
        kind: EventKind::Creating,
        message: format!("event {id}"),
    };
    let (keys, events) = (any(3), any(4));
    Changes {
        tombstones: (0..any(3))
            .map(|event| {
                let tombstone = Tombstone { generation: Generation(1 + any(9)), event };
                (job(any(5)), (any(3) > 0).then_some(tombstone))
            })
            .collect(),
        entries: (0..any(3))
            .map(|_| {
                let key = (PathBuf::from(format!("{}.exs", any(2))), job(any(5)));
                (key, (any(3) > 0).then_some(entry(any(9))))
            })
            .collect(),
        log_drops: (0..any(3)).map(|_| (instance(any(5)), any(3) > 0)).collect(),
        keys: (0..keys).map(|_| (format!("key {}", any(20)), used(any(9)))).collect(),
        events: (first_event..first_event + events).map(event).collect(),
        first_event: first_event.saturating_sub(any(40)),
        boot_id: (any(50) == 0).then(|| format!("boot {time_ms}")),
        ..Changes::default()
    }
}

#[test]
fn memory_does_what_sqlite_does() {
    for seed in 0..20 {
        let mut random = Rng::with_seed(seed);
        let faults = Faults::default();
        let mut memory = Faulty::over(Memory::default(), faults.clone());
        let mut sqlite = Faulty::over(Sqlite::in_memory().unwrap(), faults.clone());
        let (mut next_event, mut time_ms) = (1, 0);
        for _ in 0..200 {
            time_ms += random.u64(..DAY_MS / 10);
            let changes = changes(&mut random, next_event, time_ms);
            let full = random.u8(..10) == 0;
            faults.set_disk_full(full);
            let outcome = memory.commit(&changes).map_err(|error| error.to_string());
            let expected = sqlite.commit(&changes).map_err(|error| error.to_string());
            assert_eq!(outcome, expected);
            assert_eq!(outcome.is_err(), full && !changes.is_empty());
            if !full {
                next_event += changes.events.len() as u64;
            }
            assert_eq!(memory.load().unwrap(), sqlite.load().unwrap());
            for key in (0..20).map(|number| format!("key {number}")) {
                assert_eq!(memory.used(&key).unwrap(), sqlite.used(&key).unwrap(), "{key}");
            }
            let query = Events {
                job: (random.bool()).then(|| job(random.u64(..4))),
                after: (random.bool()).then(|| next_event.saturating_sub(random.u64(..50))),
                limit: random.usize(1..7),
            };
            let (found, expected) = (memory.events(&query), sqlite.events(&query));
            assert_eq!(found.unwrap(), expected.unwrap(), "{query:?}");
        }
    }
}
