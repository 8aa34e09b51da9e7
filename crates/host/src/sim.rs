//! A host in memory: instances boot by a timer, jobs end by another, and a test can end, hide or
//! break any of them. It holds to the same contract as the real one. Nothing outlives the process.

use crate::{BoxFuture, Duplex, Host, HostError, HostFacts, LogLine, LogPage, LogQuery};
use hearth_model::{
    Action, Create, Digest, End, Exit, Generation, ImageName, Images, InstanceId, InstanceState,
    Lifecycle, Observation, Observed, Owner, Phase, Spec, Stage,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// How a simulated host behaves.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// From a creation to the guest's first report.
    pub boot: Duration,
    /// How long the command of a `job` runs before it exits with 0.
    pub work: Duration,
    /// Processors that it claims to have.
    pub cpus: u32,
    /// Memory that it claims to have, in MiB.
    pub memory_mib: u64,
}

impl Default for SimConfig {
    fn default() -> SimConfig {
        SimConfig {
            boot: Duration::from_millis(200),
            work: Duration::from_millis(100),
            cpus: 16,
            memory_mib: 64 * 1024,
        }
    }
}

/// A host in memory.
#[derive(Clone, Debug)]
pub struct SimHost {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: SimConfig,
    changes: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    vms: BTreeMap<InstanceId, Vm>,
    logs: BTreeMap<InstanceId, Vec<String>>,
    missing: BTreeSet<ImageName>,
    refusals: BTreeMap<&'static str, u32>,
    unready: bool,
    blind: bool,
}

#[derive(Debug)]
struct Vm {
    create: Create,
    state: InstanceState,
    /// Grows whenever the timers of before are void.
    epoch: u64,
    /// The host's revision since which it is as it is.
    revision: u64,
}

impl SimHost {
    /// A host without instances.
    #[must_use]
    pub fn new(config: SimConfig) -> SimHost {
        let (changes, _) = watch::channel(0);
        SimHost { shared: Arc::new(Shared { config, changes, state: Mutex::default() }) }
    }

    /// Ends an instance as if its command or its Firecracker had ended by itself.
    pub fn end(&self, instance: &InstanceId, end: End) {
        self.shared.exit(instance, end, false);
    }

    /// From now on this image is missing, or there again.
    pub fn set_missing(&self, image: &ImageName, missing: Presence) {
        let mut state = self.shared.state();
        match missing {
            Presence::Missing => state.missing.insert(image.clone()),
            Presence::There => state.missing.remove(image),
        };
    }

    /// The next so many actions of this [name](Action::name) fail.
    pub fn refuse(&self, action: &'static str, count: u32) {
        self.shared.state().refusals.insert(action, count);
    }

    /// From now on no readiness check passes.
    pub fn never_ready(&self) {
        self.shared.state().unready = true;
    }

    /// From now on looks fail.
    pub fn go_blind(&self) {
        self.shared.state().blind = true;
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

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// A change of an instance is done: it has a new revision, and so has the host.
    fn bump(&self, instance: &InstanceId) {
        self.changes.send_modify(|revision| {
            *revision += 1;
            if let Some(vm) = self.state().vms.get_mut(instance) {
                vm.revision = *revision;
            }
        });
    }

    fn exit(&self, instance: &InstanceId, end: End, stop_requested: bool) {
        let mut state = self.state();
        if let Some(vm) = state.vms.get_mut(instance)
            && !matches!(vm.state, InstanceState::Exited(_))
        {
            vm.state = InstanceState::Exited(Exit { end, stop_requested });
            vm.epoch += 1;
        }
        drop(state);
        self.bump(instance);
    }

    fn create(self: &Arc<Self>, create: Create) -> Result<(), HostError> {
        let mut state = self.state();
        if state.vms.contains_key(&create.instance) {
            return Ok(());
        }
        let id = create.instance.clone();
        let spec = create.spec.clone();
        let told = match &create.owner {
            Owner::Job(identity) => Some(identity.generation),
            Owner::Pool => None,
        };
        let phase = match create.stage {
            Stage::App => Phase::Running,
            Stage::Init => Phase::Held,
        };
        state.logs.entry(id.clone()).or_default();
        state.vms.insert(
            id.clone(),
            Vm { create, state: InstanceState::Booting, epoch: 0, revision: 0 },
        );
        drop(state);
        self.bump(&id);
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(shared.config.boot).await;
            shared.up(&id, 0, phase, told, &spec);
        });
        Ok(())
    }

    fn up(
        self: &Arc<Self>,
        id: &InstanceId,
        epoch: u64,
        phase: Phase,
        told: Option<Generation>,
        spec: &Spec,
    ) {
        let mut state = self.state();
        let ready = phase == Phase::Running && !(state.unready && spec.ready.is_some());
        let Some(vm) = state.vms.get_mut(id).filter(|vm| vm.epoch == epoch) else { return };
        vm.state = InstanceState::Up { phase, ready, told, ready_detail: None };
        if phase == Phase::Running {
            let line = format!("simulated: {}", spec.cmd.join(" "));
            state.logs.entry(id.clone()).or_default().push(line);
            if spec.lifecycle == Lifecycle::Job {
                let (shared, id) = (self.clone(), id.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(shared.config.work).await;
                    shared.exit(&id, End::Code(0), false);
                });
            }
        }
        drop(state);
        self.bump(id);
    }

    fn tell(
        self: &Arc<Self>,
        id: &InstanceId,
        generation: Generation,
        go: bool,
    ) -> Result<(), HostError> {
        let mut state = self.state();
        let Some(vm) = state.vms.get_mut(id) else {
            return Err(HostError::transient(format!("there is no instance {id}")));
        };
        let InstanceState::Up { phase, told, .. } = &mut vm.state else {
            return Err(HostError::transient(format!("instance {id} is not up")));
        };
        *told = Some((*told).map_or(generation, |known| known.max(generation)));
        let (held, told) = (*phase == Phase::Held, *told);
        let (epoch, spec) = (vm.epoch, vm.create.spec.clone());
        drop(state);
        if held && go {
            self.up(id, epoch, Phase::Running, told, &spec);
        }
        self.bump(id);
        Ok(())
    }
}

