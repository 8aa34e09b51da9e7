//! A store with faults, for simulations: its disk is full, or its files are lost, while a switch is set.
//! Everything else is left to another store.

use crate::changes::{Changes, Loaded, Used};
use crate::error::{StoreError, disk_full};
use crate::loss::Means;
use crate::query::{EventPage, Events};
use crate::store::Store;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The faults of a [`Faulty`], which its owner cannot see and a simulation sets.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    disk_full: AtomicBool,
    lost: AtomicBool,
}

/// A store whose faults are set from outside.
#[derive(Debug)]
pub struct Faulty {
    store: Box<dyn Store>,
    faults: Faults,
}

impl Faults {
    /// From now on commits fail as on a full disk, or no longer.
    pub fn set_disk_full(&self, full: bool) {
        self.0.disk_full.store(full, Ordering::Relaxed);
    }

    /// From now on the files are lost, or no longer.
    pub fn set_lost(&self, lost: bool) {
        self.0.lost.store(lost, Ordering::Relaxed);
    }

    /// Whether any of them is there.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.disk_full.load(Ordering::Relaxed) || self.0.lost.load(Ordering::Relaxed)
    }

    fn refuse_writes(&self) -> Result<(), StoreError> {
        if self.0.disk_full.load(Ordering::Relaxed) { Err(disk_full()) } else { Ok(()) }
    }
}

impl Faulty {
    /// The store, with these faults.
    pub fn over(store: impl Into<Box<dyn Store>>, faults: Faults) -> Faulty {
        Faulty { store: store.into(), faults }
    }
}

impl From<Faulty> for Box<dyn Store> {
    fn from(store: Faulty) -> Box<dyn Store> {
        Box::new(store)
    }
}

impl Store for Faulty {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.store.load()
    }

    fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.faults.refuse_writes()?;
        self.store.commit(changes)
    }

    fn used(&self, key: &str) -> Result<Option<Used>, StoreError> {
        self.store.used(key)
    }

    fn events(&self, query: &Events) -> Result<EventPage, StoreError> {
        self.store.events(query)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        if self.faults.0.lost.load(Ordering::Relaxed) {
            let problem = "the simulated database was removed".to_owned();
            return Err(StoreError::Lost { problem, means: Means::Database });
        }
        self.store.check()
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.faults.refuse_writes()?;
        self.store.probe()
    }

    fn save(&self, rows: &Changes<'_>) -> Result<Option<PathBuf>, StoreError> {
        self.store.save(rows)
    }
}
