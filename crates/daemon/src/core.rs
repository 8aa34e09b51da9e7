//! The thread that owns the engine. It takes all inputs that wait, makes one step of them, and so
//! one commit, and hands the effects out. Nothing else touches the engine or its database.

use crate::followed::{Followed, Following};
use crate::watchdog::{self, Progress};
use crate::{clock, limits};
use hearth_engine::{
    ActionId, Ask, Call, Effect, Engine, Event, EventKind, Input, JobView, Preconditions,
    Publication, Recipient, Refusal, ReplyTo, View,
};
use hearth_host::Host;
use hearth_model::{Action, Caller, Generation, JobId, Spec};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{RwLock, broadcast, mpsc, oneshot, watch};

/// What the engine wants carried out.
#[derive(Debug)]
pub(crate) enum Work {
    Apply(ActionId, Action),
    Resolve(JobId, Generation, Arc<Spec>),
    WakeIn(Duration),
}

/// The way to the engine.
#[derive(Clone, Debug)]
pub(crate) struct EngineHandle {
    queue: mpsc::Sender<Input>,
    /// What the last step published.
    view: watch::Receiver<View>,
    events: broadcast::Sender<Arc<Event>>,
    followed: Followed,
    /// Held for reading by each look-up of images, until the engine is asked to name them.
    lookups: Arc<RwLock<()>>,
}

/// Why the engine did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    #[error("too many requests wait for the database")]
    Busy,
    #[error("the database did not answer in time; what was asked may still happen")]
    Slow,
    #[error("the daemon is ending")]
    Ending,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A client that waits for a reply.
struct Client<R>(Option<oneshot::Sender<Result<R, Refusal>>>);

impl<R: Send> Recipient<R> for Client<R> {
    fn receive(mut self: Box<Self>, reply: Result<R, Refusal>) {
        if let Some(sender) = self.0.take() {
            // The client may have gone.
            let _ = sender.send(reply);
        }
    }

