//! Carries out what the engine asks of the host: a bounded number of actions at once, each with a
//! deadline, each answered. It decides nothing and retries nothing.

use crate::core::{EngineHandle, Work};
use crate::limits;
use crate::stop::Stop;
use futures_util::FutureExt;
use futures_util::future::join_all;
use hearth_engine::Input;
use hearth_host::{CREATE_DEADLINE, Host, HostError};
use hearth_model::{Action, Resolution, Spec, hash};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Carries out work until `stop` turns true, then waits a little for what is under way.
pub(crate) async fn run(
    host: Arc<dyn Host>,
    engine: EngineHandle,
    mut work: mpsc::UnboundedReceiver<Work>,
    mut stop: Stop,
) {
    let permits = Arc::new(Semaphore::new(limits::ACTIONS_MAX));
    let mut tasks = JoinSet::new();
    let mut wake_at: Option<Instant> = None;
    loop {
        let wake = sleep_until(wake_at.unwrap_or_else(Instant::now));
        tokio::select! {
            // Every arm is cancel safe.
            biased;
            () = stop.asked() => break,
            Some(_) = tasks.join_next() => {}
            item = work.recv() => match item {
                None => break,
                Some(Work::WakeIn(duration)) => {
                    let at = Instant::now() + duration;
                    wake_at = Some(wake_at.map_or(at, |known| known.min(at)));
                }
                Some(Work::Apply(id, action)) => {
                    let (host, engine, permits) = (host.clone(), engine.clone(), permits.clone());
                    tasks.spawn(async move {
                        // A stop only waits, for up to an hour, and must hold up no other action.
                        let _permit = match action {
                            Action::Stop { .. } => None,
                            _ => permits.acquire().await.ok(),
                        };
                        let outcome = apply(&*host, action).await;
                        engine.send(Input::Done(id, outcome)).await;
                    });
                }
                Some(Work::Resolve(job, run, spec)) => {
                    let (host, engine) = (host.clone(), engine.clone());
                    tasks.spawn(async move {
                        let _lookup = engine.lookup().await;
                        let resolution = resolve(&*host, &spec).await;
                        engine.send(Input::Resolved(job, run, resolution)).await;
                    });
                }
            },
            () = wake, if wake_at.is_some() => {
                wake_at = None;
                engine.tick();
            }
        }
    }
    let drained =
        timeout(limits::DRAIN_ACTIONS, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(
            actions = tasks.len(),
            "actions were under way; the next daemon looks at what came of them"
        );
    }
}

/// One action, within its deadline. A panic fails the action, not the daemon.
async fn apply(host: &dyn Host, action: Action) -> Result<(), HostError> {
    let name = action.name();
    let instance = action.instance().clone();
    let deadline = deadline(&action) * host.facts().time_factor.max(1);
    let applied = AssertUnwindSafe(host.apply(action)).catch_unwind();
    match timeout(deadline, applied).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => {
            tracing::error!(action = name, %instance, "an action panicked");
            Err(HostError::outcome_unknown(format!(
                "cannot {name} instance {instance}: it panicked, which is a bug"
            )))
        }
        Err(_) => Err(HostError::outcome_unknown(format!(
            "cannot {name} instance {instance} within {} s",
            deadline.as_secs()
        ))),
    }
}

fn deadline(action: &Action) -> Duration {
    match action {
        Action::Create(_) => CREATE_DEADLINE,
        Action::AssignIdentity { .. } => limits::ASSIGN_DEADLINE,
        Action::Stop { timeout_s, .. } => {
            Duration::from_secs(u64::from(*timeout_s)) + limits::STOP_SLACK
        }
        Action::Remove { .. } | Action::DropLogs { .. } => limits::REMOVE_DEADLINE,
    }
}

/// Looks the images of many specs up, each pair of images once and all at the same time, so that they
/// take no longer than one.
pub(crate) async fn resolve_all<'a>(
    host: &dyn Host,
    specs: impl Iterator<Item = &'a Spec>,
) -> Vec<Resolution> {
    let specs: Vec<&Spec> = specs.collect();
    let named = |spec: &'a Spec| (spec.boot, &spec.kernel, spec.rootfs.as_ref());
    let distinct: HashMap<_, &Spec> = specs.iter().map(|spec| (named(spec), *spec)).collect();
    let look_ups =
        distinct.into_iter().map(async |(named, spec)| (named, resolve(host, spec).await));
    let known: HashMap<_, Resolution> = join_all(look_ups).await.into_iter().collect();
    let mut resolutions = Vec::with_capacity(specs.len());
    for (at, spec) in specs.into_iter().enumerate() {
        if at % limits::RESOLVES_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
        // Of the specs that share their images, each has a hash of its own.
        resolutions.push(match &known[&named(spec)] {
            Resolution::Known { images, .. } => {
                Resolution::Known { images: *images, hash: hash::spec_hash(spec, images) }
            }
            other => other.clone(),
        });
    }
    resolutions
}

