//! Looks at the host: when it hints at a change and each second, at what has changed; and at everything
//! as often as that costs next to nothing, each second at most.
//! A look that fails is logged and skipped, since not seeing is not seeing nothing.

use crate::core::EngineHandle;
use crate::stop::Stop;
use crate::{clock, limits};
use hearth_engine::Input;
use hearth_host::Host;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Looks until `stop` turns true. `seen` turns true once a look has been handed in.
pub(crate) async fn run(
    host: Arc<dyn Host>,
    engine: EngineHandle,
    seen: watch::Sender<bool>,
    mut stop: Stop,
) {
    let mut changes = host.changes();
    let mut blind = false;
    // `None` until the first look, and after one that failed: the next is a whole one.
    let mut since = None;
    let mut whole_at = Instant::now();
    loop {
        changes.borrow_and_update();
        let began = clock::mono();
        let deadline = limits::OBSERVE_DEADLINE * host.facts().time_factor.max(1);
        since = since.filter(|_| Instant::now() < whole_at);
        let look = Instant::now();
        let fault = match timeout(deadline, host.observe(since)).await {
            Ok(Ok(observation)) => {
                let whole = observation.whole;
                since = Some(observation.revision);
                engine.send(Input::Observed { began, observation }).await;
                if whole {
                    let rest = look.elapsed() * limits::OBSERVE_REST_FACTOR;
                    let rest = rest.clamp(limits::OBSERVE_EVERY, limits::OBSERVE_REST_MAX);
                    whole_at = Instant::now() + rest;
                    seen.send_replace(true);
                }
                None
            }
            Ok(Err(error)) => Some(error.sentence()),
            Err(_) => Some(format!("it took more than {} s", deadline.as_secs())),
        };
        if fault.is_some() {
            (since, whole_at) = (None, Instant::now() + limits::OBSERVE_EVERY);
        }
        match fault {
            Some(cause) if !blind => {
                blind = true;
                tracing::warn!(
                    cause,
                    "cannot look at the host; nothing is done until it can be seen"
                );
            }
            None if blind => {
                blind = false;
                tracing::info!("the host can be seen again");
            }
            _ => {}
        }
        let next = async {
            sleep(limits::OBSERVE_GAP_MIN).await;
            tokio::select! {
                // Both arms are cancel safe.
                biased;
                _ = changes.changed() => {}
                () = sleep_until(whole_at.min(look + limits::OBSERVE_EVERY)) => {}
            }
        };
        tokio::select! {
            // Both arms are cancel safe.
            biased;
            () = stop.asked() => return,
            () = next => {}
        }
    }
}