    fn has_gone(&self) -> bool {
        self.0.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

impl<R> Drop for Client<R> {
    /// What was asked of a step that panics may have happened, so that no client is told that it was
    /// refused: each waits until the process ends.
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

impl EngineHandle {
    /// One without an engine, and what comes in.
    #[cfg(test)]
    pub(crate) fn open() -> (EngineHandle, mpsc::Receiver<Input>) {
        let (queue, inbox) = mpsc::channel(limits::INPUTS_MAX);
        let (events, followed) = (broadcast::channel(1).0, Followed::default());
        let view = watch::channel(View::default()).1;
        (EngineHandle { queue, view, events, followed, lookups: Arc::default() }, inbox)
    }

    /// What is shown, as the last step published it: it holds what that one's replies say, and nothing that is
    /// not on disk. Never blocks.
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// One job of [`EngineHandle::view`].
    pub(crate) fn job(&self, id: &JobId) -> Result<Arc<JobView>, AskError> {
        let found = self.view.borrow().job(id).cloned();
        found.ok_or_else(|| Refusal::NotFound(id.clone()).into())
    }

    /// Asks the engine, and waits until what follows is on disk.
    pub(crate) async fn request<A: Ask>(
        &self,
        caller: Caller,
        preconditions: Preconditions,
        ask: A,
    ) -> Result<A::Reply, AskError> {
        self.request_within(limits::REPLY_DEADLINE, caller, preconditions, ask).await
    }

    /// The same, with a deadline of the caller's.
    pub(crate) async fn request_within<A: Ask>(
        &self,
        deadline: Duration,
        caller: Caller,
        preconditions: Preconditions,
        ask: A,
    ) -> Result<A::Reply, AskError> {
        let (sender, reply) = oneshot::channel();
        let request = ask.reply_to(ReplyTo::new(Client(Some(sender))));
        let call = Input::Request(Call { caller, preconditions, request });
        self.queue.try_send(call).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Busy,
            mpsc::error::TrySendError::Closed(_) => AskError::Ending,
        })?;
        match tokio::time::timeout(deadline, reply).await {
            Ok(Ok(reply)) => Ok(reply?),
            Ok(Err(_)) => Err(AskError::Ending),
            Err(_) => Err(AskError::Slow),
        }
    }

    /// Tells the engine something. Waits while the queue is full; lost once the daemon ends, when
    /// the next one looks for itself.
    pub(crate) async fn send(&self, input: Input) {
        let _ = self.queue.send(input).await;
    }

    /// Events from now on, each once it is on disk. A reader that is too slow gets an error and
    /// has to ask for what it missed: the engine never waits for a reader.
    pub(crate) fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    /// Says that the output of a job is followed, until what this returns is dropped. The engine hears
    /// of it with its next step.
    pub(crate) fn follow(&self, job: &JobId) -> Following {
        self.followed.follow(job)
    }

    /// From now until it is dropped no unused copy of an image is removed: for a look-up of images and the
    /// request that names them. Cancel safe.
    pub(crate) async fn lookup(&self) -> impl Send + use<> {
        self.lookups.clone().read_owned().await
    }

    /// Waits for the look-ups under way, and holds up others until it is dropped. Cancel safe.
    pub(crate) async fn without_lookups(&self) -> impl Send + use<> {
        self.lookups.clone().write_owned().await
    }

    /// Wakes the engine. A full queue wakes it anyway.
    pub(crate) fn tick(&self) {
        let _ = self.queue.try_send(Input::Tick);
    }
}

/// Starts the thread, and one that tells its events. They end once every [`EngineHandle`] is gone; then the
/// receiver resolves.
///
/// The work has no bound of its own: the engine has one action an instance under way at most, and
/// one look-up a job.
pub(crate) fn spawn(
    engine: Engine,
    host: Arc<dyn Host>,
    work: mpsc::UnboundedSender<Work>,
) -> std::io::Result<(EngineHandle, oneshot::Receiver<()>)> {
    let progress = Progress::default();
    let (running, end) = std::sync::mpsc::channel();
    let pace = watchdog::Pace::of(host.facts().time_factor, sd_notify::watchdog_enabled());
    let watched = progress.clone();
    std::thread::Builder::new().name("hearth-watchdog".to_owned()).spawn(move || {
        watchdog::watch(&watched, pace, &end, || {
            watchdog::abort("the engine has taken no step for too long")
        });
    })?;
    let (queue, inbox) = mpsc::channel(limits::INPUTS_MAX);
    let (ended, end) = oneshot::channel();
    let (events, _) = broadcast::channel(limits::EVENTS_BUFFERED);
    let followed = Followed::default();
    let (view, shown) = watch::channel(engine.view().clone());
    let handle = EngineHandle {
        queue,
        view: shown,
        events: events.clone(),
        followed: followed.clone(),
        lookups: Arc::default(),
    };
    let (told, telling) = std::sync::mpsc::channel::<Vec<Event>>();
    std::thread::Builder::new().name("hearth-events".to_owned()).spawn(move || {
        for event in telling.into_iter().flatten() {
            log(&event);
            // There may be no listener.
            let _ = events.send(Arc::new(event));
        }
        let _ = ended.send(());
    })?;
    std::thread::Builder::new().name("hearth-core".to_owned()).spawn(move || {
        let refuses = false;
        let mut core = Core { engine, host, work, told, progress, view, followed, refuses };
        if catch_unwind(AssertUnwindSafe(|| core.run(inbox))).is_err() {
            // The panic's own message is on stderr already. State in memory may be half changed;
            // the database holds only whole steps, and the microVMs do not need this process.
            watchdog::abort("the engine panicked");
        }
        drop(core);
        drop(running);
    })?;
    Ok((handle, end))
}

struct Core {
    engine: Engine,
    host: Arc<dyn Host>,
    work: mpsc::UnboundedSender<Work>,
    /// Tells events, so that the engine doesn't wait for words to be put together.
    told: std::sync::mpsc::Sender<Vec<Event>>,
    progress: Progress,
    view: watch::Sender<View>,
    followed: Followed,
    /// Whether changes were refused at the last step, for the log.
    refuses: bool,
}

impl Core {
    fn run(&mut self, mut inbox: mpsc::Receiver<Input>) {
        let mut batch = Vec::with_capacity(limits::BATCH_MAX);
        while inbox.blocking_recv_many(&mut batch, limits::BATCH_MAX) > 0 {
            let followed = self.followed.news().map(Input::Followed);
            // A reply that no client waits for is not computed.
            let awaited = |input: &Input| !matches!(input, Input::Request(call) if call.is_moot());
            let inputs = followed.into_iter().chain(batch.drain(..).filter(awaited)).collect();
            let host = &self.host;
            let effects = self.engine.step(&clock::now(), inputs, &|id| host.alive(id));
            self.progress.step();
            self.publish();
            self.log_health();
            let mut events = Vec::new();
            for effect in effects {
                self.hand_out(effect, &mut events);
            }
            if !events.is_empty() {
                // It lives as long as this sender.
                let _ = self.told.send(events);
            }
        }
    }

