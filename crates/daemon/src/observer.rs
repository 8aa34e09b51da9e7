//! Looks at the host: when it hints at a change, and every second. A look that fails is logged and
//! skipped, since not seeing is not seeing nothing.

use crate::core::Intake;
use crate::stop::Stop;
use crate::{clock, limits};
use hearth_engine::Input;
use hearth_host::Host;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Looks until `stop` turns true. `seen` turns true once a look has been handed in.
pub(crate) async fn run(
    host: Arc<dyn Host>,
    intake: Intake,
    seen: watch::Sender<bool>,
    mut stop: Stop,
) {
    let mut changes = host.changes();
    let mut blind = false;
    loop {
        changes.borrow_and_update();
        let began = clock::mono();
        let deadline = limits::OBSERVE_DEADLINE * host.facts().time_factor.max(1);
        let trouble = match timeout(deadline, host.observe()).await {
            Ok(Ok(observation)) => {
                intake.tell(Input::Observed { began, observation }).await;
                seen.send_replace(true);
                None
            }
            Ok(Err(error)) => Some(error.sentence()),
            Err(_) => Some(format!("it took more than {} s", deadline.as_secs())),
        };
        match trouble {
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
            let _ = timeout(limits::OBSERVE_EVERY, changes.changed()).await;
        };
        tokio::select! {
            // Both arms are cancel safe.
            biased;
            () = stop.asked() => return,
            () = next => {}
        }
    }
}
