//! The engine's state: what it holds in memory, and how that follows from the database.

use crate::agenda::Agenda;
use crate::claims::Claims;
use crate::health::Health;
use crate::input::{Effect, Now, StepOutput};
use crate::journal::Journal;
use crate::oldest::{Oldest, Retention};
use crate::operation::Operations;
use crate::orphans::Orphans;
use crate::random::Random;
use crate::removals::Removals;
use crate::view::Shown;
use hearth_model::{
    Action, Caller, Creation, Generation, Instance, InstanceId, InstanceState, Job, JobId,
    Lifecycle, Mono, PoolKey, Resolution,
};
use hearth_planner::{Capacity, Fleet, Limits, PoolHealth, Scope, World, plan, status};
use hearth_store::{
    AppliedEntry, Event, EventKind, JobNotes, Loaded, Store, StoreError, Tombstone,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// How old the last look at the host may be. One comes each second, and more rarely where it takes
/// long.
const OBSERVATION_MAX_AGE: Duration = Duration::from_secs(5);

/// What an engine is given at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the host can hold.
    pub capacity: Capacity,
    /// What becomes of instances whose scratch disks may come to take more than there is.
    pub disk_overcommit: DiskOvercommit,
    /// How long things may take.
    pub limits: Limits,
    /// How long finished jobs, events and logs are kept.
    pub retention: Retention,
    /// Names this boot of the host: points of its clock are void in another.
    pub boot_id: String,
    /// Seed for names.
    pub seed: u64,
}

/// What becomes of instances whose scratch disks, which take only what was written, may come to take
/// more than there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskOvercommit {
    /// They are made, and it is told.
    #[default]
    Warn,
    /// They wait for room.
    Refuse,
}

/// The reconciler, with everything it knows in memory and the database behind it.
#[derive(Debug)]
pub struct Engine {
    pub(crate) store: Box<dyn Store>,
    pub(crate) config: Config,
    pub(crate) random: Random,
    pub(crate) fleet: Fleet,
    pub(crate) notes: BTreeMap<JobId, JobNotes>,
    /// Instances that are gone and whose logs are kept, so that no other gets their name.
    pub(crate) past: BTreeSet<InstanceId>,
    pub(crate) operations: Operations,
    pub(crate) tombstones: BTreeMap<JobId, Tombstone>,
    /// Instances whose logs are to be removed.
    pub(crate) log_drops: BTreeSet<InstanceId>,
    pub(crate) oldest: Oldest,
    pub(crate) removals: Removals,
    /// Jobs whose output is followed.
    pub(crate) followed: BTreeSet<JobId>,
    pub(crate) entries: BTreeMap<(PathBuf, JobId), AppliedEntry>,
    pub(crate) pools: BTreeMap<PoolKey, PoolHealth>,
    pub(crate) claims: Claims,
    pub(crate) resolving: BTreeSet<JobId>,
    /// What the plans so far expect, and when each is due again.
    pub(crate) agenda: Agenda,
    pub(crate) unidentified: BTreeMap<String, String>,
    /// What the host has for scratch disks, by the last whole look.
    pub(crate) scratch_mib: Option<u64>,
    /// Whether they may come to take more, and that was told.
    pub(crate) disk_is_short: bool,
    /// What the host has and the database does not name.
    pub(crate) orphans: Orphans,
    /// When the host was looked at last, once it was looked at whole. Before that, and while it
    /// can't be looked at, nothing is done to it.
    pub(crate) looked_at: Option<Mono>,
    pub(crate) journal: Journal,
    pub(crate) health: Health,
    pub(crate) shown: Shown,
}

impl Engine {
    /// Takes over what the database holds.
    ///
    /// # Errors
    /// Where the database cannot be read, or holds rows that make no sense.
    pub fn open(store: impl Into<Box<dyn Store>>, config: Config) -> Result<Engine, StoreError> {
        let store = store.into();
        let mut loaded = store.load()?;
        let rebooted = loaded.boot_id.as_ref() != Some(&config.boot_id);
        if rebooted {
            forget_times(&mut loaded);
        }
        let mut engine = Engine {
            random: Random::new(config.seed),
            store,
            config,
            fleet: Fleet::default(),
            notes: BTreeMap::new(),
            past: BTreeSet::new(),
            operations: Operations::default(),
            tombstones: BTreeMap::new(),
            log_drops: BTreeSet::new(),
            oldest: Oldest::default(),
            removals: Removals::default(),
            followed: BTreeSet::new(),
            entries: BTreeMap::new(),
            pools: BTreeMap::new(),
            claims: Claims::default(),
            resolving: BTreeSet::new(),
            agenda: Agenda::default(),
            unidentified: BTreeMap::new(),
            scratch_mib: None,
            disk_is_short: false,
            orphans: Orphans::default(),
            looked_at: None,
            journal: Journal::after(loaded.last_event, rebooted),
            health: Health::default(),
            shown: Shown::default(),
        };
        engine.hold(loaded);
        engine.publish();
        Ok(engine)
    }

