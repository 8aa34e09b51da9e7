//! The task of one live instance: from its start to the knowledge of its end. It never ends a
//! microVM, except where the task itself fails.

use super::instance::{Instance, Live};
use super::output::{Origin, Output, follow, showing};
use super::{Shared, control, exit, lock, silence};
use hearth_firecracker::{Console, names};
use hearth_guest::{Status, Stream};
use hearth_model::{Boot, End, Exit};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// How long, after the process is gone, what it had sent may take to be read.
const LAST_OUTPUT_DEADLINE: Duration = Duration::from_secs(2);
/// Pause after a log could not be opened.
const LOG_PAUSE: Duration = Duration::from_secs(1);
/// How long a status drive may refuse to be read.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a FIFO failed to be read, and between two reads of a guest's console flood.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// The reading ends of an instance's FIFOs.
#[derive(Debug)]
pub(super) struct Fifos {
    pub(super) console: Console,
    pub(super) log: Console,
}

impl Fifos {
    /// Those of an instance that was spawned by another daemon.
    pub(super) fn open(instance: &Instance) -> io::Result<Fifos> {
        let console = Console::open(&instance.directory.join(names::CONSOLE_FIFO))?;
        let log = Console::open(&instance.directory.join(names::LOG_FIFO))?;
        Ok(Fifos { console, log })
    }
}

/// Starts the task. A raw guest is up from then on: it reports nothing that could be waited for.
pub(super) fn start(shared: &Arc<Shared>, instance: Arc<Instance>, fifos: Fifos) {
    if instance.boot == Boot::Raw {
        instance.set_state(instance.raw_state());
        shared.bump(&instance);
    }
    let (host, path) = (Arc::clone(shared), shared.layout.log(&instance.id));
    shared.spawn(async move {
        let guard = FailOnPanic { shared: Arc::clone(&host), instance: Arc::clone(&instance) };
        supervise(&host, &instance, fifos, &path).await;
        drop(guard);
    });
}

/// A panic of the task fails its instance, not the daemon.
struct FailOnPanic {
    shared: Arc<Shared>,
    instance: Arc<Instance>,
}

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some(live) = self.instance.live() {
            let _ = live.process.kill();
        }
        let end = End::Vmm("the task that supervised it failed".to_owned());
        self.instance.set_exited(Exit { end, stop_requested: self.instance.is_stop_requested() });
        self.shared.bump(&self.instance);
    }
}

async fn supervise(shared: &Arc<Shared>, instance: &Arc<Instance>, mut fifos: Fifos, log: &Path) {
    let Some(live) = instance.live() else { return };
    let raw = instance.boot == Boot::Raw;
    // Before anything is read that belongs in it.
    let output = OnceLock::new();
    let origin = if raw { Origin::Console } else { Origin::Pipes };
    let open = || Output::open(log, origin).map(|it| it.signalling(shared.log_signal(instance)));
    match open() {
        Ok(opened) => drop(output.set(Mutex::new(opened))),
        Err(error) => {
            tracing::error!(instance = %instance.id, %error, "cannot write the log yet");
        }
    }
    let followed = async {
        let opened = loop {
            if let Some(opened) = output.get() {
                break opened;
            }
            tokio::time::sleep(LOG_PAUSE).await;
            if let Ok(opened) = open() {
                drop(output.set(Mutex::new(opened)));
            }
        };
        if raw {
            std::future::pending::<()>().await;
        }
        // Not before the exit has ended the wait below: it is what ends this one.
        follow(shared, instance, opened, || instance.is_noted_dead()).await;
    };
    let mut followed = std::pin::pin!(followed);
    let to_log = raw.then_some(&output);
    let ended = {
        let controlled = async {
            if !raw {
                control::keep(shared, instance).await;
            }
            std::future::pending::<()>().await;
        };
        let drained = drain(&mut fifos, to_log);
        let probed = silence::watch(shared, instance, live);
        // Only the exit ends this; the others are dropped, but for the output that continues below.
        tokio::select! {
            biased;
            ended = ended(live) => ended,
            () = controlled => return,
            () = drained => return,
            () = probed => return,
            () = &mut followed => return,
        }
    };
    instance.set_dead();
    if !raw && output.get().is_some() {
        let _ = tokio::time::timeout(LAST_OUTPUT_DEADLINE * shared.factor(), followed).await;
    }
    fifos.console.drain_now();
    fifos.log.drain_now();
    finish(shared, instance, Some(&fifos), output.get(), ended).await;
}

