//! Puts the parts together, in an order that never leaves half a daemon: lock, socket, host,
//! database, then the tasks. And takes them apart again, microVMs excepted.

use crate::admission::Policy;
use crate::backup::{self, DATABASE};
use crate::core::{self, EngineHandle};
use crate::desired::{self, WatchedSource};
use crate::http::{self, App, Guard, Offload, Tunnels};
use crate::listen::Listener;
use crate::state_dir::StateDir;
use crate::stop::Stop;
use crate::{
    Config, DaemonError, HostChoice, Listen, executor, images, limits, observer, watchdog,
};
use hearth_api::DesiredFile;
use hearth_engine::Engine;
use hearth_host::linux::{LinuxConfig, LinuxHost};
use hearth_host::sim::{SimConfig, SimHost};
use hearth_host::{Host, HostFacts};
use hearth_planner::{Capacity, Limits};
use hearth_store::Sqlite;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A daemon that serves.
#[derive(Debug)]
pub struct Daemon {
    listen: Listen,
    facts: HostFacts,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    core_end: oneshot::Receiver<()>,
    state_dir: StateDir,
    signals: Signals,
}

/// How a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It is to stay ended.
    Stopped,
    /// It is to execute the installed program, in the same process.
    Reexec,
}

/// What may be said to a daemon from outside.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reexec: Signal,
}

fn listen_to(kind: SignalKind) -> Result<Signal, DaemonError> {
    let operation = "listen to signals";
    signal(kind).map_err(|source| DaemonError::System { operation, source })
}

impl Signals {
    /// Cancel safe.
    async fn end(&mut self) -> Exit {
        tokio::select! {
            // All arms are cancel safe.
            biased;
            _ = self.interrupt.recv() => Exit::Stopped,
            _ = self.terminate.recv() => Exit::Stopped,
            _ = self.reexec.recv() => Exit::Reexec,
        }
    }
}

/// Starts a daemon. When this returns it accepts requests.
///
/// # Errors
/// Every [`DaemonError`]. Nothing is left running.
pub async fn start(config: Config) -> Result<Daemon, DaemonError> {
    // Before the lock: asking the daemon that holds it to restart must not end it. The other signals end
    // a start that takes too long.
    let reexec = listen_to(SignalKind::user_defined2())?;
    let state_dir = StateDir::open(&config.state_dir)?;
    let policy = Policy::new(config.callers.clone(), &config.listen);
    let listener = Listener::bind(&config.listen, policy.gid().await).await?;
    let listen = listener.address(&config.listen);
    if let Some(warning) = policy.warning(listener.probe()) {
        tracing::warn!("{warning}");
    }
    let host = open_host(&config, &state_dir).await?;
    let facts = host.facts();
    backup::take(&state_dir).map_err(Box::new)?;
    let engine = open_engine(&state_dir, &facts, &config)?;

    let interrupt = listen_to(SignalKind::interrupt())?;
    let terminate = listen_to(SignalKind::terminate())?;
    let signals = Signals { interrupt, terminate, reexec };
    let (stop, stopping) = Stop::channel();
    let (seen_sender, seen) = watch::channel(false);
    let (desired_sender, desired) = watch::channel(None);
    let watched = Arc::new(WatchedSource::new(&config.desired));
    let (work, inbox) = mpsc::unbounded_channel();
    let (engine, core_end) = core::spawn(engine, host.clone(), work)
        .map_err(|source| DaemonError::System { operation: "start a thread", source })?;
    let app = App {
        engine: engine.clone(),
        host: host.clone(),
        guard: Guard::new(&listen),
        seen,
        desired,
        watched: watched.clone(),
        stop: stopping.clone(),
        tunnels: Tunnels::default(),
        streams: Arc::new(Semaphore::new(limits::STREAMS_MAX)),
        keep_images: config.keep_images,
        offload: Offload::default(),
    };

    state_dir.publish(&listen.to_string())?;
    let mut tasks = JoinSet::new();
    tasks.spawn(executor::run(host.clone(), engine.clone(), inbox, stopping.clone()));
    tasks.spawn(observer::run(host.clone(), engine.clone(), seen_sender, stopping.clone()));
    let keep = config.keep_images;
    tasks.spawn(images::run(host.clone(), engine.clone(), keep, stopping.clone()));
    tasks.spawn(http::serve(listener, http::router(Arc::new(app)), policy, stopping.clone()));
    tasks.spawn(watch_file(&config, host, engine, desired_sender, watched, stopping));
    watchdog::tell(sd_notify::NotifyState::Ready);
    // One that has restarted in place begins in the middle of its supervisor's interval.
    watchdog::tell(sd_notify::NotifyState::Watchdog);
    Ok(Daemon { listen, facts, stop, tasks, core_end, state_dir, signals })
}