impl Host for SimHost {
    fn resolve<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Images, HostError>> {
        let state = self.shared.state();
        let digest = |name: &ImageName| {
            if state.missing.contains(name) {
                let message = format!("cannot open {name}: not found in the images directory");
                return Err(HostError::permanent(message));
            }
            Ok(Digest(*blake3::hash(name.as_str().as_bytes()).as_bytes()))
        };
        let images = digest(&spec.kernel).and_then(|kernel| {
            let rootfs = spec.rootfs.as_ref().map(digest).transpose()?;
            Ok(Images { kernel, modules: None, rootfs })
        });
        Box::pin(std::future::ready(images))
    }

    fn observe(&self, since: Option<u64>) -> BoxFuture<'_, Result<Observation, HostError>> {
        let revision = *self.shared.changes.borrow();
        let state = self.shared.state();
        let observed = if state.blind {
            Err(HostError::transient("the simulated host cannot be looked at"))
        } else {
            let observed = |vm: &Vm| Observed {
                slot: vm.create.slot,
                hash: vm.create.hash,
                state: vm.state.clone(),
            };
            let changed =
                state.vms.iter().filter(|(_, vm)| since.is_none_or(|at| vm.revision > at));
            let instances = changed.map(|(id, vm)| (id.clone(), observed(vm))).collect();
            Ok(Observation {
                whole: since.is_none(),
                revision,
                instances,
                unidentified: Vec::new(),
            })
        };
        Box::pin(std::future::ready(observed))
    }

    fn apply(&self, action: Action) -> BoxFuture<'_, Result<(), HostError>> {
        let name = action.name();
        if let Some(left) = self.shared.state().refusals.get_mut(name).filter(|left| **left > 0) {
            *left -= 1;
            let refused = HostError::transient(format!("the simulated host refuses to {name}"));
            return Box::pin(std::future::ready(Err(refused)));
        }
        let done = match action {
            Action::Create(create) => self.shared.create(*create),
            Action::Tell { instance, identity, go } => {
                self.shared.tell(&instance, identity.generation, go)
            }
            Action::Stop { instance, .. } => {
                self.shared.exit(&instance, End::Signal(15), true);
                Ok(())
            }
            Action::Remove { instance } => {
                self.shared.state().vms.remove(&instance);
                Ok(())
            }
            Action::DropLogs { instance } => {
                self.shared.state().logs.remove(&instance);
                Ok(())
            }
        };
        Box::pin(std::future::ready(done))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn alive(&self, instance: &InstanceId) -> bool {
        let state = self.shared.state();
        state.vms.get(instance).is_some_and(|vm| !matches!(vm.state, InstanceState::Exited(_)))
    }

    fn logs<'a>(
        &'a self,
        instance: &'a InstanceId,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogPage, HostError>> {
        let state = self.shared.state();
        let all = state.logs.get(instance).map(Vec::as_slice).unwrap_or_default();
        let next = all.len() as u64;
        let from = usize::try_from(query.after).unwrap_or(usize::MAX).min(all.len());
        let from = query.tail.map_or(from, |tail| from.max(all.len().saturating_sub(tail)));
        let lines = (1..)
            .zip(all)
            .skip(from)
            .map(|(cursor, text)| LogLine {
                at: "1970-01-01T00:00:00Z".to_owned(),
                stream: "stdout",
                text: text.clone(),
                cursor,
            })
            .collect();
        Box::pin(std::future::ready(Ok(LogPage { lines, next })))
    }

    fn connect<'a>(
        &'a self,
        instance: &'a InstanceId,
        _port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, HostError>> {
        let up = self.alive(instance);
        Box::pin(async move {
            if !up {
                return Err(HostError::transient(format!("instance {instance} is not up")));
            }
            // What listens in a simulated guest echoes.
            let (near, far) = tokio::io::duplex(16 * 1024);
            tokio::spawn(async move {
                let (mut reader, mut writer) = tokio::io::split(far);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }

    fn facts(&self) -> HostFacts {
        let SimConfig { cpus, memory_mib, .. } = self.shared.config;
        HostFacts {
            description: "simulated host".to_owned(),
            warnings: vec!["this host is simulated: no microVM really runs".to_owned()],
            cpus,
            memory_mib,
            time_factor: 1,
            overhead_mib: 5,
        }
    }
}
