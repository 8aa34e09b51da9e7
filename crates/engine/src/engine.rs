//! The engine's state and its step.

use crate::agenda::Agenda;
use crate::fault::Health;
use crate::guard;
use crate::input::{Effect, Event, Input, JobView, Now, Refusal, Reply, Request, RequestId};
use crate::operation::Operations;
use crate::random::Random;
use crate::removal::Removals;
use crate::retention::{Oldest, Retention};
use crate::row::{InstanceRow, JobNotes, JobRow};
use crate::store::{AppliedEntry, Changes, Loaded, Store, StoreError, Tombstone, Used};
use crate::strays::Strays;
use hearth_model::{
    Action, Creation, Generation, Instance, InstanceId, InstanceState, Job, JobId, Lifecycle, Mono,
    PoolKey, Resolution,
};
use hearth_planner::{
    Capacity, Fleet, Limits, PoolHealth, Scope, Subject, World, check, plan, status,
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
    /// How long what is over is kept.
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
    pub(crate) store: Store,
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
    pub(crate) resolving: BTreeSet<JobId>,
    /// What the plans so far expect, and when each is due again.
    pub(crate) agenda: Agenda,
    pub(crate) unidentified: BTreeMap<String, String>,
    /// What the host has for scratch disks, by the last whole look.
    pub(crate) scratch_mib: Option<u64>,
    /// Whether they may come to take more, and that was told.
    pub(crate) disk_is_short: bool,
    /// What the host has and the database does not name.
    pub(crate) strays: Strays,
    /// When the host was looked at last, once it was looked at whole. Before that, and while it
    /// can't be looked at, nothing is done to it.
    pub(crate) looked_at: Option<Mono>,
    pub(crate) next_event: u64,
    /// Events before this one are forgotten.
    pub(crate) first_event: u64,
    pub(crate) dirty: Dirty,
    pub(crate) health: Health,
}

/// What the step has changed and the database does not have yet.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    jobs: BTreeSet<JobId>,
    pub(crate) instances: BTreeSet<InstanceId>,
    tombstones: BTreeSet<JobId>,
    log_drops: BTreeSet<InstanceId>,
    entries: BTreeSet<(PathBuf, JobId)>,
    keys: BTreeMap<String, Used>,
    events: Vec<Event>,
    boot_id: bool,
}

/// What a step hands out once its commit is on disk.
#[derive(Debug, Default)]
pub(crate) struct StepOutput {
    pub(crate) effects: Vec<Effect>,
    pub(crate) replies: Vec<(RequestId, Result<Reply, Refusal>)>,
}