/// Looks the images of a spec up, and hashes the spec with them. It takes a second at most: an image that
/// has to be read first is looked up again by the engine, for the job that names it.
pub(crate) async fn resolve(host: &dyn Host, spec: &Spec) -> Resolution {
    match host.resolve(spec, limits::IMAGE_WAIT).await {
        Ok(lookup) => Resolution::of(spec, lookup),
        Err(error) => Resolution::Failed(error.sentence()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_engine::ActionId;
    use hearth_host::sim::{SimConfig, SimHost};
    use hearth_host::{BoxFuture, Duplex, HostFacts, LogPage, LogQuery};
    use hearth_model::{InstanceId, Lookup, Observation, Signal, StoredImage};
    use tokio::sync::watch;

    /// A host whose guests take no notice of the word to stop.
    struct Stubborn(SimHost);

    impl Host for Stubborn {
        fn resolve<'a>(
            &'a self,
            spec: &'a Spec,
            patience: Duration,
        ) -> BoxFuture<'a, Result<Lookup, HostError>> {
            self.0.resolve(spec, patience)
        }

        fn observe(&self, since: Option<u64>) -> BoxFuture<'_, Result<Observation, HostError>> {
            self.0.observe(since)
        }

        fn apply(&self, action: Action) -> BoxFuture<'_, Result<(), HostError>> {
            match action {
                Action::Stop { .. } => Box::pin(std::future::pending()),
                action => self.0.apply(action),
            }
        }

        fn changes(&self) -> watch::Receiver<u64> {
            self.0.changes()
        }

        fn alive(&self, instance: &InstanceId) -> bool {
            self.0.alive(instance)
        }

        fn logs<'a>(
            &'a self,
            instance: &'a InstanceId,
            query: LogQuery,
        ) -> BoxFuture<'a, Result<LogPage, HostError>> {
            self.0.logs(instance, query)
        }

        fn log_changes(&self, instance: &InstanceId) -> watch::Receiver<()> {
            self.0.log_changes(instance)
        }

        fn connect<'a>(
            &'a self,
            instance: &'a InstanceId,
            port: u16,
        ) -> BoxFuture<'a, Result<Box<dyn Duplex>, HostError>> {
            self.0.connect(instance, port)
        }

        fn images(&self) -> BoxFuture<'_, Result<Vec<StoredImage>, HostError>> {
            self.0.images()
        }

        fn keep_images(
            &self,
            used: Vec<String>,
            remove: Vec<String>,
        ) -> BoxFuture<'_, Result<Vec<String>, HostError>> {
            self.0.keep_images(used, remove)
        }

        fn facts(&self) -> HostFacts {
            self.0.facts()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn guests_that_take_an_hour_to_stop_block_no_other() {
        let host = Arc::new(Stubborn(SimHost::new(SimConfig::default())));
        let (work, inbox) = mpsc::unbounded_channel();
        let (engine, mut told) = EngineHandle::open();
        let (stop, stopping) = Stop::channel();
        let executor = tokio::spawn(run(host, engine, inbox, stopping));
        let instance = |number: u64| InstanceId::parse(&format!("a{number}")).unwrap();
        let stops = limits::ACTIONS_MAX as u64 + 1;
        for number in 0..stops {
            let action =
                Action::Stop { instance: instance(number), signal: Signal::TERM, timeout_s: 3600 };
            work.send(Work::Apply(ActionId(number), action)).unwrap();
        }
        let action = Action::Remove { instance: instance(stops) };
        work.send(Work::Apply(ActionId(stops), action)).unwrap();
        let first = timeout(Duration::from_secs(1), told.recv()).await.unwrap();
        assert!(
            matches!(first, Some(Input::Done(ActionId(id), Ok(()))) if id == stops),
            "{first:?}"
        );
        stop.send_replace(true);
        executor.await.unwrap();
    }
}
