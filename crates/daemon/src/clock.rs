//! The clocks that the engine is told of. The monotonic one counts suspension and continues over
//! restarts of the daemon.

use hearth_engine::Now;
use hearth_model::Mono;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time since the host booted.
pub(crate) fn mono() -> Mono {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Mono(Duration::new(seconds, nanos))
}

/// Both clocks. The wall clock to the millisecond, RFC 3339 UTC.
pub(crate) fn now() -> Now {
    let wall = jiff::Timestamp::now();
    Now { mono: mono(), wall: format!("{wall:.3}") }
}
