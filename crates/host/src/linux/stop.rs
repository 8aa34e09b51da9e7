//! Ending an instance: politely, then less so, then by SIGKILL.
//!
//! ```text
//!   the word by vsock ── timeout_s inside the guest ── 2 s ──> SIGKILL
//!        └─ silent for 1 s: Ctrl-Alt-Del
//! ```

use super::Shared;
use super::instance::Instance;
use crate::HostError;
use hearth_firecracker::Action;
use hearth_guest::Command;
use hearth_model::{Boot, InstanceId, InstanceState, Phase, Signal};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the guest may take to confirm the word before Ctrl-Alt-Del is pressed.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// What is added to the app's own time: sync, status drive, reboot.
const GRACE: Duration = Duration::from_secs(2);
/// A bare kernel without a file system has most often no Ctrl-Alt-Del: it gets this long.
const BARE_GRACE: Duration = Duration::from_millis(500);
/// From SIGKILL to the end of the process: 15 ms are usual.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Ends an instance and waits until its process is gone.
pub(super) async fn stop(
    shared: Arc<Shared>,
    id: InstanceId,
    signal: Signal,
    timeout_s: u32,
) -> Result<(), HostError> {
    let Some(instance) = shared.instance(&id) else { return Ok(()) };
    let Some(live) = instance.live() else {
        if has_exited(&instance.state()) {
            return Ok(());
        }
        return Err(HostError::transient(format!("cannot stop instance {id}: it is being made")));
    };
    instance.request_stop();
    let ladder = async {
        let timeout = Duration::from_secs(u64::from(timeout_s));
        match instance.boot {
            Boot::Init => ask_init(&shared, &instance, signal, timeout_s).await,
            Boot::Raw => {
                let _ = live.client.action(Action::SendCtrlAltDel).await;
                let bare = BARE_GRACE * shared.factor();
                let patience = if instance.has_rootfs { timeout } else { bare.min(timeout) };
                tokio::time::sleep(patience).await;
            }
        }
    };
    // The ladder is let go when the process is gone before its end.
    tokio::select! {
        biased;
        () = gone(&instance) => return Ok(()),
        () = ladder => {}
    }
    live.process.kill().map_err(|error| {
        HostError::transient(format!("cannot kill the process of instance {id}")).because(error)
    })?;
    within(KILL_DEADLINE * shared.factor(), gone(&instance)).await.ok_or_else(|| {
        HostError::transient(format!("the process of instance {id} outlives SIGKILL"))
    })
}

/// Everything short of SIGKILL. Returns when the time is up.
async fn ask_init(shared: &Shared, instance: &Instance, signal: Signal, timeout_s: u32) {
    let began = Instant::now();
    let silence = SILENCE_MAX * shared.factor();
    // A full queue is a guest that takes nothing: Ctrl-Alt-Del is next.
    let _ = instance.commands.try_send(Command::Stop { timeout_s, signal: signal.number() });
    if within(silence, stopping(instance)).await.is_none() {
        tracing::info!(instance = %instance.id, "the guest is silent: pressing Ctrl-Alt-Del");
        if let Some(live) = instance.live() {
            let _ = live.client.action(Action::SendCtrlAltDel).await;
        }
    }
    let patience = Duration::from_secs(u64::from(timeout_s)) + GRACE * shared.factor();
    tokio::time::sleep_until(began + patience).await;
}

async fn stopping(instance: &Instance) {
    let mut state = instance.watch();
    let stopping =
        |state: &InstanceState| matches!(state, InstanceState::Up { phase: Phase::Stopping, .. });
    // The sender lives as long as the instance.
    let _ = state.wait_for(stopping).await;
}

async fn gone(instance: &Instance) {
    let _ = instance.watch().wait_for(has_exited).await;
}

fn has_exited(state: &InstanceState) -> bool {
    matches!(state, InstanceState::Exited(_))
}

async fn within<T>(deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(deadline, work).await.ok()
}
