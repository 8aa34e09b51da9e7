//! What [`Sqlite`](crate::Sqlite) does, without it. Rows pass through their conversions as they do
//! there; the SQL, its JSON and the disk are what is missing. That both do the same is tested below,
//! and by the simulation, whose runs have to be the same over either.

use crate::{
    Changes, Event, EventPage, Events, KEY_LIVES, KEYS_MAX, Loaded, StoreError, Used, disk_full,
};
use hearth_model::{Mono, Progress, Resolution};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Those that are loaded as a whole. The last event is that of `events`.
    loaded: Loaded,
    events: BTreeMap<u64, Event>,
    /// With their numbers, in the order of these.
    keys: Vec<(i64, String, Used)>,
}

impl Memory {
    pub(crate) fn load(&self) -> Loaded {
        let last_event = self.events.last_key_value().map_or(0, |(id, _)| *id);
        Loaded { last_event, ..self.loaded.clone() }
    }

    pub(crate) fn commit(&mut self, changes: &Changes<'_>, full: bool) -> Result<(), StoreError> {
        if full {
            return Err(disk_full());
        }
        const READABLE: &str = "what is written can be read";
        let loaded = &mut self.loaded;
        for (id, row) in &changes.jobs {
            let before = loaded.jobs.remove(id);
            let Some(row) = row.clone() else { continue };
            // The progress of a new job follows.
            let begun = || Progress::begun(Resolution::Preparing(None));
            let progress = before.map_or_else(begun, |job| job.progress);
            let job = row.into_job(id.as_str(), progress).expect(READABLE);
            loaded.jobs.insert(id.clone(), job);
        }
        for (id, row) in &changes.progress {
            let kept = row.clone().map(|row| row.into_progress().expect(READABLE));
            let (progress, notes) = kept.unzip();
            put(&mut loaded.notes, id, notes);
            let Some(progress) = progress else { continue };
            loaded.jobs.get_mut(id).expect("progress is of a job").progress = progress;
        }
        for (id, row) in &changes.instances {
            let kept = row.clone().map(|row| row.into_instance(id.as_str()).expect(READABLE));
            put(&mut loaded.instances, id, kept);
        }
        for (id, tombstone) in &changes.tombstones {
            put(&mut loaded.tombstones, id, *tombstone);
        }
        for (id, wanted) in &changes.log_drops {
            match wanted {
                true => loaded.log_drops.insert(id.clone()),
                false => loaded.log_drops.remove(id),
            };
        }
        for ((path, id), entry) in &changes.entries {
            let key = (PathBuf::from(&*path.to_string_lossy()), id.clone());
            put(&mut loaded.entries, &key, entry.clone());
        }
        if let Some(boot_id) = &changes.boot_id {
            loaded.boot_id = Some(boot_id.clone());
            self.keys.iter_mut().for_each(|(_, _, used)| used.at = Mono::default());
        }
        self.put_keys(&changes.keys);
        self.events.extend(changes.events.iter().map(|event| (event.id, event.clone())));
        self.events = self.events.split_off(&changes.first_event);
        Ok(())
    }

    fn put_keys(&mut self, keys: &[(String, Used)]) {
        let Some((_, newest)) = keys.last() else { return };
        for (key, used) in keys {
            let number = self.last_key() + 1;
            self.keys.retain(|(_, other, _)| other != key);
            let at = Mono::from_millis(used.at.as_millis());
            self.keys.push((number, key.clone(), Used { at, ..used.clone() }));
        }
        let too_old = newest.at.0.checked_sub(KEY_LIVES).map(Mono);
        let too_many = self.last_key() - KEYS_MAX;
        self.keys.retain(|(number, _, used)| {
            *number > too_many && too_old.is_none_or(|too_old| used.at > too_old)
        });
    }

    fn last_key(&self) -> i64 {
        self.keys.last().map_or(0, |(number, _, _)| *number)
    }

    pub(crate) fn used(&self, key: &str) -> Option<Used> {
        self.keys.iter().find(|(_, other, _)| other == key).map(|(_, _, used)| used.clone())
    }

    pub(crate) fn events(&self, query: &Events) -> EventPage {
        let of_job = |event: &&Event| query.job.is_none() || event.job == query.job;
        let behind = (Bound::Excluded(query.after.unwrap_or(0)), Bound::Unbounded);
        let found = self.events.range(behind).map(|(_, event)| event).filter(of_job);
        let mut events: Vec<Event> = match query.after {
            Some(_) => found.take(query.limit + 1).cloned().collect(),
            None => found.rev().take(query.limit).cloned().collect(),
        };
        if query.after.is_none() {
            events.reverse();
        }
        let more = events.len() > query.limit;
        events.truncate(query.limit);
        let oldest = self.events.first_key_value().map_or(0, |(id, _)| *id);
        let newest = self.events.last_key_value().map_or(0, |(id, _)| *id);
        EventPage { events, more, oldest, newest }
    }
}

fn put<K: Ord + Clone, V>(table: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => table.insert(key.clone(), value),
        None => table.remove(key),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Accepted, AppliedEntry, EventKind, Sqlite, Tombstone};
    use fastrand::Rng;
    use hearth_model::{Generation, InstanceId, JobId};

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
            let (mut memory, mut sqlite) = (Memory::default(), Sqlite::in_memory().unwrap());
            let (mut next_event, mut time_ms) = (1, 0);
            for _ in 0..200 {
                time_ms += random.u64(..DAY_MS / 10);
                let changes = changes(&mut random, next_event, time_ms);
                let full = random.u8(..10) == 0;
                let outcome = memory.commit(&changes, full).map_err(|error| error.to_string());
                let expected = sqlite.commit(&changes, full).map_err(|error| error.to_string());
                assert_eq!(outcome, expected);
                assert_eq!(outcome.is_err(), full);
                if !full {
                    next_event += changes.events.len() as u64;
                }
                assert_eq!(memory.load(), sqlite.load().unwrap());
                for key in (0..20).map(|number| format!("key {number}")) {
                    assert_eq!(memory.used(&key), sqlite.used(&key).unwrap(), "{key}");
                }
                let query = Events {
                    job: (random.bool()).then(|| job(random.u64(..4))),
                    after: (random.bool()).then(|| next_event.saturating_sub(random.u64(..50))),
                    limit: random.usize(1..7),
                };
                assert_eq!(memory.events(&query), sqlite.events(&query).unwrap(), "{query:?}");
            }
        }
    }
}
