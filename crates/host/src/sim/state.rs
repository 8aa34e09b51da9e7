//! What a simulated host is, without a clock, a thread or a task: it changes when it is asked to and
//! when it is told how late it is. The same calls give the same host.

use crate::HostError;
use hearth_model::{
    Action, Create, CreatedInstance, Delivery, Digest, End, Exit, Generation, Identity, ImageName,
    ImageProgress, Images, InstanceId, InstanceState, Lifecycle, Lookup, Mono, Observation,
    Observed, OomKill, OomKills, Owner, Phase, SILENT_AFTER, Spec, Stage, StoredImage,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How a simulated host behaves.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// From a creation to the guest's first report.
    pub boot: Duration,
    /// How long the command of a `job` runs before it exits: with 0, but `false` with 1, and
    /// `sh -c "exit N"` with N.
    pub work: Duration,
    /// Processors that it claims to have.
    pub cpus: u32,
    /// Memory that it claims to have, in MiB.
    pub memory_mib: u64,
    /// What scratch disks may take in all, in MiB, where it has an end.
    pub scratch_mib: Option<u64>,
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig {
            boot: Duration::from_millis(200),
            work: Duration::from_millis(100),
            cpus: 16,
            memory_mib: 64 * 1024,
            scratch_mib: None,
        }
    }
}

/// Whether an image is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    There,
    /// It is not.
    Missing,
}

/// A host in memory.
#[derive(Debug)]
pub struct SimState {
    pub(super) config: SimConfig,
    now: Mono,
    revision: u64,
    vms: BTreeMap<InstanceId, Vm>,
    logs: BTreeMap<InstanceId, Vec<(Mono, String)>>,
    /// Those that were written to or dropped since this was taken last.
    logged: BTreeSet<InstanceId>,
    missing: BTreeSet<ImageName>,
    /// Images that have to be read before their digests are known.
    readings: BTreeMap<ImageName, Reading>,
    /// Copies of images, with when each was used last.
    copies: BTreeMap<Digest, Mono>,
    refusals: BTreeMap<&'static str, u32>,
    /// The last refusal of a workload.
    workload_refusal: Option<String>,
    unready: bool,
    blind: bool,
    /// What is due when, for which epoch of an instance.
    timers: BTreeSet<(Mono, InstanceId, u64, Timer)>,
}

/// An image that has to be read.
#[derive(Debug)]
struct Reading {
    /// With the first look-up.
    began: Option<Mono>,
    takes: Duration,
    /// When somebody looked it up last.
    requested: Mono,
}

#[derive(Debug)]
struct Vm {
    create: Create,
    created: Arc<CreatedInstance>,
    /// What its guest runs, or holds; `None` before it has come.
    workload: Option<Arc<Spec>>,
    /// The generation of a workload that came late.
    delivered: Option<Generation>,
    state: InstanceState,
    oom_kills: OomKills,
    /// Grows whenever the timers of before are void.
    epoch: u64,
    /// The host's revision since which it is as it is.
    revision: u64,
    /// How many probes its VMM has missed, while it does not answer.
    missed: Option<u32>,
}

/// From one probe of a VMM that does not answer to the next: as the real host's, with its deadline.
const PROBE_EVERY: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The guest reports.
    Up,
    /// The command of a `job` is done.
    Over,
    /// The VMM is asked, and does not answer.
    Probe,
}

impl Vm {
    fn silence(&self) -> u32 {
        self.missed.filter(|missed| *missed >= SILENT_AFTER && !self.state.is_exited()).unwrap_or(0)
    }
}

/// How long an image is read behind the last look-up.
const REQUESTED_FOR: Duration = Duration::from_secs(10);

fn mib(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_mul(1024 * 1024)
}

/// What each copy of an image takes of a simulated disk.
const SIM_IMAGE_BYTES: u64 = 1024 * 1024;

impl SimState {
    /// A host without instances, at the beginning of its clock.
    #[must_use]
    pub fn new(config: SimConfig) -> SimState {
        SimState {
            config,
            now: Mono::default(),
            revision: 0,
            vms: BTreeMap::new(),
            logs: BTreeMap::new(),
            logged: BTreeSet::new(),
            missing: BTreeSet::new(),
            readings: BTreeMap::new(),
            copies: BTreeMap::new(),
            refusals: BTreeMap::new(),
            workload_refusal: None,
            unready: false,
            blind: false,
            timers: BTreeSet::new(),
        }
    }

