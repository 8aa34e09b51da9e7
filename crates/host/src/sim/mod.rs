//! A host in memory: instances boot by a timer, jobs end by another, and a test can end, hide or
//! break any of them. It holds to the same contract as the real one. Nothing outlives the process.
//!
//! [`SimState`] is the host, [`SimHost`] gives it Tokio's clock.

mod state;

pub use state::{Presence, SimConfig, SimState};

use crate::log_changes::LogChanges;
use crate::{BoxFuture, Duplex, Host, HostError, HostFacts, LogLine, LogPage, LogQuery};
use hearth_model::{
    Action, End, ImageName, InstanceId, Lookup, Mono, Observation, OomKill, Spec, StoredImage,
};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often somebody who waits for an image looks whether it was read.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A host in memory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SimHost {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    changes: watch::Sender<u64>,
    log_changes: LogChanges,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    machine: SimState,
    /// For when a task will wake to advance the machine.
    armed: Option<Mono>,
}

impl SimHost {
    /// A host without instances.
    #[must_use]
    pub fn new(config: SimConfig) -> SimHost {
        let (changes, _) = watch::channel(0);
        let state = Mutex::new(State { machine: SimState::new(config), armed: None });
        let (began, log_changes) = (Instant::now(), LogChanges::default());
        SimHost { shared: Arc::new(Shared { began, changes, log_changes, state }) }
    }

    /// Ends an instance as if its command or its Firecracker had ended by itself.
    pub fn end(&self, instance: &InstanceId, end: End) {
        self.shared.with(|machine| machine.end(instance, end));
    }

    /// The command of an instance writes a line.
    pub fn write_line(&self, instance: &InstanceId, line: &str) {
        self.shared.with(|machine| machine.write_line(instance, line.to_owned()));
    }

    /// The kernel of a guest kills a process for lack of memory, which is not its command.
    pub fn oom_kill(&self, instance: &InstanceId, kill: OomKill) {
        self.shared.with(|machine| machine.oom_kill(instance, kill));
    }

    /// From now on this image is missing, or there again.
    pub fn set_missing(&self, image: &ImageName, missing: Presence) {
        self.shared.with(|machine| machine.set_missing(image, missing));
    }

    /// This image is another file now, which takes so long to be read.
    pub fn replace_image(&self, image: &ImageName, takes: Duration) {
        self.shared.with(|machine| machine.replace_image(image, takes));
    }

    /// The next so many actions of this [name](Action::name) fail.
    pub fn refuse(&self, action: &'static str, count: u32) {
        self.shared.with(|machine| machine.refuse(action, count));
    }

    /// From now on no readiness check passes.
    pub fn never_ready(&self) {
        self.shared.with(|machine| machine.set_ready(false));
    }

    /// From now on looks fail.
    pub fn go_blind(&self) {
        self.shared.with(|machine| machine.set_blind(true));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn now(&self) -> Mono {
        Mono(self.began.elapsed())
    }

    /// Does something with the machine as it is now, and says that it has changed where it has.
    fn with<T>(self: &Arc<Self>, work: impl FnOnce(&mut SimState) -> T) -> T {
        let mut state = self.state();
        state.machine.advance(self.now());
        let result = work(&mut state.machine);
        self.arm(&mut state);
        let revision = state.machine.revision();
        let logged = state.machine.take_logged();
        drop(state);
        logged.iter().for_each(|instance| self.log_changes.appended(instance));
        self.changes.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        result
    }

    /// Sees to it that the machine hears of the time when something is due.
    fn arm(self: &Arc<Self>, state: &mut State) {
        let Some(due) = state.machine.next() else { return };
        if state.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        state.armed = Some(due);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(shared.began + due.0).await;
            shared.state().armed.take_if(|armed| *armed == due);
            shared.with(|_| ());
        });
    }
}

impl Host for SimHost {
    fn resolve<'a>(
        &'a self,
        spec: &'a Spec,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Lookup, HostError>> {
        let until = Instant::now() + patience;
        Box::pin(async move {
            loop {
                let lookup = self.shared.with(|machine| machine.resolve(spec))?;
                if matches!(lookup, Lookup::Known(_)) || Instant::now() >= until {
                    return Ok(lookup);
                }
                tokio::time::sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
            }
        })
    }

    fn observe(&self, since: Option<u64>) -> BoxFuture<'_, Result<Observation, HostError>> {
        let observed = self.shared.state().machine.observe(since);
        Box::pin(std::future::ready(observed))
    }

    fn apply(&self, action: Action) -> BoxFuture<'_, Result<(), HostError>> {
        let done = self.shared.with(|machine| machine.apply(action));
        Box::pin(std::future::ready(done))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn alive(&self, instance: &InstanceId) -> bool {
        self.shared.state().machine.alive(instance)
    }

    fn logs<'a>(
        &'a self,
        instance: &'a InstanceId,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogPage, HostError>> {
        let (now, wall) = (self.shared.now(), jiff::Timestamp::now());
        let state = self.shared.state();
        let all = state.machine.log(instance);
        let next = all.len() as u64;
        let from = usize::try_from(query.after).unwrap_or(usize::MAX).min(all.len());
        let from = query.tail.map_or(from, |tail| from.max(all.len().saturating_sub(tail)));
        let lines = (1..)
            .zip(all)
            .skip(from)
            .map(|(cursor, (at, text))| {
                let at = wall.checked_sub(now.since(*at)).unwrap_or(wall);
                LogLine {
                    at: format!("{at:.3}"),
                    stream: "stdout",
                    text: text.clone(),
                    partial: false,
                    cursor,
                }
            })
            .collect();
        Box::pin(std::future::ready(Ok(LogPage { lines, next })))
    }

    fn log_changes(&self, instance: &InstanceId) -> watch::Receiver<()> {
        self.shared.log_changes.subscribe(instance)
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

    fn images(&self) -> BoxFuture<'_, Result<Vec<StoredImage>, HostError>> {
        let images = self.shared.with(|machine| machine.images());
        Box::pin(std::future::ready(Ok(images)))
    }

    fn keep_images(
        &self,
        used: Vec<String>,
        remove: Vec<String>,
    ) -> BoxFuture<'_, Result<Vec<String>, HostError>> {
        let removed = self.shared.with(|machine| machine.keep_images(&used, &remove));
        Box::pin(std::future::ready(Ok(removed)))
    }

    fn facts(&self) -> HostFacts {
        let SimConfig { cpus, memory_mib, .. } = self.shared.state().machine.config;
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