    /// Before the replies are handed out, so that a client that has one reads what it says.
    fn publish(&mut self) {
        if let Some(Publication { view, jobs }) = self.engine.take_publication() {
            self.view.send_replace(view);
            self.followed.shown(&jobs);
        }
    }

    /// Says it once when changes begin to be refused, and when they are accepted again.
    fn log_health(&mut self) {
        let refusing = self.engine.refusing();
        match (refusing, self.refuses) {
            (Some(why), false) => tracing::error!(%why, "changes are refused"),
            (None, true) => tracing::info!("changes are accepted again"),
            _ => {}
        }
        self.refuses = refusing.is_some();
    }

    fn hand_out(&mut self, effect: Effect, events: &mut Vec<Event>) {
        let work = match effect {
            Effect::Reply(reply) => return reply.deliver(),
            Effect::Log(event) => {
                events.push(event);
                return;
            }
            Effect::Apply(id, action) => Work::Apply(id, action),
            Effect::Resolve(job, run, spec) => Work::Resolve(job, run, spec),
            Effect::WakeIn(duration) => Work::WakeIn(duration),
        };
        // It is not carried out once the daemon ends; the next one plans it again.
        let _ = self.work.send(work);
    }
}

fn log(event: &Event) {
    let job = event.job.as_ref().map(tracing::field::display);
    let instance = event.instance.as_ref().map(tracing::field::display);
    let generation = event.generation.map(|generation| generation.0);
    let caller = event.caller.as_ref().map(tracing::field::display);
    let (kind, message) = (event.kind.as_str(), &*event.message);
    if matches!(event.kind, EventKind::Error | EventKind::OomKill { .. }) {
        tracing::warn!(job, instance, generation, caller, kind, "{message}");
    } else {
        tracing::info!(job, instance, generation, caller, kind, "{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::{Client, EngineHandle};
    use futures_util::FutureExt;
    use hearth_engine::{Ask, CheckReady, Delete, Input, Preconditions, Refusal};
    use hearth_model::{Caller, JobId};
    use tokio::sync::oneshot::{self, error::TryRecvError};

    #[test]
    fn client_of_a_step_that_panics_gets_no_reply() {
        let (sender, mut reply) = oneshot::channel::<Result<(), Refusal>>();
        let client = Client(Some(sender));
        let step = std::thread::spawn(move || {
            let _client = client;
            panic!("a step panics")
        });
        assert!(step.join().is_err());
        assert_eq!(reply.try_recv(), Err(TryRecvError::Empty), "it waits on");
    }

    /// Asks, goes away at once, and returns what has reached the engine.
    async fn moot(ask: impl Ask) -> bool {
        let (handle, mut inbox) = EngineHandle::open();
        let asked = handle.request(Caller::Unknown, Preconditions::NONE, ask).now_or_never();
        assert!(asked.is_none(), "there is no engine to answer");
        let Ok(Input::Request(call)) = inbox.try_recv() else { panic!("nothing was sent") };
        call.is_moot()
    }

    #[tokio::test]
    async fn reads_without_a_client_are_moot_and_changes_are_not() {
        assert!(moot(CheckReady).await);
        assert!(!moot(Delete { job: JobId::parse("web").expect("a name") }).await);
    }
}