    /// How late it is: what is due by then happens, in its order. Time never goes back.
    pub fn advance(&mut self, now: Mono) {
        while let Some((at, _, _, _)) = self.timers.first()
            && *at <= now
        {
            let Some((at, id, epoch, timer)) = self.timers.pop_first() else { break };
            self.now = self.now.max(at);
            if self.vms.get(&id).is_none_or(|vm| vm.epoch != epoch) {
                continue;
            }
            match timer {
                Timer::Up => self.report(&id),
                Timer::Over => {
                    let spec = self.vms.get(&id).and_then(|vm| vm.workload.as_ref());
                    let end = spec.map_or(End::Unknown, |spec| end_of(spec));
                    self.exit(&id, end, false);
                }
                Timer::Probe => self.miss(&id),
            }
        }
        self.now = self.now.max(now);
    }

    /// When something is due next.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _, _, _)| *at)
    }

    /// Grows with every change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The digests of a spec's images, which are those of their names.
    ///
    /// # Errors
    /// A permanent [`HostError`] where one is missing.
    pub fn resolve(&mut self, spec: &Spec) -> Result<Lookup, HostError> {
        let names = [Some(&spec.kernel), spec.rootfs.as_ref()];
        for name in names.into_iter().flatten() {
            if self.missing.contains(name) {
                self.readings.remove(name);
                let message = format!("cannot open {name}: not found in the images directory");
                return Err(HostError::permanent(message));
            }
        }
        let pending = names.map(|name| name.and_then(|name| self.read(name)));
        if let Some(progress) = pending.into_iter().flatten().next() {
            return Ok(Lookup::Preparing(progress));
        }
        let digest = |name: &ImageName| Digest(*blake3::hash(name.as_str().as_bytes()).as_bytes());
        let (kernel, rootfs) = (digest(&spec.kernel), spec.rootfs.as_ref().map(digest));
        Ok(Lookup::Known(Images { kernel, modules: None, rootfs }))
    }

    /// Reads an image for as long as it is requested; how far it is, where it is not whole.
    fn read(&mut self, image: &ImageName) -> Option<ImageProgress> {
        let now = self.now;
        let reading = self.readings.get_mut(image)?;
        let takes = reading.takes;
        let lapsed =
            |began: &Mono| reading.requested.after(REQUESTED_FOR) < now.min(began.after(takes));
        let began = reading.began.filter(|began| !lapsed(began)).unwrap_or(now);
        (reading.began, reading.requested) = (Some(began), now);
        let done = now.since(began);
        (done < takes).then(|| ImageProgress {
            image: image.clone(),
            // A MiB a millisecond.
            done_bytes: mib(done),
            total_bytes: mib(takes),
        })
    }

    /// An image is another file now, which takes so long to be read.
    pub fn replace_image(&mut self, image: &ImageName, takes: Duration) {
        let reading = Reading { began: None, takes, requested: self.now };
        self.readings.insert(image.clone(), reading);
    }

    /// As [`crate::Host::observe`].
    ///
    /// # Errors
    /// Where it is blind.
    pub fn observe(&self, since: Option<u64>) -> Result<Observation, HostError> {
        if self.blind {
            return Err(HostError::transient("the simulated host cannot be looked at"));
        }
        let observed = |vm: &Vm| Observed {
            slot: vm.create.slot,
            hash: vm.create.hash,
            created: Some(Arc::clone(&vm.created)),
            state: vm.state.clone(),
            oom_kills: vm.oom_kills.clone(),
            silence: vm.silence(),
            confined: true,
        };
        let changed = self.vms.iter().filter(|(_, vm)| since.is_none_or(|at| vm.revision > at));
        Ok(Observation {
            whole: since.is_none(),
            revision: self.revision,
            instances: changed.map(|(id, vm)| (id.clone(), observed(vm))).collect(),
            unidentified: BTreeMap::new(),
            scratch_mib: self.config.scratch_mib,
        })
    }

    /// As [`crate::Host::apply`].
    ///
    /// # Errors
    /// If it was told to refuse it, or there is no guest to assign it to.
    pub fn apply(&mut self, action: Action) -> Result<(), HostError> {
        let name = action.name();
        if let Some(left) = self.refusals.get_mut(name).filter(|left| **left > 0) {
            *left -= 1;
            return Err(HostError::transient(format!("the simulated host refuses to {name}")));
        }
        match action {
            Action::Create(create) => self.create(*create),
            Action::AssignIdentity { instance, spec, identity, release } => {
                self.deliver(&instance, &spec, &identity)?;
                return self.assign_identity(&instance, &identity, release);
            }
            Action::Stop { instance, signal, .. } => {
                self.exit(&instance, End::Signal(signal.number()), true);
            }
            Action::Remove { instance } => {
                if self.vms.get(&instance).is_some_and(|vm| !vm.state.is_exited()) {
                    let message = format!("cannot remove instance {instance}: it runs");
                    return Err(HostError::transient(message));
                }
                self.vms.remove(&instance);
                self.revision += 1;
            }
            Action::DropLogs { instance } => {
                self.logs.remove(&instance);
                self.logged.insert(instance);
            }
        }
        Ok(())
    }

    /// Whether the process of an instance lives.
    #[must_use]
    pub fn alive(&self, instance: &InstanceId) -> bool {
        self.vms.get(instance).is_some_and(|vm| !vm.state.is_exited())
    }

    /// The instances there are, with what they were made of, their current owners, and what they do.
    pub fn instances(&self) -> impl Iterator<Item = (&Create, &InstanceState)> {
        self.vms.values().map(|vm| (&vm.create, &vm.state))
    }

    /// Whether an instance is up and ready as this run of its job.
    #[must_use]
    pub fn serves(&self, instance: &InstanceId, run: Generation) -> bool {
        self.vms.get(instance).is_some_and(|vm| vm.state.serves(run))
    }

    /// The command of an instance writes a line.
    pub fn write_line(&mut self, instance: &InstanceId, line: String) {
        self.logs.entry(instance.clone()).or_default().push((self.now, line));
        self.logged.insert(instance.clone());
    }

    /// The instances whose logs have changed since this was last called.
    pub fn take_logged(&mut self) -> BTreeSet<InstanceId> {
        std::mem::take(&mut self.logged)
    }

    /// What an instance said, and when.
    #[must_use]
    pub fn log(&self, instance: &InstanceId) -> &[(Mono, String)] {
        self.logs.get(instance).map(Vec::as_slice).unwrap_or_default()
    }

    /// As [`crate::Host::images`]. A copy comes with the first instance that needs it.
    #[must_use]
    pub fn images(&self) -> Vec<StoredImage> {
        let stored = |(digest, used): (&Digest, &Mono)| StoredImage {
            name: digest.to_string(),
            digest: Some(*digest),
            bytes: SIM_IMAGE_BYTES,
            unused_for: self.now.since(*used),
            linked: self.is_linked(digest),
        };
        self.copies.iter().map(stored).collect()
    }

    /// As [`crate::Host::keep_images`].
    pub fn keep_images(&mut self, used: &[String], remove: &[String]) -> Vec<String> {
        for digest in used.iter().filter_map(|name| Digest::parse(name)) {
            self.copies.entry(digest).and_modify(|used| *used = self.now);
        }
        let goes = |name: &&String| {
            Digest::parse(name).is_some_and(|digest| {
                let linked = self.vms.values().any(|vm| has(&vm.created.images, &digest));
                if !linked {
                    self.copies.remove(&digest);
                }
                !linked
            })
        };
        remove.iter().filter(goes).cloned().collect()
    }

    fn is_linked(&self, digest: &Digest) -> bool {
        self.vms.values().any(|vm| has(&vm.created.images, digest))
    }

    /// Ends an instance as if its command or its Firecracker had ended by itself.
    pub fn end(&mut self, instance: &InstanceId, end: End) {
        self.exit(instance, end, false);
    }

    /// The kernel of a guest kills a process for lack of memory, which is not its command.
    pub fn oom_kill(&mut self, instance: &InstanceId, kill: OomKill) {
        if let Some(vm) = self.vms.get_mut(instance) {
            vm.oom_kills.count += 1;
            vm.oom_kills.last = vec![kill];
            self.bump(instance);
        }
    }

    /// From now on the VMM of an instance does not answer. Its guest continues.
    pub fn hush(&mut self, instance: &InstanceId) {
        let Some(vm) = self.vms.get_mut(instance).filter(|vm| vm.missed.is_none()) else { return };
        vm.missed = Some(0);
        let timer = (self.now.after(PROBE_EVERY), instance.clone(), vm.epoch, Timer::Probe);
        self.timers.insert(timer);
    }

    /// The VMM of an instance answers again.
    pub fn speak(&mut self, instance: &InstanceId) {
        if self.vms.get_mut(instance).is_some_and(|vm| vm.missed.take().is_some()) {
            self.bump(instance);
        }
    }

    /// How many probes the VMM of an instance has missed.
    #[must_use]
    pub fn silence(&self, instance: &InstanceId) -> u32 {
        self.vms.get(instance).map_or(0, Vm::silence)
    }

    fn miss(&mut self, id: &InstanceId) {
        let Some(vm) = self.vms.get_mut(id) else { return };
        let Some(missed) = &mut vm.missed else { return };
        *missed += 1;
        let timer = (self.now.after(PROBE_EVERY), id.clone(), vm.epoch, Timer::Probe);
        self.timers.insert(timer);
        if vm.silence() > 0 {
            self.bump(id);
        }
    }

    /// An instance is gone with all that it left.
    pub fn vanish(&mut self, instance: &InstanceId) {
        self.vms.remove(instance);
        self.revision += 1;
    }

    /// The machine loses its power: nothing runs any more, how it ended is not known, and the clock
    /// starts again.
    pub fn reboot(&mut self) {
        let ids: Vec<InstanceId> = self.vms.keys().cloned().collect();
        ids.iter().for_each(|id| self.exit(id, End::Unknown, false));
        self.timers.clear();
        let now = std::mem::take(&mut self.now);
        // What was not read whole is gone, and points of the old clock are void.
        let is_whole =
            |reading: &Reading| reading.began.is_some_and(|at| now.since(at) >= reading.takes);
        self.readings.retain(|_, reading| !is_whole(reading));
        for reading in self.readings.values_mut() {
            (reading.began, reading.requested) = (None, Mono::default());
        }
    }

    /// From now on this image is missing, or there again.
    pub fn set_missing(&mut self, image: &ImageName, missing: Presence) {
        match missing {
            Presence::Missing => self.missing.insert(image.clone()),
            Presence::There => self.missing.remove(image),
        };
    }

    /// The next so many actions of this [name](Action::name) fail.
    pub fn refuse(&mut self, action: &'static str, count: u32) {
        self.refusals.insert(action, count);
    }

    /// Whether readiness checks pass from now on. One that has passed is not made again.
    pub fn set_ready(&mut self, ready: bool) {
        self.unready = !ready;
        let passes = |(id, vm): (&InstanceId, &Vm)| match vm.state {
            InstanceState::Up { phase: Phase::Running, ready: false, acknowledged, .. }
                if ready =>
            {
                Some((id.clone(), acknowledged))
            }
            _ => None,
        };
        let now: Vec<_> = self.vms.iter().filter_map(passes).collect();
        now.into_iter().for_each(|(id, acknowledged)| self.set(&id, Phase::Running, acknowledged));
    }

    /// Whether looks fail from now on.
    pub fn set_blind(&mut self, blind: bool) {
        self.blind = blind;
    }

    fn create(&mut self, create: Create) {
        let id = create.instance.clone();
        if self.vms.contains_key(&id) {
            return;
        }
        self.timers.insert((self.now.after(self.config.boot), id.clone(), 0, Timer::Up));
        self.logs.entry(id.clone()).or_default();
        let copies = create.machine.images().digests();
        self.copies.extend(copies.map(|digest| (digest, self.now)));
        let created = Arc::new(CreatedInstance::of(&create));
        let workload = match create.workload {
            Delivery::Inline => Some(create.spec.clone()),
            Delivery::Late => None,
        };
        let vm = Vm {
            create,
            created,
            workload,
            delivered: None,
            state: InstanceState::Booting,
            oom_kills: OomKills::default(),
            epoch: 0,
            revision: 0,
            missed: None,
        };
        self.vms.insert(id.clone(), vm);
        self.bump(&id);
    }

    /// A guest's first report.
    fn report(&mut self, id: &InstanceId) {
        let Some(vm) = self.vms.get(id) else { return };
        let acknowledged = match &vm.create.owner {
            Owner::Job(identity) => Some(identity.generation),
            Owner::Pool(_) => None,
        };
        match vm.create.stage {
            Stage::App => self.run(id, acknowledged),
            Stage::Init => self.set(id, Phase::Held, acknowledged),
        }
    }

    /// The command begins.
    fn run(&mut self, id: &InstanceId, acknowledged: Option<Generation>) {
        let Some(vm) = self.vms.get(id) else { return };
        // An init without its workload takes no identity.
        let Some(spec) = vm.workload.clone() else { return };
        let epoch = vm.epoch;
        let line = format!("simulated: {}", spec.cmd.join(" "));
        self.write_line(id, line);
        if spec.lifecycle == Lifecycle::Job {
            let over = self.now.after(self.config.work);
            self.timers.insert((over, id.clone(), epoch, Timer::Over));
        }
        self.set(id, Phase::Running, acknowledged);
    }

    fn set(&mut self, id: &InstanceId, phase: Phase, acknowledged: Option<Generation>) {
        let Some(vm) = self.vms.get_mut(id) else { return };
        let passes = !(self.unready && vm.create.spec.ready.is_some());
        let ready = phase == Phase::Running && passes;
        vm.state = InstanceState::Up { phase, ready, acknowledged, ready_detail: None };
        self.bump(id);
    }

    /// The first part of assigning an identity to a guest: one that waits for its workload gets it, and has it
    /// for life.
    ///
    /// # Errors
    /// Where it is not up, or has another one.
    pub fn deliver(
        &mut self,
        id: &InstanceId,
        spec: &Arc<Spec>,
        identity: &Identity,
    ) -> Result<(), HostError> {
        let vm = self.up(id)?;
        vm.created = Arc::new(vm.created.assigned(identity));
        let is_held = matches!(vm.state, InstanceState::Up { phase: Phase::Held, .. });
        if vm.create.workload == Delivery::Inline || !is_held {
            return Ok(());
        }
        let first = vm.workload.get_or_insert_with(|| spec.clone());
        let known = *vm.delivered.get_or_insert(identity.generation);
        if known >= identity.generation && workload_is_same(first, spec) {
            return Ok(());
        }
        let why = format!("the guest has the workload of generation {}", known.0);
        let refusal = format!("instance {id} refuses its workload: {why}");
        self.workload_refusal = Some(refusal.clone());
        Err(HostError::permanent(refusal))
    }

    /// What a guest said last that was given another workload than it has.
    #[must_use]
    pub fn workload_refusal(&self) -> Option<&str> {
        self.workload_refusal.as_deref()
    }

    /// The generation of the workload that came late to an instance, where one did.
    #[must_use]
    pub fn delivered(&self, instance: &InstanceId) -> Option<Generation> {
        self.vms.get(instance).and_then(|vm| vm.delivered)
    }

    fn up(&mut self, id: &InstanceId) -> Result<&mut Vm, HostError> {
        let Some(vm) = self.vms.get_mut(id) else {
            return Err(HostError::transient(format!("there is no instance {id}")));
        };
        if !matches!(vm.state, InstanceState::Up { .. }) {
            return Err(HostError::transient(format!("instance {id} is not up")));
        }
        Ok(vm)
    }

    fn assign_identity(
        &mut self,
        id: &InstanceId,
        identity: &Identity,
        release: bool,
    ) -> Result<(), HostError> {
        let vm = self.up(id)?;
        let InstanceState::Up { phase, acknowledged, .. } = &mut vm.state else { return Ok(()) };
        *acknowledged = (*acknowledged).max(Some(identity.generation));
        let (held, acknowledged) = (*phase == Phase::Held, *acknowledged);
        let created = vm.created.assigned(identity);
        vm.create.owner = created.owner.clone();
        vm.created = Arc::new(created);
        if held && release {
            self.run(id, acknowledged);
        } else {
            self.bump(id);
        }
        Ok(())
    }

    fn exit(&mut self, id: &InstanceId, end: End, stop_requested: bool) {
        let Some(vm) = self.vms.get_mut(id).filter(|vm| !vm.state.is_exited()) else { return };
        vm.state = InstanceState::Exited(Exit { end, stop_requested });
        vm.epoch += 1;
        self.bump(id);
    }

    /// A change of an instance is done: it has a new revision, and so has the host.
    fn bump(&mut self, id: &InstanceId) {
        self.revision += 1;
        if let Some(vm) = self.vms.get_mut(id) {
            vm.revision = self.revision;
        }
    }
}

fn has(images: &Images, digest: &Digest) -> bool {
    images.digests().any(|known| known == *digest)
}

/// Whether two specs have the same workload, whatever their policy is.
fn workload_is_same(left: &Spec, right: &Spec) -> bool {
    let check = |spec: &Spec| spec.ready.as_ref().map(|ready| ready.check.clone());
    (&left.cmd, &left.env, check(left)) == (&right.cmd, &right.env, check(right))
}

/// How a simulated command ends.
fn end_of(spec: &Spec) -> End {
    let words: Vec<&str> = spec.cmd.iter().map(String::as_str).collect();
    let code = match words.as_slice() {
        ["false" | "/bin/false"] => Some(1),
        [.., "-c", line] => line.strip_prefix("exit ").and_then(|code| code.trim().parse().ok()),
        _ => None,
    };
    End::Code(code.unwrap_or(0))
}
