//! What [`Sqlite`](crate::Sqlite) does, without it. Rows pass through their conversions as they do
//! there; the SQL, its JSON and the disk are what is missing. That both do the same is tested by
//! the contract suite, and by the simulation, whose runs have to be the same over either.

use crate::changes::{Changes, KEY_LIVES, KEYS_MAX, Loaded, Used};
use crate::error::StoreError;
use crate::event::Event;
use crate::query::{EventPage, Events};
use crate::store::Store;
use hearth_model::{Mono, Progress, Resolution};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;

/// The tables.
#[derive(Debug, Default)]
pub struct Memory {
    /// Those that are loaded as a whole. The last event is that of `events`.
    loaded: Loaded,
    events: BTreeMap<u64, Event>,
    /// By their numbers.
    keys: BTreeMap<i64, (String, Used)>,
    numbers: BTreeMap<String, i64>,
}

impl From<Memory> for Box<dyn Store> {
    fn from(store: Memory) -> Box<dyn Store> {
        Box::new(store)
    }
}

impl Store for Memory {
    fn load(&self) -> Result<Loaded, StoreError> {
        let last_event = self.events.last_key_value().map_or(0, |(id, _)| *id);
        Ok(Loaded { last_event, ..self.loaded.clone() })
    }

    fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
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
            self.keys.values_mut().for_each(|(_, used)| used.at = Mono::default());
        }
        self.put_keys(&changes.keys);
        self.events.extend(changes.events.iter().map(|event| (event.id, event.clone())));
        self.events = self.events.split_off(&changes.first_event);
        Ok(())
    }

    fn used(&self, key: &str) -> Result<Option<Used>, StoreError> {
        let number = self.numbers.get(key);
        Ok(number.map(|number| self.keys[number].1.clone()))
    }

    fn events(&self, query: &Events) -> Result<EventPage, StoreError> {
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
        Ok(EventPage { events, more, oldest, newest })
    }

    fn check(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn save(&self, _: &Changes<'_>) -> Result<Option<PathBuf>, StoreError> {
        Ok(None)
    }
}

impl Memory {
    fn put_keys(&mut self, keys: &[(String, Used)]) {
        let Some((_, newest)) = keys.last() else { return };
        for (key, used) in keys {
            let number = self.last_key() + 1;
            if let Some(before) = self.numbers.insert(key.clone(), number) {
                self.keys.remove(&before);
            }
            let at = Mono::from_millis(used.at.as_millis());
            self.keys.insert(number, (key.clone(), Used { at, ..used.clone() }));
        }
        let too_old = newest.at.0.checked_sub(KEY_LIVES).map(Mono);
        let too_many = self.last_key() - KEYS_MAX;
        let numbers = &mut self.numbers;
        self.keys.retain(|number, (key, used)| {
            let stays = *number > too_many && too_old.is_none_or(|too_old| used.at > too_old);
            if !stays {
                numbers.remove(key);
            }
            stays
        });
    }

    fn last_key(&self) -> i64 {
        self.keys.last_key_value().map_or(0, |(number, _)| *number)
    }
}

fn put<K: Ord + Clone, V>(table: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => table.insert(key.clone(), value),
        None => table.remove(key),
    };
}
