//! The real engine and planner, over SQLite or memory and the simulated machine, in virtual time: one
//! queue of what is to come, no thread, no clock. The same schedule gives the same run.

use crate::asked::{Asked, Exchange, Replies};
use crate::invariants::Invariants;
use crate::requests::{Asks, id, spec, tenant};
use crate::schedule::{Death, FAULTS_LAST, Fault, Item, Make, Schedule, What};
use fastrand::Rng;
use hearth_engine::{
    ActionId, Changed, Config, Delete, Deletions, DiffBase, DiskOvercommit, Effect, Engine,
    EntryDigest, FileEntry, FileLoad, Input, JobChange, Now, PlanImages, Repeat, Restart,
    Retention, Start, Stop, Upsert,
};
use hearth_host::HostError;
use hearth_host::sim::{Presence, SimConfig, SimState};
use hearth_model::{
    Action, End, ImageName, InstanceId, InstanceState, KeepImages, Mono, Observed, Resolution, Spec,
};
use hearth_planner::{Capacity, Limits};
use hearth_store::{Faults, Faulty, Memory, Sqlite, Store};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// From the last fault to rest. A service that kept failing backs off for up to 5 min.
const REST_WITHIN: Duration = Duration::from_secs(900);
/// How long the machine has been up at the beginning.
const UP_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How old a look at the host may be on which the engine acts.
const LOOKS_LAST: Duration = Duration::from_secs(5);
/// A run that needs more steps than this is an endless loop.
const STEPS_MAX: u64 = 100_000;
/// As the daemon's deadline for an action whose reply does not come.
const DEADLINE: Duration = Duration::from_secs(20);
/// As the daemon's look-up of an image that has to be read.
const IMAGE_WAIT: Duration = Duration::from_secs(1);
/// How long a step may keep what arrives waiting.
const BUSY_MS_MAX: u64 = 6;
/// How long a guest may take to report to a daemon that has just started. Every look on which that daemon
/// may act when a boot's time is over has it.
const REPORT_DELAY_MS_MAX: u64 = 6000;
/// How long an instance may not be identified.
const UNIDENTIFIED_MS_MAX: u64 = 40_000;
/// How many changes with a key may be asked for again after a start of the daemon.
const KEYED_MAX: usize = 3;
const IMAGE_THAT_MAY_MISS: &str = "rootfs-1.ext4";

/// How a run went that kept every invariant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Steps of the engine.
    pub steps: u64,
    /// Actions that it asked for.
    pub actions: u64,
    /// Steps that were asked for several changes of one job.
    pub crowded: u64,
    /// Steps that were asked for a change and could not write.
    pub unwritten: u64,
    /// A digest of everything that happened, in its order.
    pub trace: u64,
}

/// A moment of a run at which the daemon is killed, by the number of the engine's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// Which step, counted from 0.
    pub step: u64,
    /// On which side of its commit.
    pub side: Side,
}

/// A side of a step's commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the step took in is lost.
    Before,
    /// It is on disk; no request was answered and nothing was done.
    After,
    /// It is on disk, and everything that it asked of the host was done; no reply arrived.
    Done,
}

impl Side {
    /// All of them.
    pub const ALL: [Side; 3] = [Side::Before, Side::After, Side::Done];
}

/// What the engine keeps its state in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// SQLite in memory, as a daemon has it on disk.
    Sqlite,
    /// A store in memory, which a run cannot tell from it and which takes half the time.
    Memory,
}

impl Database {
    fn empty(self, faults: &Faults) -> Box<dyn Store> {
        let store = match self {
            Database::Sqlite => Sqlite::in_memory().expect("a database in memory").into(),
            Database::Memory => Box::<dyn Store>::from(Memory::default()),
        };
        Faulty::over(store, faults.clone()).into()
    }
}

/// Runs a schedule. `tell` takes each thing that happens, in words.
///
/// # Errors
/// The invariant that did not hold, in a sentence.
pub fn run(
    schedule: &Schedule,
    database: Database,
    tell: Option<&mut dyn FnMut(&str)>,
) -> Result<Passed, String> {
    World::new(schedule, database, &[], tell).run(&schedule.items)
}

