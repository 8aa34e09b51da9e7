//! Whether the VMM of an instance answers: it is asked now and then, whatever its guest is. It decides
//! nothing: probes without an answer are counted, and reported once there are [`SILENT_AFTER`] in a row.
//!
//! What is counted are probes, each with its own deadline, so that neither a daemon that was stopped for an
//! hour nor a host that was suspended takes everybody for silent: either misses one probe at most.

use super::Shared;
use super::instance::{Instance, Live};
use hearth_model::SILENT_AFTER;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// From one probe that was answered to the next. A probe costs some 0.1 ms of the daemon and the VMM
/// together, so 1,000 idle instances 2 % of one processor.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// From one that was not answered to the next.
const PROBE_AGAIN: Duration = Duration::from_secs(1);

/// Asks until it is dropped.
pub(super) async fn watch(shared: &Shared, instance: &Instance, live: &Live) {
    let factor = shared.factor();
    tokio::time::sleep(begin(instance) * factor).await;
    let mut missed: u32 = 0;
    loop {
        missed = match live.client.answers().await {
            true => 0,
            false => missed.saturating_add(1),
        };
        let silence = if missed < SILENT_AFTER { 0 } else { missed };
        let before = instance.set_silence(silence);
        if before != silence {
            shared.bump(instance);
        }
        match (before, silence) {
            (0, 1..) => tracing::warn!(instance = %instance.id, "its VMM does not answer"),
            (1.., 0) => tracing::info!(instance = %instance.id, "its VMM answers again"),
            _ => {}
        }
        let rest = if missed == 0 { PROBE_EVERY } else { PROBE_AGAIN };
        tokio::time::sleep(rest * factor).await;
    }
}

/// When the first probe comes: those that are adopted together are not asked together.
fn begin(instance: &Instance) -> Duration {
    let mut hasher = DefaultHasher::new();
    instance.id.as_str().hash(&mut hasher);
    let every = u64::try_from(PROBE_EVERY.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(hasher.finish() % every)
}