    /// Holds in memory what the database holds, and what follows from it; the next plan is for all.
    pub(crate) fn hold(&mut self, loaded: Loaded) {
        self.past = loaded.notes.values().flat_map(JobNotes::past).map(|(id, _)| id).collect();
        self.oldest = Oldest::of(&loaded.notes, &loaded.tombstones);
        self.notes = loaded.notes;
        self.tombstones = loaded.tombstones;
        self.log_drops = loaded.log_drops;
        self.entries = loaded.entries;
        self.agenda = Agenda::default();
        self.removals = Removals::default();
        self.fleet = Fleet::default();
        loaded.jobs.into_values().for_each(|job| self.fleet.insert_job(job));
        loaded.instances.into_values().for_each(|instance| self.fleet.insert_instance(instance));
        if !self.journal.rebooted() {
            // They are as their rows say. After a reboot, what was forgotten of them is forgotten for good
            // with the next commit.
            self.fleet.take_changed();
        }
        self.shown.stale_all();
    }

    /// Jobs and instances as the database holds them after the last step.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The last generation of a job that was deleted.
    #[must_use]
    pub fn tombstone(&self, job: &JobId) -> Option<Generation> {
        self.tombstones.get(job).map(|tombstone| tombstone.generation)
    }

    /// Whether the creation of an instance was seen to be done, and that is in the database.
    #[must_use]
    pub fn saw_created(&self, instance: &InstanceId) -> bool {
        let creation = self.fleet.instance(instance).map(|instance| &instance.creation);
        creation == Some(&Creation::Confirmed)
    }

    /// How a job stands.
    #[must_use]
    pub fn status_of(&self, job: &JobId) -> Option<hearth_planner::Status> {
        let job = self.fleet.job(job)?;
        Some(status(&self.fleet, job, self.agenda.waiting(&job.id)).status)
    }

    /// The plan for everybody, which at rest has no steps.
    #[must_use]
    pub fn whole_plan(&self, now: Mono) -> hearth_planner::Plan {
        plan(&self.world(now), Scope::All)
    }

    /// The database, without the engine: what a daemon leaves that is killed.
    #[must_use]
    pub fn into_store(self) -> Box<dyn Store> {
        self.store
    }

    /// Compares what is held in memory with the database: they are one between two steps.
    ///
    /// # Errors
    /// A sentence that names the first difference, or why the database can't be read.
    pub fn audit(&self) -> Result<(), String> {
        let mut loaded = self.store.load().map_err(|error| error.to_string())?;
        if self.journal.rebooted() {
            forget_times(&mut loaded);
        }
        let differs = |what: String| Err(format!("memory and database differ: {what}"));
        // How far the reading of its images is is not in the row.
        let same = |held: &Job, row: &Job| {
            if !matches!(held.progress.resolution, Resolution::Preparing(_)) {
                return held == row;
            }
            let mut stored = held.clone();
            stored.progress.resolution = Resolution::Preparing(None);
            stored == *row
        };
        if let Some(id) = differing(self.fleet.jobs(), &loaded.jobs, same) {
            let pair = (self.fleet.job(&id), loaded.jobs.get(&id));
            return differs(format!("job {id}: {pair:?}"));
        }
        // A reason that changes while the status stays is written with the next change.
        let same = |held: &JobNotes, row: &JobNotes| {
            *held == JobNotes { reason: held.reason.clone(), ..row.clone() }
        };
        if let Some(id) = differing(&self.notes, &loaded.notes, same) {
            let pair = (self.notes.get(&id), loaded.notes.get(&id));
            return differs(format!("the notes of job {id}: {pair:?}"));
        }
        let same = |held: &Instance, row: &Instance| {
            // What it does now is not in the row, but for its end.
            *row == Instance {
                state: held.exit().map(|exit| InstanceState::Exited(exit.clone())),
                seen_at: None,
                awaiting_first_report: row.awaiting_first_report,
                silence: 0,
                unconfined: false,
                assign_failure: None,
                creation: match &held.creation {
                    Creation::OutcomeUnknown(_) => Creation::Unconfirmed,
                    stored => stored.clone(),
                },
                ..held.clone()
            }
        };
        if let Some(id) = differing(self.fleet.instances(), &loaded.instances, same) {
            let pair = (self.fleet.instance(&id), loaded.instances.get(&id));
            return differs(format!("instance {id}: {pair:?}"));
        }
        if self.tombstones != loaded.tombstones {
            return differs("the tombstones".to_owned());
        }
        if self.entries != loaded.entries || self.log_drops != loaded.log_drops {
            return differs("the file's entries or the logs to be removed".to_owned());
        }
        Ok(())
    }