impl Daemon {
    /// Where it listens, as `HEARTH_URL` takes it.
    #[must_use]
    pub fn address(&self) -> &Listen {
        &self.listen
    }

    /// What runs the microVMs.
    #[must_use]
    pub fn host_facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Serves until SIGINT, SIGTERM or SIGUSR2, then ends within 10 s. MicroVMs stay.
    ///
    /// After SIGUSR2 it is to restart in place: with a backup that waits for that, or as the version that
    /// is installed now.
    pub async fn run(mut self) -> Exit {
        let how = tokio::select! {
            // Both arms are cancel safe.
            biased;
            how = self.signals.end() => how,
            // Without one of its tasks it would only seem to serve.
            Some(ended) = self.tasks.join_next() => watchdog::abort(&match ended {
                Ok(()) => "a task of the daemon ended".to_owned(),
                Err(error) => format!("a task of the daemon failed: {error}"),
            }),
        };
        tracing::info!(restarts = how == Exit::Reexec, "ending; microVMs keep running");
        self.stop.send_replace(true);
        let drained = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(cause = %error, "a task of the daemon failed");
                }
            }
        };
        if timeout(limits::DRAIN_TASKS, drained).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "what did not end in time is cut off");
            self.tasks.abort_all();
        }
        // With the tasks went every way to the engine, so its thread ends after the last commit.
        if timeout(limits::DRAIN_CORE, &mut self.core_end).await.is_err() {
            tracing::warn!("the database is slow; the last commit may be missing");
        }
        tracing::info!(state_dir = %self.state_dir.path().display(), "ended");
        how
    }
}

fn watch_file(
    config: &Config,
    host: Arc<dyn Host>,
    engine: EngineHandle,
    state: watch::Sender<Option<DesiredFile>>,
    source: Arc<WatchedSource>,
    stop: Stop,
) -> impl Future<Output = ()> + use<> {
    desired::run(config.desired.clone(), config.deletions, host, engine, state, source, stop)
}

async fn open_host(config: &Config, state_dir: &StateDir) -> Result<Arc<dyn Host>, DaemonError> {
    match &config.host {
        HostChoice::Sim { boot } => {
            Ok(Arc::new(SimHost::new(SimConfig { boot: *boot, ..SimConfig::default() })))
        }
        HostChoice::Linux { firecracker, jail_users } => {
            let config = LinuxConfig {
                state_dir: state_dir.path().to_owned(),
                images_dir: match &config.images {
                    Some(images) => images.clone(),
                    None => state_dir.path().join("images"),
                },
                runtime_dir: None,
                firecracker: firecracker.clone().unwrap_or_else(|| "firecracker".into()),
                image_bytes_max: config.image_max_gib.saturating_mul(1024 * 1024 * 1024),
                jail_users: *jail_users,
                time_factor: None,
            };
            let opened = LinuxHost::open(config).await;
            Ok(Arc::new(opened.map_err(|source| DaemonError::Host { source })?))
        }
    }
}

fn open_engine(
    state_dir: &StateDir,
    facts: &HostFacts,
    config: &Config,
) -> Result<Engine, DaemonError> {
    let failed = |error| DaemonError::Store {
        state_dir: state_dir.path().to_owned(),
        source: Box::new(error),
    };
    let overcommit = config.overcommit;
    let time_factor = facts.time_factor.max(1);
    let limits = Limits::default();
    let config = hearth_engine::Config {
        capacity: Capacity {
            vcpus: u64::from(facts.cpus) * u64::from(overcommit.vcpus_per_cpu),
            memory_mib: facts.memory_mib.saturating_sub(overcommit.memory_reserve_mib),
            overhead_mib: facts.overhead_mib,
            scratch_mib: None,
        },
        limits: Limits {
            boot: limits.boot * time_factor,
            claim: limits.claim * time_factor,
            time_factor,
            // Where the CPU is emulated, guests that boot beside each other all boot late.
            boots_max: if time_factor > 1 { facts.cpus as usize } else { limits.boots_max },
            silence_max: limits.silence_max,
        },
        disk_overcommit: overcommit.disk,
        retention: config.retention,
        boot_id: boot_id()?,
        seed: seed(),
    };
    let mut store = Sqlite::open(&state_dir.path().join(DATABASE)).map_err(failed)?;
    store.hold(state_dir.anchors()?).map_err(failed)?;
    Engine::open(store, config).map_err(failed)
}

fn boot_id() -> Result<String, DaemonError> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|source| {
        DaemonError::System { operation: "read /proc/sys/kernel/random/boot_id", source }
    })?;
    Ok(text.trim().to_owned())
}

/// A number that no other start of a daemon has: the standard library's hasher is seeded by the
/// operating system.
fn seed() -> u64 {
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}