/// As [`run`], with the daemon killed at these points, which are in their order.
///
/// # Errors
/// As [`run`].
pub fn run_with_crashes(
    schedule: &Schedule,
    database: Database,
    crashes: &[CrashPoint],
) -> Result<Passed, String> {
    World::new(schedule, database, crashes, None).run(&schedule.items)
}

/// What is to come.
#[derive(Debug)]
enum Coming {
    Item(usize),
    /// An action takes place.
    Act(ActionId, Box<Action>, Option<Fault>),
    /// Something reaches the engine, which is that of this life of the daemon.
    Arrives(u32, Box<Input>),
    /// A look at the host.
    Look {
        whole: bool,
    },
    /// The engine's alarm.
    Wake(u32),
    /// The engine takes in all that has reached it.
    Step(u32),
    Start,
    DiskFree,
    Back,
    Speaks(InstanceId),
    Sighted,
    Ready,
    Found,
}

/// What a step comes to.
enum Outcome {
    /// A reply to the request of this number.
    Answer(u64, Exchange),
    /// Anything else.
    Effect(Effect),
}

impl Outcome {
    fn of(effect: Effect, replies: &Replies) -> Outcome {
        match effect {
            Effect::Reply(reply) => {
                let (number, exchange) = replies.receive(reply);
                Outcome::Answer(number, exchange)
            }
            effect => Outcome::Effect(effect),
        }
    }
}

struct World<'a> {
    now: Duration,
    /// When the machine was last powered on.
    booted: Duration,
    /// What its clock showed then: it has been up for a month when the daemon is first started.
    clock_at_boot: Duration,
    boots: u32,
    wall_days: i32,
    rng: Rng,
    /// How long a step waits for more to take in, which requests have a key, and what is asked again.
    pace: Rng,
    /// How long guests take to report to a new daemon.
    hearing: Rng,
    machine: SimState,
    engine: Option<Engine>,
    database: Database,
    /// The database while there is no daemon.
    store: Option<Box<dyn Store>>,
    /// What is wrong with it.
    disk: Faults,
    /// How often the daemon was started.
    life: u32,
    /// What the file declares, and whether the next daemon has to read it for the first time.
    file: Option<Vec<(u8, Make)>>,
    unread: bool,
    queue: BTreeMap<(Duration, u64), Coming>,
    order: u64,
    faults: Vec<Fault>,
    look_due: bool,
    /// When the last look arrives. The daemon looks again only once it has handed that one in.
    looks_arrive: Duration,
    /// Who is up and has not reported to this daemon yet, and until when.
    not_reported: BTreeMap<InstanceId, Duration>,
    /// What the host can't identify, and until when.
    unidentified: BTreeMap<InstanceId, Duration>,
    /// When the last look at the host began that this life of the daemon has taken in.
    looked_at: Option<Mono>,
    seen_revision: u64,
    /// What has reached the engine and waits for its next step.
    inbox: Vec<Input>,
    requests: u64,
    /// Those without an answer, which the next step gives.
    asked: BTreeMap<u64, Asked>,
    replies: Replies,
    /// The last changes with a key.
    keyed: VecDeque<Asked>,
    crashes: &'a [CrashPoint],
    invariants: Invariants,
    passed: Passed,
    tell: Option<&'a mut dyn FnMut(&str)>,
}