impl Engine {
    /// Takes over what the database holds.
    ///
    /// # Errors
    /// Where the database cannot be read, or holds rows that make no sense.
    pub fn open(store: Store, config: Config) -> Result<Engine, StoreError> {
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
            resolving: BTreeSet::new(),
            agenda: Agenda::default(),
            unidentified: BTreeMap::new(),
            scratch_mib: None,
            disk_is_short: false,
            strays: Strays::default(),
            looked_at: None,
            next_event: loaded.last_event + 1,
            first_event: 0,
            dirty: Dirty { boot_id: rebooted, ..Dirty::default() },
            health: Health::default(),
        };
        engine.hold(loaded);
        Ok(engine)
    }

    /// Holds in memory what the database holds, and what follows from it; the next plan is for all.
    fn hold(&mut self, loaded: Loaded) {
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
        if self.dirty.boot_id {
            // What was forgotten of them is forgotten for good, with the same commit.
            self.dirty.jobs.extend(self.fleet.jobs().keys().cloned());
            self.dirty.instances.extend(self.fleet.instances().keys().cloned());
        }
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
        let world = self.world(Mono::default());
        let job = self.fleet.job(job)?;
        Some(status(&world, job, self.agenda.waiting(&job.id)).status)
    }

    /// The plan for everybody, which at rest has no steps.
    #[must_use]
    pub fn whole_plan(&self, now: Mono) -> hearth_planner::Plan {
        plan(&self.world(now), Scope::All)
    }

    /// The database, without the engine: what a daemon leaves that is killed.
    #[must_use]
    pub fn into_store(self) -> Store {
        self.store
    }

    /// From now on commits fail as on a full disk, or no longer. For simulations.
    pub fn set_disk_full(&mut self, full: bool) {
        self.store.set_disk_full(full);
    }

    /// Compares what is held in memory with the database: they are one between two steps.
    ///
    /// # Errors
    /// A sentence that names the first difference, or why the database can't be read.
    pub fn audit(&self) -> Result<(), String> {
        let mut loaded = self.store.load().map_err(|error| error.to_string())?;
        if self.dirty.boot_id {
            forget_times(&mut loaded);
        }
        let differs = |what: String| Err(format!("memory and database differ: {what}"));
        // How far the reading of its images is is not in the row.
        let same = |held: &Job, row: &Job| match &held.resolution {
            Resolution::Preparing(_) => {
                *row == Job { resolution: Resolution::Preparing(None), ..held.clone() }
            }
            _ => held == row,
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
                unheard: row.unheard,
                silence: 0,
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

    /// One step: takes in the inputs in their order, plans, commits, and returns what to do.
    ///
    /// `alive` says from memory whether an instance's process lives; a dead one is not claimed.
    /// Where the commit fails every change that the step was asked for is refused, nothing is done,
    /// and the engine stands where the database does. What only reads is answered behind the commit.
    ///
    /// # Panics
    /// Where the planner breaks an invariant of its plan, where the database can't be read after a
    /// commit that failed: memory would be ahead of the disk, and where a sync failed: whether the step
    /// is on disk is not known, so it may be neither acknowledged nor refused. No microVM depends on
    /// this process.
    pub fn step(
        &mut self,
        now: &Now,
        inputs: Vec<Input>,
        alive: &dyn Fn(&InstanceId) -> bool,
    ) -> Vec<Effect> {
        let inputs = match self.look_at_files(now, inputs) {
            Ok(inputs) => inputs,
            Err(inputs) => return self.step_without_files(now, inputs, alive),
        };
        let mut output = StepOutput::default();
        let mut reads = Vec::new();
        for input in inputs {
            match input {
                Input::Request(id, request) if request.only_reads() => reads.push((id, request)),
                Input::Request(id, request) => {
                    let reply = self.request(now, request, alive, &mut output);
                    output.replies.push((id, reply));
                }
                Input::Observed { began, observation } => {
                    self.apply_observation(now, began, observation)
                }
                Input::Done(id, result) => self.done(now, id, result, &mut output),
                Input::Resolved(job, run, resolution) => {
                    self.resolved(now, &job, run, resolution);
                }
                Input::Followed(jobs) => self.followed(now.mono, jobs),
                Input::Tick => {}
            }
        }
        self.end_cooldowns(now.mono);
        let (wake_at, mut shown) = self.reconcile(now, &mut output);
        let wake_at = wake_at.into_iter().chain(self.operations.next_release()).min();
        // What the plan's own steps have touched is planned in the next step, and shown now.
        shown.extend(self.fleet.touched().jobs.iter().cloned());
        self.note_statuses(now, &shown);
        let mut effects = match self.commit(now.mono) {
            Ok(events) => {
                let mut effects = output.effects;
                effects
                    .extend(output.replies.into_iter().map(|(id, reply)| Effect::Reply(id, reply)));
                effects.extend(events.into_iter().map(Effect::Log));
                if let Some(at) = wake_at {
                    effects.push(Effect::WakeIn(at.since(now.mono)));
                }
                effects
            }
            Err(error) if error.is_sync_failed() => {
                panic!(
                    "the disk failed to sync the database; look for its errors in the kernel's log"
                )
            }
            Err(error) if error.is_lost() => self.withhold(&error, output),
            Err(error) => self.reload_after_failed_commit(&error, output),
        };
        let asked = reads.iter().any(|(_, request)| matches!(request, Request::Ready));
        self.try_writing(now.mono, asked);
        // Behind the commit, so that all that is shown is on disk.
        for (id, request) in reads {
            let reply = self.request(now, request, alive, &mut StepOutput::default());
            effects.push(Effect::Reply(id, reply));
        }
        effects
    }

    /// Lets the planner act again on instances whose wait is over.
    fn end_cooldowns(&mut self, now: Mono) {
        for id in self.operations.release_due(now, self.looked_at) {
            self.fleet.touch_instance(&id);
        }
    }

    /// Plans for whom it may make a difference, and at the resync for all; carries the plan out.
    /// Returns when to plan again (at once after a step that needed no host, such as a claim, since
    /// the next plan has more to do), and the jobs that may stand differently now.
    fn reconcile(&mut self, now: &Now, output: &mut StepOutput) -> (Option<Mono>, BTreeSet<JobId>) {
        if !self.observation_is_fresh(now.mono) {
            return (None, BTreeSet::new());
        }
        self.retain(now, output);
        self.take_over(now);
        for subject in self.agenda.due(now.mono) {
            self.fleet.touch(subject);
        }
        let touched = self.fleet.take_touched();
        let resync = self.agenda.is_resync_due(now.mono);
        if touched.is_empty() && !resync {
            return (self.agenda.next(), BTreeSet::new());
        }
        let world = self.world(now.mono);
        let scope = match resync {
            true => Scope::All,
            false => Scope::Some {
                jobs: &touched.jobs,
                pools: &touched.pools,
                queue: self.agenda.queue(),
            },
        };
        let plan = plan(&world, scope);
        if let Err(violation) = check(&world, &plan) {
            panic!("the plan breaks an invariant: {}", violation.0);
        }
        if resync {
            self.agenda.begin_anew(now.mono);
            self.drop_logs_again(output);
            self.note_removals(now.mono);
        }
        let mut planned = touched.jobs;
        for (subject, outlook) in plan.outlooks {
            if let Subject::Job(id) = &subject {
                planned.insert(id.clone());
            }
            self.agenda.note(subject, outlook);
        }
        let again = self.carry_out(now, plan.steps, output);
        let at_once = now.mono.after(Duration::from_millis(1));
        (if again { Some(at_once) } else { self.agenda.next() }, planned)
    }

    /// Whether what is known of the host is fresh enough to act on: a guest that has reported while
    /// nobody could look must not be taken for one that hangs.
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
            capacity: self.strays.left_of(self.capacity()),
            limits: self.config.limits,
            busy: &self.operations,
        }
    }

    /// Records how these jobs stand, with an event for each that stands differently.
    fn note_statuses(&mut self, now: &Now, ids: &BTreeSet<JobId>) {
        for id in ids {
            self.note_finish(now.mono, id);
            self.note_removal(now.mono, id);
        }
        let world = self.world(now.mono);
        let mut changed = Vec::new();
        for job in ids.iter().filter_map(|id| self.fleet.job(id)) {
            let stands = status(&world, job, self.agenda.waiting(&job.id));
            let known = self.notes.get(&job.id);
            let rests_on = stands.instance.as_ref().and_then(|id| self.fleet.instance(id));
            if known.is_some() && rests_on.is_some_and(|instance| instance.unheard) {
                // It stands as it did, until it is heard of or its time is over.
                continue;
            }
            let same = known.is_some_and(|known| known.status == stands.status.as_str());
            if !same || known.is_some_and(|known| known.reason != stands.reason) {
                changed.push((job.id.clone(), job.run, same, stands));
            }
        }
        for (id, run, same, stands) in changed {
            let notes = self.notes.entry(id.clone()).or_default();
            notes.reason.clone_from(&stands.reason);
            if same {
                continue;
            }
            stands.status.as_str().clone_into(&mut notes.status);
            notes.since.clone_from(&now.wall);
            self.touch_job(&id);
            let message = match &stands.reason {
                Some(reason) => format!("{}: {reason}", stands.status),
                None => stands.status.to_string(),
            };
            self.event(now, Some(&id), stands.instance.as_ref(), Some(run), "status", message);
        }
    }

    pub(crate) fn touch_job(&mut self, id: &JobId) {
        self.dirty.jobs.insert(id.clone());
    }

    pub(crate) fn touch_instance(&mut self, id: &InstanceId) {
        self.dirty.instances.insert(id.clone());
    }

    pub(crate) fn touch_tombstone(&mut self, id: &JobId) {
        self.dirty.tombstones.insert(id.clone());
    }

    pub(crate) fn touch_log_drop(&mut self, id: &InstanceId) {
        self.dirty.log_drops.insert(id.clone());
    }

    pub(crate) fn forget_events_before(&mut self, event: u64) {
        self.first_event = self.first_event.max(event);
    }

    pub(crate) fn touch_entry(&mut self, key: (PathBuf, JobId)) {
        self.dirty.entries.insert(key);
    }

    pub(crate) fn use_key(&mut self, key: String, used: Used) {
        self.dirty.keys.insert(key, used);
    }

    /// What a key was used for by an earlier request of this step.
    pub(crate) fn used_in_step(&self, key: &str) -> Option<&Used> {
        self.dirty.keys.get(key)
    }

    pub(crate) fn event(
        &mut self,
        now: &Now,
        job: Option<&JobId>,
        instance: Option<&InstanceId>,
        generation: Option<Generation>,
        kind: &'static str,
        message: impl Into<String>,
    ) {
        self.dirty.events.push(Event {
            id: self.next_event,
            at: now.wall.clone(),
            job: job.cloned(),
            instance: instance.cloned(),
            generation,
            kind: kind.into(),
            message: message.into(),
        });
        self.next_event += 1;
    }

    /// Begins an action on an instance.
    pub(crate) fn act(&mut self, output: &mut StepOutput, action: Action) {
        let id = self.operations.begin(action.clone());
        self.fleet.touch_instance(action.instance());
        output.effects.push(Effect::Apply(id, action));
    }

    fn commit(&mut self, now: Mono) -> Result<Vec<Event>, StoreError> {
        let dirty = std::mem::take(&mut self.dirty);
        // Until it is on disk that times of another boot are void.
        self.dirty.boot_id = dirty.boot_id;
        let job_row = |id: &JobId| {
            let job = self.fleet.job(id)?;
            Some(JobRow::of(job, self.notes.get(id)?))
        };
        let instance_row = |id: &InstanceId| self.fleet.instance(id).map(InstanceRow::of);
        let changes = Changes {
            jobs: dirty.jobs.iter().map(|id| (id.clone(), job_row(id))).collect(),
            instances: dirty.instances.iter().map(|id| (id.clone(), instance_row(id))).collect(),
            tombstones: dirty
                .tombstones
                .iter()
                .map(|id| (id.clone(), self.tombstones.get(id).copied()))
                .collect(),
            log_drops: dirty
                .log_drops
                .iter()
                .map(|id| (id.clone(), self.log_drops.contains(id)))
                .collect(),
            entries: dirty
                .entries
                .iter()
                .map(|key| (key.clone(), self.entries.get(key).cloned()))
                .collect(),
            keys: dirty.keys.into_iter().collect(),
            events: dirty.events,
            // The newest one stays, whatever its age: the next id follows from it.
            first_event: self.first_event.min(self.next_event.saturating_sub(1)),
            boot_id: dirty.boot_id.then(|| self.config.boot_id.clone()),
        };
        let committed = self.store.commit(&changes);
        let wrote = !changes.is_empty();
        let events = changes.events;
        if wrote {
            self.note_commit(now, committed.as_ref().err());
        }
        committed?;
        self.dirty.boot_id = false;
        Ok(events)
    }

    /// Back to what the database holds, after a commit that failed. Actions that were under way
    /// before this step stay known, so that nothing is done to their instances meanwhile.
    fn reload_after_failed_commit(
        &mut self,
        error: &StoreError,
        output: StepOutput,
    ) -> Vec<Effect> {
        let refusal = guard::store(error);
        for effect in &output.effects {
            if let Effect::Apply(id, _) = effect {
                self.operations.cancel(*id);
            }
        }
        let mut loaded = match self.store.load() {
            Ok(loaded) => loaded,
            Err(error) => panic!("cannot read the database after a failed write: {error}"),
        };
        if self.dirty.boot_id {
            forget_times(&mut loaded);
        }
        for (id, instance) in &mut loaded.instances {
            let Some(held) = self.fleet.instance(id) else { continue };
            (instance.seen_at, instance.unheard) = (held.seen_at, held.unheard);
            instance.silence = held.silence;
            if let Creation::OutcomeUnknown(end) = &held.creation {
                let row = std::mem::take(&mut instance.creation);
                instance.creation = row.failed_with_unknown_outcome(end.clone());
            }
        }
        self.hold(loaded);
        // What was seen and not recorded has to be seen again.
        self.looked_at = None;
        self.resolving.clear();
        let mut effects: Vec<Effect> = output
            .replies
            .into_iter()
            .map(|(id, _)| Effect::Reply(id, Err(refusal.clone())))
            .collect();
        effects.push(Effect::WakeIn(Duration::from_secs(1)));
        effects
    }

    pub(crate) fn view_of(&self, now: &Now, id: &JobId) -> Option<JobView> {
        let world = self.world(now.mono);
        self.fleet.job(id).map(|job| self.view(&world, job, now))
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

/// After a reboot of the host its clock began anew: what was waited for is over.
fn forget_times(loaded: &mut Loaded) {
    for job in loaded.jobs.values_mut() {
        job.not_before = None;
        if job.spec.lifecycle != Lifecycle::Job {
            // Those of a `job` count against its retries, whenever they were.
            job.failures = 0;
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