    /// Whether what is known of the host is fresh enough to act on: a guest that has reported while
    /// the host could not be observed must not be taken for one that hangs.
    pub(crate) fn observation_is_fresh(&self, now: Mono) -> bool {
        let blind_after = OBSERVATION_MAX_AGE * self.config.limits.time_factor.max(1);
        self.looked_at.is_some_and(|at| now.since(at) < blind_after)
    }

    fn capacity(&self) -> Capacity {
        let scratch_mib = match self.config.disk_overcommit {
            DiskOvercommit::Warn => None,
            DiskOvercommit::Refuse => self.scratch_mib,
        };
        Capacity { scratch_mib, ..self.config.capacity }
    }

    pub(crate) fn world(&self, now: Mono) -> World<'_> {
        World {
            now,
            fleet: &self.fleet,
            pools: &self.pools,
            capacity: self.orphans.left_of(self.capacity()),
            limits: self.config.limits,
            busy: &self.operations,
        }
    }

    pub(crate) fn event(
        &mut self,
        now: &Now,
        job: Option<&JobId>,
        instance: Option<&InstanceId>,
        generation: Option<Generation>,
        kind: EventKind,
        message: impl Into<String>,
    ) {
        let message = message.into();
        self.journal.event(|id| Event {
            instance: instance.cloned(),
            ..event(id, now, job, generation, kind, message)
        });
    }

    /// Records an event of a change that was asked for.
    pub(crate) fn event_by(
        &mut self,
        now: &Now,
        caller: impl Into<Option<Caller>>,
        job: Option<&JobId>,
        generation: Option<Generation>,
        kind: EventKind,
        message: impl Into<String>,
    ) {
        let message = message.into();
        self.journal.event(|id| Event {
            caller: caller.into(),
            ..event(id, now, job, generation, kind, message)
        });
    }

    /// Begins an action on an instance.
    pub(crate) fn act(&mut self, output: &mut StepOutput, action: Action) {
        let id = self.operations.begin(action.clone());
        self.fleet.replan_instance(action.instance());
        output.effects.push(Effect::Apply(id, action));
    }
}

/// The first key whose values differ.
fn differing<K: Ord + Clone, L, R>(
    left: &BTreeMap<K, L>,
    right: &BTreeMap<K, R>,
    same: impl Fn(&L, &R) -> bool,
) -> Option<K> {
    let in_left = left.iter().find(|(key, value)| !right.get(*key).is_some_and(|r| same(value, r)));
    let found = in_left.map(|(key, _)| key);
    found.or_else(|| right.keys().find(|key| !left.contains_key(*key))).cloned()
}

/// After a reboot of the host its clock has started again: no earlier wait applies.
pub(crate) fn forget_times(loaded: &mut Loaded) {
    for job in loaded.jobs.values_mut() {
        job.progress.not_before = None;
        if job.spec.lifecycle != Lifecycle::Job {
            // Those of a `job` count against its retries, whenever they were.
            job.progress.failures = 0;
        }
    }
    for instance in loaded.instances.values_mut() {
        // Its start may not have come to disk, and what may have run is never run twice.
        instance.creation = Creation::Confirmed;
        instance.created_at = Mono::default();
        instance.running_since = None;
        instance.ready_since = None;
    }
    for notes in loaded.notes.values_mut() {
        notes.finished_at_ms = notes.finished_at_ms.map(|_| 0);
        notes.past.iter_mut().for_each(|past| past.removed_at_ms = 0);
    }
}

/// An event of no instance and no caller.
fn event(
    id: u64,
    now: &Now,
    job: Option<&JobId>,
    generation: Option<Generation>,
    kind: EventKind,
    message: String,
) -> Event {
    Event {
        id,
        at: now.wall.clone(),
        job: job.cloned(),
        instance: None,
        generation,
        caller: None,
        kind,
        message,
    }
}