/// Learns how an instance whose process is gone has ended, and completes its log.
pub(super) async fn finish(
    shared: &Arc<Shared>,
    instance: &Instance,
    fifos: Option<&Fifos>,
    output: Option<&Mutex<Output>>,
    ended: hearth_firecracker::ProcessExit,
) {
    let status = match instance.boot {
        // It has no status drive.
        Boot::Raw => None,
        Boot::Init => last_word(instance).await,
    };
    if let Some(output) = output {
        let mut output = lock(output);
        let path = shared.layout.log(&instance.id);
        let completed = match &status {
            Some(status) => output.complete(&path, &status.tail),
            None => output.flush(),
        };
        if let Err(error) = completed {
            tracing::warn!(instance = %instance.id, %error, "cannot complete the log");
        }
    }
    if let Some(said) = status.as_ref().and_then(|status| status.exit.oom_kills.as_ref()) {
        instance.set_oom_kills(control::oom_kills(said));
    }
    let console = fifos.map(|fifos| &fifos.console);
    let over_limit = shared.cgroups.as_ref().and_then(|cgroups| cgroups.killed(&instance.id));
    let exit = exit::classify(instance, status.as_ref(), over_limit, console, ended);
    let said = fifos.map(|fifos| fifos.log.tail(3)).unwrap_or_default();
    tracing::info!(instance = %instance.id, end = %exit.end, process = %ended, ?said, "ended");
    if instance.set_exited(exit) {
        shared.bump(instance);
    }
}

/// What the guest wrote before its end. A drive that can't be opened, as where there are no descriptors,
/// says nothing of the end: it is tried again for a while.
async fn last_word(instance: &Instance) -> Option<Status> {
    let until = Instant::now() + STATUS_PATIENCE;
    loop {
        match exit::status(instance.directory.path()) {
            Ok(status) => return status,
            Err(error) if error.kind() == io::ErrorKind::InvalidData || Instant::now() >= until => {
                tracing::warn!(instance = %instance.id, %error, "cannot read the status drive");
                return None;
            }
            Err(_) => tokio::time::sleep(DRAIN_PAUSE).await,
        }
    }
}

/// Waits for the end. A wait that fails says nothing of the process, so it is tried again.
async fn ended(live: &Live) -> hearth_firecracker::ProcessExit {
    loop {
        match live.process.exited().await {
            Ok(ended) => return ended,
            Err(error) => tracing::warn!(%error, "cannot wait for a process"),
        }
        tokio::time::sleep(DRAIN_PAUSE).await;
    }
}

/// Keeps both FIFOs from filling up; a raw guest's console is its output.
async fn drain(fifos: &mut Fifos, to_log: Option<&OnceLock<Mutex<Output>>>) {
    let Fifos { console, log } = fifos;
    let console = async {
        loop {
            match to_log.and_then(OnceLock::get) {
                None => drop(console.drain().await),
                Some(output) => {
                    if let Err(error) = log_console(console, output).await {
                        tracing::warn!(%error, "cannot write the log");
                    }
                }
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
    };
    let log = async {
        loop {
            let _ = log.drain().await;
            tokio::time::sleep(DRAIN_PAUSE).await;
        }
    };
    // Neither ends.
    let ((), ()) = tokio::join!(console, log);
}

/// Moves what comes next on a console into the log.
async fn log_console(console: &mut Console, output: &Mutex<Output>) -> io::Result<()> {
    let taken = showing(output, console.drain()).await?.unwrap_or(0);
    let mut output = lock(output);
    let offset = output.offset();
    output.take(Stream::Stdout, offset, &console.recent(taken))
}
