//! Carries out what the engine asks of the host: a bounded number of actions at once, each with a
//! deadline, each answered. It decides nothing and retries nothing.

use crate::core::{Intake, Work};
use crate::limits;
use crate::stop::Stop;
use futures_util::FutureExt;
use hearth_engine::Input;
use hearth_host::{CREATE_DEADLINE, Host, HostError};
use hearth_model::{Action, Boot, ImageName, Resolution, Spec, hash};
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
    intake: Intake,
    mut work: mpsc::UnboundedReceiver<Work>,
    mut stop: Stop,
) {
    let slots = Arc::new(Semaphore::new(limits::ACTIONS_MAX));
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
                    let (host, intake, slots) = (host.clone(), intake.clone(), slots.clone());
                    tasks.spawn(async move {
                        let Ok(_slot) = slots.acquire().await else { return };
                        let outcome = apply(&*host, action).await;
                        intake.tell(Input::Done(id, outcome)).await;
                    });
                }
                Some(Work::Resolve(job, run, spec)) => {
                    let (host, intake) = (host.clone(), intake.clone());
                    tasks.spawn(async move {
                        let resolution = resolve(&*host, &spec).await;
                        intake.tell(Input::Resolved(job, run, resolution)).await;
                    });
                }
            },
            () = wake, if wake_at.is_some() => {
                wake_at = None;
                intake.tick();
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
            Err(HostError::doubtful(format!(
                "cannot {name} instance {instance}: it panicked, which is a bug"
            )))
        }
        Err(_) => Err(HostError::doubtful(format!(
            "cannot {name} instance {instance} within {} s",
            deadline.as_secs()
        ))),
    }
}

fn deadline(action: &Action) -> Duration {
    match action {
        Action::Create(_) => CREATE_DEADLINE,
        Action::Tell { .. } => limits::TELL_DEADLINE,
        Action::Stop { timeout_s, .. } => {
            Duration::from_secs(u64::from(*timeout_s)) + limits::STOP_SLACK
        }
        Action::Remove { .. } | Action::DropLogs { .. } => limits::REMOVE_DEADLINE,
    }
}

/// Looks the images of many specs up, each pair of images once.
pub(crate) async fn resolve_all<'a>(
    host: &dyn Host,
    specs: impl Iterator<Item = &'a Spec>,
) -> Vec<Resolution> {
    let mut known: HashMap<(Boot, &ImageName, Option<&ImageName>), Resolution> = HashMap::new();
    let mut resolutions = Vec::new();
    for spec in specs {
        let images = (spec.boot, &spec.kernel, spec.rootfs.as_ref());
        let resolution = match known.get(&images) {
            Some(Resolution::Known { images, .. }) => {
                Resolution::Known { images: *images, hash: hash::spec_hash(spec, images) }
            }
            Some(failed) => failed.clone(),
            None => {
                let resolution = resolve(host, spec).await;
                known.insert(images, resolution.clone());
                resolution
            }
        };
        resolutions.push(resolution);
    }
    resolutions
}

/// Looks the images of a spec up, and hashes the spec with them.
pub(crate) async fn resolve(host: &dyn Host, spec: &Spec) -> Resolution {
    let deadline = limits::RESOLVE_DEADLINE * host.facts().time_factor.max(1);
    match timeout(deadline, host.resolve(spec)).await {
        Ok(Ok(images)) => Resolution::Known { images, hash: hash::spec_hash(spec, &images) },
        Ok(Err(error)) => Resolution::Failed(error.sentence()),
        Err(_) => Resolution::Failed(format!(
            "cannot read the images within {} s; is the images directory on a slow disk?",
            deadline.as_secs()
        )),
    }
}