impl<'a> World<'a> {
    fn new(
        schedule: &Schedule,
        database: Database,
        crashes: &'a [CrashPoint],
        tell: Option<&'a mut dyn FnMut(&str)>,
    ) -> World<'a> {
        let mut rng = Rng::with_seed(schedule.seed ^ 0x5EED);
        let config = SimConfig {
            boot: Duration::from_millis(rng.u64(20..3000)),
            work: Duration::from_millis(rng.u64(5..8000)),
            cpus: 4,
            memory_mib: rng.u64(3..40) * 133,
            scratch_mib: None,
        };
        let disk = Faults::default();
        World {
            now: Duration::ZERO,
            booted: Duration::ZERO,
            clock_at_boot: UP_BEFORE,
            boots: 0,
            wall_days: 0,
            rng,
            pace: Rng::with_seed(schedule.seed ^ 0xBA7C),
            hearing: Rng::with_seed(schedule.seed ^ 0x4EA8),
            machine: SimState::new(config.clone()),
            engine: None,
            database,
            store: Some(database.empty(&disk)),
            disk,
            life: 0,
            file: None,
            unread: false,
            queue: BTreeMap::new(),
            order: 0,
            faults: Vec::new(),
            look_due: false,
            looks_arrive: Duration::ZERO,
            not_reported: BTreeMap::new(),
            unidentified: BTreeMap::new(),
            looked_at: None,
            seen_revision: 0,
            inbox: Vec::new(),
            requests: 0,
            asked: BTreeMap::new(),
            replies: Replies::default(),
            keyed: VecDeque::new(),
            crashes,
            invariants: Invariants::new(capacity(&config)),
            passed: Passed::default(),
            tell,
        }
    }

    fn run(mut self, items: &[Item]) -> Result<Passed, String> {
        for (index, item) in items.iter().enumerate() {
            self.later(item.at, Coming::Item(index));
        }
        self.come(Duration::ZERO, Coming::Start);
        let rest_by = FAULTS_LAST + REST_WITHIN;
        while self.now < rest_by {
            let due = self.machine.next();
            let machine = due.map(|at| self.booted + at.0.saturating_sub(self.clock_at_boot));
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            match (machine, queued) {
                (Some(machine), queued) if queued.is_none_or(|queued| machine <= queued) => {
                    self.pass_to(machine);
                    self.after_the_host()?;
                }
                (_, Some(queued)) => {
                    self.pass_to(queued);
                    let Some((_, coming)) = self.queue.pop_first() else { break };
                    self.happen(coming, items)?;
                    self.after_the_host()?;
                }
                (_, None) => break,
            }
            if self.passed.steps > STEPS_MAX {
                return Err(format!("no rest after {STEPS_MAX} steps"));
            }
            let calm = self.now > FAULTS_LAST + Duration::from_secs(30);
            if calm && self.passed.steps.is_multiple_of(8) && self.at_rest() {
                break;
            }
        }
        let Some(engine) = &self.engine else {
            return Err("the daemon does not run at the end".to_owned());
        };
        engine.audit()?;
        self.invariants.at_rest(engine, &self.machine, self.mono())?;
        Ok(self.passed)
    }

    /// Whether nothing is under way and nothing is awaited but a time far away.
    fn at_rest(&self) -> bool {
        let Some(engine) = &self.engine else { return false };
        let under_way = self
            .queue
            .values()
            .any(|coming| !matches!(coming, Coming::Look { .. } | Coming::Wake(_)));
        !under_way && self.invariants.at_rest(engine, &self.machine, self.mono()).is_ok()
    }

    fn mono(&self) -> Mono {
        Mono(self.clock_at_boot + self.now - self.booted)
    }

    fn pass_to(&mut self, time: Duration) {
        self.now = self.now.max(time);
        self.machine.advance(self.mono());
    }

    /// What the host did by itself is noticed.
    fn after_the_host(&mut self) -> Result<(), String> {
        self.invariants.host(&self.machine)?;
        if self.machine.revision() != self.seen_revision && !self.look_due {
            self.look_due = true;
            let soon = self.millis(1..6);
            self.come(soon, Coming::Look { whole: false });
        }
        Ok(())
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }

    fn come(&mut self, after: Duration, coming: Coming) {
        self.later(self.now + after, coming);
    }

    fn later(&mut self, at: Duration, coming: Coming) {
        self.order += 1;
        self.queue.insert((at, self.order), coming);
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(tell) = &mut self.tell {
            tell(&format!("{:>9.3} s  {}", self.now.as_secs_f64(), what()));
        }
    }

    fn happen(&mut self, coming: Coming, items: &[Item]) -> Result<(), String> {
        match coming {
            Coming::Item(index) => {
                self.read(&items[index].what)?;
                self.outside(&items[index].what);
            }
            Coming::Act(id, action, fault) => self.act(id, *action, fault),
            Coming::Arrives(life, input) => {
                if life == self.life {
                    self.take_in(*input);
                }
            }
            Coming::Look { whole } => self.look(whole),
            Coming::Wake(life) => {
                if life == self.life {
                    self.take_in(Input::Tick);
                }
            }
            Coming::Step(life) => {
                if life == self.life {
                    return self.step();
                }
            }
            Coming::Start => return self.start(),
            Coming::DiskFree => {
                self.say(|| "the disk has room again".to_owned());
                self.disk.set_disk_full(false);
            }
            Coming::Back => {
                self.say(|| "the database's files are back".to_owned());
                self.disk.set_lost(false);
            }
            Coming::Speaks(id) => self.machine.speak(&id),
            Coming::Sighted => self.machine.set_blind(false),
            Coming::Ready => self.machine.set_ready(true),
            Coming::Found => self.machine.set_missing(&may_miss(), Presence::There),
        }
        Ok(())
    }

    /// What a schedule says.
    fn outside(&mut self, what: &What) {
        self.say(|| what.to_string());
        if let What::Load(entries) = what {
            self.file = Some(entries.clone());
        }
        match what {
            _ if what.is_request() => {
                if let Some(asked) = self.asked_by(what) {
                    self.ask_with_key(asked);
                }
            }
            What::Die(nth, death) => self.die(*nth, Some(*death)),
            What::Vanish(nth) => self.die(*nth, None),
            fault => self.fault(fault),
        }
    }

    /// What a user reads. It costs the engine nothing.
    fn read(&self, what: &What) -> Result<(), String> {
        match (what, &self.engine) {
            (What::Get(job), Some(engine)) => Invariants::read(engine, &id(*job)),
            (What::List, Some(engine)) => self.invariants.list(engine),
            _ => Ok(()),
        }
    }

    /// What a user asks for.
    fn asked_by(&mut self, what: &What) -> Option<Asked> {
        Some(match what {
            What::Upsert(job, make) => {
                let FileEntry { job, tenant, spec, resolution, .. } = self.entry(*job, *make);
                let upsert = Upsert { job: Some(job), tenant, spec, resolution };
                Asked::Change(JobChange::Upsert(upsert), None)
            }
            What::Delete(job) => Asked::Delete(Delete { job: id(*job) }),
            What::Stop(job) => Asked::Change(JobChange::Stop(Stop { job: id(*job) }), None),
            What::Start(job) => Asked::Change(JobChange::Start(Start { job: id(*job) }), None),
            What::Restart(job) => {
                let job = id(*job);
                let spec = self.engine.as_ref()?.fleet().job(&job)?.spec.clone();
                let resolution = self.resolution(&spec);
                Asked::Change(JobChange::Restart(Restart { job, spec, resolution }), None)
            }
            What::Load(entries) => {
                let entry = |(job, make): &(u8, Make)| self.entry(*job, *make);
                let entries = entries.iter().map(entry).collect();
                let path = Some(PathBuf::from("vms.exs"));
                let (deletions, against) = (Deletions::All, DiffBase::LastApplied);
                Asked::Apply(FileLoad { path, entries, deletions, against })
            }
            _ => return None,
        })
    }

    fn entry(&mut self, job: u8, make: Make) -> FileEntry {
        let spec = Arc::new(spec(make));
        let resolution = self.resolution(&spec);
        let tenant = make.shared.then(|| tenant("shared"));
        let digest = EntryDigest::of(tenant.as_ref(), &spec);
        FileEntry { job: id(job), tenant, spec, digest, resolution }
    }

    /// A microVM ends by itself, or is gone with all that it left.
    fn die(&mut self, nth: u8, death: Option<Death>) {
        let Some(victim) = self.one_alive(nth) else { return };
        match death {
            Some(death) => self.machine.end(&victim, end(death)),
            // Before its creation is in the database its loss could not be noticed.
            None if self.invariants.created.contains(&victim) => self.machine.vanish(&victim),
            None => {}
        }
    }

    /// One of the microVMs that live.
    fn one_alive(&mut self, nth: u8) -> Option<InstanceId> {
        let ids = self.machine.instances().map(|(create, _)| create.instance.clone());
        let alive: Vec<_> = ids.filter(|id| self.machine.alive(id)).collect();
        let one = alive.get(usize::from(nth) % alive.len().max(1)).cloned();
        if let Some(one) = &one {
            self.say(|| format!("it is {one}"));
        }
        one
    }

    fn fault(&mut self, what: &What) {
        match what {
            What::Fault(fault) => self.faults.push(*fault),
            What::Crash => self.crash(),
            What::Lose => {
                self.crash();
                self.store = Some(self.database.empty(&self.disk));
                self.unread = true;
                self.invariants.lose();
            }
            What::Reboot => {
                self.crash();
                self.machine.reboot();
                self.boots += 1;
                (self.booted, self.clock_at_boot) = (self.now, Duration::ZERO);
            }
            What::Jump(days) => self.wall_days += days,
            What::DiskFull(time) => {
                self.disk.set_disk_full(true);
                self.come(*time, Coming::DiskFree);
            }
            What::Hush(nth, time) => {
                if let Some(id) = self.one_alive(*nth) {
                    self.machine.hush(&id);
                    self.come(*time, Coming::Speaks(id));
                }
            }
            What::Unmoored(time) => {
                self.disk.set_lost(true);
                self.come(*time, Coming::Back);
            }
            What::Blind(time) => {
                self.machine.set_blind(true);
                self.come(*time, Coming::Sighted);
            }
            What::Unready(time) => {
                self.machine.set_ready(false);
                self.come(*time, Coming::Ready);
            }
            What::Unread(time) => self.machine.replace_image(&may_miss(), *time),
            What::Prune => {
                let stored = self.machine.images();
                self.ask(Asked::PlanImages(PlanImages { stored, keep: KeepImages::NONE }));
            }
            What::Missing(time) => {
                self.machine.set_missing(&may_miss(), Presence::Missing);
                self.come(*time, Coming::Found);
            }
            _ => {}
        }
    }

    /// The daemon is gone in the middle of what it does: of each action under way nothing, a half or
    /// the whole was done, and no reply arrives.
    fn crash(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        self.store = Some(engine.into_store());
        self.life += 1;
        let queue = std::mem::take(&mut self.queue);
        for (at, coming) in queue {
            match coming {
                Coming::Act(_, action, _) => match self.rng.u8(..3) {
                    0 => {}
                    1 => self.half(*action),
                    _ => {
                        let _ = self.machine.apply(*action);
                    }
                },
                Coming::Arrives(..) | Coming::Wake(_) | Coming::Step(_) | Coming::Look { .. } => {}
                other => {
                    self.queue.insert(at, other);
                }
            }
        }
        self.inbox.clear();
        self.asked.clear();
        self.look_due = false;
        if !self.queue.values().any(|coming| matches!(coming, Coming::Start)) {
            let after = self.millis(20..800);
            self.come(after, Coming::Start);
        }
    }

    fn start(&mut self) -> Result<(), String> {
        let Some(store) = self.store.take() else { return Ok(()) };
        self.life += 1;
        let config = Config {
            capacity: self.invariants.capacity,
            limits: Limits { boots_max: 3, ..Limits::default() },
            disk_overcommit: DiskOvercommit::Warn,
            retention: Retention::default(),
            boot_id: format!("boot-{}", self.boots),
            seed: self.rng.u64(..),
        };
        let engine = Engine::open(store, config).map_err(|error| error.to_string())?;
        self.invariants.started(&engine)?;
        self.engine = Some(engine);
        self.looked_at = None;
        self.say(|| "the daemon starts".to_owned());
        self.fall_silent();
        self.leave_alone();
        self.come(Duration::ZERO, Coming::Look { whole: true });
        if let Some(entries) = self.file.clone().filter(|_| std::mem::take(&mut self.unread)) {
            self.outside(&What::Load(entries));
        }
        // Who had no answer asks again, and some who had.
        for asked in self.keyed.clone() {
            if self.pace.bool() {
                self.ask(asked);
            }
        }
        Ok(())
    }

    /// At half of the starts half of the guests take a while to report.
    fn fall_silent(&mut self) {
        self.not_reported.clear();
        if self.hearing.bool() {
            return;
        }
        let up = |state: &InstanceState| matches!(state, InstanceState::Up { .. });
        for (create, _) in self.machine.instances().filter(|(_, state)| up(state)) {
            if self.hearing.bool() {
                let takes = Duration::from_millis(self.hearing.u64(1..REPORT_DELAY_MS_MAX));
                self.not_reported.insert(create.instance.clone(), self.now + takes);
            }
        }
        let silent: Vec<String> = self.not_reported.keys().map(ToString::to_string).collect();
        self.say(|| format!("host: awaiting the first report of {silent:?}"));
    }

    /// At some starts half of what the database names can't be identified for a while. What it does not
    /// name either belongs to no job until then, and its job gets another.
    fn leave_alone(&mut self) {
        self.unidentified.clear();
        if self.pace.u8(..4) > 0 {
            return;
        }
        let until = self.now + Duration::from_millis(self.pace.u64(1..UNIDENTIFIED_MS_MAX));
        let Some(engine) = &self.engine else { return };
        for (create, _) in self.machine.instances() {
            if engine.fleet().instance(&create.instance).is_some() && self.pace.bool() {
                self.unidentified.insert(create.instance.clone(), until);
            }
        }
        let alone: Vec<String> = self.unidentified.keys().map(ToString::to_string).collect();
        self.say(|| format!("host: cannot identify {alone:?} before +{:.3}", until.as_secs_f64()));
    }

    fn look(&mut self, whole: bool) {
        if whole {
            self.come(Duration::from_secs(1), Coming::Look { whole });
        } else {
            self.look_due = false;
        }
        let since = (!whole).then_some(self.seen_revision);
        let began = self.mono();
        let Ok(mut observation) = self.machine.observe(since) else { return };
        self.not_reported.retain(|_, until| *until > self.now);
        for id in self.not_reported.keys() {
            let seen = observation.instances.get_mut(id);
            if let Some(seen) = seen.filter(|seen| !seen.state.is_exited()) {
                seen.state = InstanceState::Booting;
            }
        }
        self.unidentified.retain(|_, until| *until > self.now);
        for id in self.unidentified.keys() {
            if observation.instances.remove(id).is_some() {
                observation.unidentified.insert(id.to_string(), "it is left alone".to_owned());
            }
        }
        self.seen_revision = observation.revision;
        let travels = self.millis(0..20);
        let input = Box::new(Input::Observed { began, observation });
        self.looks_arrive = self.looks_arrive.max(self.now + travels);
        self.later(self.looks_arrive, Coming::Arrives(self.life, input));
    }

    /// An action reaches the host, and its reply begins its way.
    fn act(&mut self, id: ActionId, action: Action, fault: Option<Fault>) {
        let name = action.name();
        let instance = action.instance().clone();
        let travels = self.millis(1..30);
        let lost = || {
            let seconds = DEADLINE.as_secs();
            HostError::outcome_unknown(format!(
                "cannot {name} instance {instance} within {seconds} s"
            ))
        };
        let refused = || HostError::transient(format!("the simulated host refuses to {name}"));
        let alone = self.unidentified.contains_key(&instance);
        let fault = if alone { Some(Fault::Refused) } else { fault };
        let (result, after) = match fault {
            None | Some(Fault::Late(_)) => (self.machine.apply(action), travels),
            Some(Fault::Refused) => (Err(refused()), travels),
            Some(Fault::ReplyLost) => {
                let _ = self.machine.apply(action);
                (Err(lost()), DEADLINE)
            }
            Some(Fault::Twice) => {
                let first = self.machine.apply(action.clone());
                let _ = self.machine.apply(action);
                (first, travels)
            }
            Some(Fault::Half) => {
                self.half(action);
                (Err(refused()), travels)
            }
        };
        self.say(|| {
            let said = result.as_ref().map_or_else(HostError::sentence, |()| "done".to_owned());
            format!(
                "host: {name} {instance}: {said}{}",
                if after == DEADLINE { " (reply lost)" } else { "" }
            )
        });
        self.come(after, Coming::Arrives(self.life, Box::new(Input::Done(id, result))));
    }

    /// The half of an action.
    fn half(&mut self, action: Action) {
        match action {
            Action::Create(create) => {
                let id = create.instance.clone();
                if self.machine.instances().all(|(known, _)| known.instance != id) {
                    let _ = self.machine.apply(Action::Create(create));
                    self.machine.end(&id, End::NeverStarted);
                }
            }
            // The guest has it, or its workload alone, and the acknowledgement does not come.
            Action::AssignIdentity { instance, spec, identity, .. } if self.pace.bool() => {
                let _ = self.machine.deliver(&instance, &spec, &identity);
            }
            tell @ Action::AssignIdentity { .. } => {
                let _ = self.machine.apply(tell);
            }
            Action::Stop { .. } | Action::Remove { .. } | Action::DropLogs { .. } => {}
        }
    }

    fn ask(&mut self, asked: Asked) {
        if self.engine.is_some() {
            self.requests += 1;
            self.asked.insert(self.requests, asked.clone());
            self.take_in(Input::Request(self.replies.call(self.requests, asked)));
        }
    }

    /// Half of the upserts have a key, and some of these are sent twice.
    fn ask_with_key(&mut self, asked: Asked) {
        let upsert = match asked {
            Asked::Change(upsert @ JobChange::Upsert(_), None) if !self.pace.bool() => upsert,
            asked => return self.ask(asked),
        };
        self.requests += 1;
        let key = format!("key-{}", self.requests);
        let repeat = Some(Repeat { digest: format!("of {key}"), key });
        let asked = Asked::Change(upsert, repeat);
        self.keyed.push_back(asked.clone());
        if self.keyed.len() > KEYED_MAX {
            self.keyed.pop_front();
        }
        if self.pace.u8(..8) == 0 {
            self.ask(asked.clone());
        }
        self.ask(asked);
    }

    /// What arrives while the engine is at another step shares the next one.
    fn take_in(&mut self, input: Input) {
        if self.engine.is_none() {
            return;
        }
        if self.inbox.is_empty() {
            let busy = if self.pace.bool() { 0 } else { self.pace.u64(1..BUSY_MS_MAX) };
            self.come(Duration::from_millis(busy), Coming::Step(self.life));
        }
        self.inbox.push(input);
    }

    fn resolution(&mut self, spec: &Spec) -> Resolution {
        match self.machine.resolve(spec) {
            Ok(lookup) => Resolution::of(spec, lookup),
            Err(error) => Resolution::Failed(error.sentence()),
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let inputs = std::mem::take(&mut self.inbox);
        let now = Now {
            mono: self.mono(),
            wall: format!("day {} +{:.3}", self.wall_days, self.now.as_secs_f64()),
        };
        let Some(engine) = &mut self.engine else { return Ok(()) };
        let here = self.crashes.first().filter(|point| point.step == self.passed.steps);
        let here = here.map(|point| point.side);
        self.passed.steps += 1;
        if here.is_some() {
            self.crashes = &self.crashes[1..];
        }
        if here == Some(Side::Before) {
            self.crash();
            return Ok(());
        }
        let mut seen = Vec::new();
        for input in &inputs {
            if let Input::Observed { began, observation } = input {
                self.looked_at = self.looked_at.max(Some(*began));
                let up = |observed: &Observed| matches!(observed.state, InstanceState::Up { .. });
                let instances = observation.instances.iter();
                seen.extend(instances.filter(|(_, one)| up(one)).map(|(id, _)| id.clone()));
            }
        }
        let asks = Asks::of(&inputs);
        let machine = &self.machine;
        let effects = engine.step(&now, inputs, &|id| machine.alive(id));
        let effects: Vec<Outcome> =
            effects.into_iter().map(|effect| Outcome::of(effect, &self.replies)).collect();
        self.stepped(&asks, &seen, &effects)?;
        if let Some(side) = here {
            for effect in effects {
                if let (Outcome::Effect(Effect::Apply(_, action)), Side::Done) = (effect, side) {
                    let _ = self.machine.apply(action);
                }
            }
            self.crash();
            return Ok(());
        }
        for outcome in effects {
            match outcome {
                Outcome::Answer(number, exchange) => self.answered(number, &exchange)?,
                Outcome::Effect(effect) => self.effect(effect)?,
            }
        }
        match self.asked.values().next() {
            Some(asked) => Err(format!("no answer to {asked:?}")),
            None => Ok(()),
        }
    }

    /// What holds after a step, before any client learns of it.
    fn stepped(
        &mut self,
        asks: &Asks,
        seen: &[InstanceId],
        effects: &[Outcome],
    ) -> Result<(), String> {
        let Some(engine) = &self.engine else { return Ok(()) };
        if self.disk.any() {
            self.invariants.forget_sights();
        }
        self.invariants.step(engine, &self.machine)?;
        engine.audit_view()?;
        let mut unwritten = false;
        for effect in effects {
            match effect {
                Outcome::Effect(Effect::Log(event)) => self.invariants.event(event)?,
                Outcome::Answer(_, exchange) => {
                    unwritten |= exchange.is_unwritten();
                    self.invariants.keyed(exchange)?;
                }
                _ => {}
            }
        }
        if !self.disk.any() {
            Invariants::seen(engine, seen)?;
        }
        unwritten &= asks.changes;
        self.passed.crowded += u64::from(asks.crowded);
        self.passed.unwritten += u64::from(unwritten);
        if unwritten || self.passed.steps.is_multiple_of(64) {
            engine.audit()?;
        }
        Ok(())
    }

    fn effect(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Reply(_) => unreachable!("it is an answer"),
            Effect::Apply(id, action) => {
                self.passed.actions += 1;
                self.trace(hash_of(action.instance().as_str(), action.name()));
                let Some(engine) = &self.engine else { return Ok(()) };
                self.invariants.action(engine, &action, |one, run| {
                    // A VMM that is silent for a moment serves.
                    let given_up = one.silence >= Limits::default().silence_max;
                    let serves = match self.not_reported.contains_key(&one.id) {
                        true => self.machine.serves(&one.id, run),
                        false => one.state.as_ref().is_some_and(|state| state.serves(run)),
                    };
                    serves && !given_up
                })?;
                let is_old = |at: Mono| self.mono().since(at) >= LOOKS_LAST;
                if action.name() != "drop-logs" && self.looked_at.is_none_or(is_old) {
                    return Err(format!("{action:?} follows no look at the host"));
                }
                let fault = if matches!(action, Action::DropLogs { .. }) {
                    None
                } else {
                    self.faults.pop()
                };
                let travels = match fault {
                    Some(Fault::Late(time)) => time,
                    _ => self.millis(0..10),
                };
                self.come(travels, Coming::Act(id, Box::new(action), fault));
            }
            Effect::Resolve(job, run, spec) => {
                let resolution = self.resolution(&spec);
                let travels = match resolution {
                    Resolution::Preparing(_) => IMAGE_WAIT,
                    _ => self.millis(1..20),
                };
                let input = Box::new(Input::Resolved(job, run, resolution));
                self.come(travels, Coming::Arrives(self.life, input));
            }
            Effect::WakeIn(after) => {
                self.queue.retain(|_, coming| !matches!(coming, Coming::Wake(_)));
                self.come(after, Coming::Wake(self.life));
            }
            Effect::Log(event) => {
                self.trace(hash_of(&event.message, event.kind.as_str()));
                self.say(|| {
                    let job = event.job.as_ref().map_or("", |job| job.as_str());
                    format!("  {job} {}: {}", event.kind.as_str(), event.message)
                });
            }
        }
        Ok(())
    }

    fn answered(&mut self, number: u64, exchange: &Exchange) -> Result<(), String> {
        self.trace(number);
        let Some(engine) = &self.engine else { return Ok(()) };
        self.asked.remove(&number).ok_or("an answer to no request")?;
        self.invariants.acknowledged(engine, &self.machine, exchange)?;
        if let Exchange::PlanImages(PlanImages { stored, .. }, Ok(plan)) = exchange {
            let removed = self.machine.keep_images(&plan.used, &plan.remove);
            Invariants::pruned(engine, stored, &removed)?;
        }
        self.say(|| match exchange {
            Exchange::Change(_, Ok(Changed { accepted, job, repeated: false })) => {
                format!("answer: {accepted:?}, {} generation {}", job.job, job.generation)
            }
            Exchange::Apply(Ok(load)) => format!(
                "answer: applied {}, deleted {}, kept {}, refused {:?}",
                load.applied(),
                load.deleted.len(),
                load.kept.len(),
                load.refused
            ),
            other => format!("answer: {other:?}"),
        });
        Ok(())
    }

    /// Something that belongs to what the same seed repeats.
    fn trace(&mut self, item: u64) {
        let at = u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX);
        for word in [at, item] {
            self.passed.trace = (self.passed.trace ^ word).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

fn hash_of(left: &str, right: &str) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for byte in left.bytes().chain(right.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    hash
}

fn capacity(config: &SimConfig) -> Capacity {
    Capacity {
        vcpus: u64::from(config.cpus) * 8,
        memory_mib: config.memory_mib,
        overhead_mib: 5,
        scratch_mib: None,
    }
}

fn may_miss() -> ImageName {
    ImageName::parse(IMAGE_THAT_MAY_MISS).expect("a name")
}

fn end(death: Death) -> End {
    match death {
        Death::Code(code) => End::Code(code),
        Death::Killed => End::Vmm("Firecracker ended by signal 9 (killed)".to_owned()),
        Death::Panic => End::Panic("Kernel panic - not syncing".to_owned()),
    }
}
