//! Sees to it that a daemon that hangs ends: the engine's thread takes a step each second at least, since
//! the host is looked at that often. Where it takes none for a while, the engine or the runtime is stuck.
//! So is one of which a part has ended.
//! The supervisor of the daemon starts it again, and microVMs do not notice. A supervisor that asked
//! for it (systemd's `WatchdogSec`) is told of each step's progress.

use sd_notify::NotifyState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Looks without progress until the daemon is taken for stuck. Counted, so that a process that was
/// stopped for a while is not.
const LOOKS_MAX: u32 = 6;
/// From one look to the next, on hardware.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A supervisor is told so many times as often as it asks for, at least.
const TOLD_EARLIER: u32 = 3;

/// How often is looked, and how many looks may be without progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    every: Duration,
    looks_max: u32,
}

impl Pace {
    /// On a machine of which everything takes `factor` times as long; `asked` is what a supervisor wants
    /// to be told within. How long a daemon may be stuck is the same with a supervisor and without.
    pub(crate) fn of(factor: u32, asked: Option<Duration>) -> Pace {
        let own = LOOK_EVERY * factor.max(1);
        let asked = asked.map_or(own, |asked| asked / TOLD_EARLIER);
        let every = asked.clamp(Duration::from_millis(1), own);
        let looks = (own * LOOKS_MAX).as_millis().div_ceil(every.as_millis());
        Pace { every, looks_max: u32::try_from(looks).unwrap_or(u32::MAX) }
    }
}

/// How far the engine's thread has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// A step is done.
    pub(crate) fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks until `end`'s other side is gone. Calls `stuck` once where there was no progress for too many
/// looks.
pub(crate) fn watch(progress: &Progress, pace: Pace, end: &Receiver<()>, stuck: impl FnOnce()) {
    let (mut known, mut idle) = (progress.0.load(Ordering::Relaxed), 0);
    while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(pace.every) {
        let steps = progress.0.load(Ordering::Relaxed);
        if steps != known {
            (known, idle) = (steps, 0);
            tell(NotifyState::Watchdog);
            continue;
        }
        idle += 1;
        if idle == pace.looks_max {
            return stuck();
        }
    }
}

/// What a daemon does that can't continue: its supervisor starts it again.
pub(crate) fn abort(why: &str) -> ! {
    tracing::error!("{why}; the daemon aborts, microVMs keep running, start it again");
    // The log has its own thread.
    std::thread::sleep(Duration::from_millis(200));
    std::process::abort();
}

/// Tells the supervisor, where there is one that listens.
pub(crate) fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "cannot tell the supervisor");
    }
}

#[cfg(test)]
mod tests {
    use super::{LOOK_EVERY, LOOKS_MAX, Pace, Progress, watch};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    const EVERY: Duration = Duration::from_millis(20);
    const PACE: Pace = Pace { every: EVERY, looks_max: LOOKS_MAX };

    #[test]
    fn pace_follows_the_supervisor_and_stuck_takes_the_same_time() {
        let pace = |factor, asked: Option<u64>| {
            let Pace { every, looks_max } = Pace::of(factor, asked.map(Duration::from_secs));
            (every, every * looks_max)
        };
        let stuck = LOOK_EVERY * LOOKS_MAX;
        assert_eq!(pace(1, None), (LOOK_EVERY, stuck));
        assert_eq!(pace(10, None), (LOOK_EVERY * 10, stuck * 10));
        assert_eq!(pace(10, Some(45)), (Duration::from_secs(15), stuck * 10));
        assert_eq!(pace(1, Some(3)), (Duration::from_secs(1), stuck));
        assert_eq!(pace(1, Some(100_000)), (LOOK_EVERY, stuck));
        assert_eq!(pace(1, Some(0)), (Duration::from_millis(1), stuck));
    }

    #[test]
    fn a_daemon_without_progress_is_stuck_after_some_looks() {
        let (_running, end) = mpsc::channel();
        let (begin, mut stuck) = (Instant::now(), false);
        watch(&Progress::default(), PACE, &end, || stuck = true);
        assert!(stuck && begin.elapsed() >= EVERY * LOOKS_MAX);
    }

    #[test]
    fn a_daemon_with_progress_is_watched_until_it_ends() {
        let progress = Progress::default();
        let (running, end) = mpsc::channel::<()>();
        let steps = progress.clone();
        let steps = std::thread::spawn(move || {
            let begin = Instant::now();
            while begin.elapsed() < EVERY * LOOKS_MAX * 3 {
                steps.step();
                std::thread::sleep(EVERY / 4);
            }
            drop(running);
        });
        watch(&progress, PACE, &end, || panic!("it makes progress"));
        assert!(steps.join().is_ok());
    }
}
