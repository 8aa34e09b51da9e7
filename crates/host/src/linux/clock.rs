//! The clocks of guests: each is compared with this machine's when a daemon meets the guest, once a
//! minute, and at once when this machine's clock was set or the machine was suspended.
//!
//! A guest that was paused needs nothing else. Its clock continues with the processor's, unless the pause
//! was long, and then a question has been waiting for it: the answer comes with the resume, too late to
//! say anything, so that the guest is asked again.
//!
//! ```text
//!   host                                       guest
//!   Clock { ask: 1, ahead_ns: 0 } ----------->
//!                 <----------- ClockReading { ask: 1, now_ns }
//!   Clock { ask: 2, ahead_ns } -------------->  steps or slews
//!                 <----------- ClockReading { ask: 2, now_ns }
//! ```
//!
//! The host measures the round trip, and what it sends is a difference: a correction that comes late is
//! still right.

use super::instance::Instance;
use hearth_guest::{CLOCK_STEP_OVER, ClockReading, Command};
use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// How often a guest is asked: a good clock drifts by 3 ms in that time, and 1,000 guests make 17
/// questions a second.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Questions at once, each of which follows from the answer before it.
const ASKS_MAX: usize = 5;
/// An answer that took longer says too little.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(200);
/// A clock that is off by less is left alone: so much the way of an answer may differ from the
/// question's.
const TOLERANCE: Duration = Duration::from_millis(10);

/// What an answer says of a guest's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is right, as far as can be told.
    Right,
    /// It is ahead by so many nanoseconds, or behind.
    Ahead(i64),
    /// The answer took too long.
    Unsure,
}

/// Judges a reading that came `round_trip` after its question, when this machine's clock said
/// `received_ns`. The guest read its clock at some time between.
fn judge(reading_ns: u64, received_ns: u64, round_trip: Duration) -> Verdict {
    let error = i128::try_from(round_trip.as_nanos() / 2).unwrap_or(i128::MAX / 2);
    let ahead = i128::from(reading_ns) - (i128::from(received_ns) - error);
    let off = ahead.abs();
    let (step_over, tolerance) = (nanos(CLOCK_STEP_OVER), nanos(TOLERANCE));
    if round_trip > ROUND_TRIP_MAX && off - error <= step_over {
        return Verdict::Unsure;
    }
    if off <= error.max(tolerance) {
        return Verdict::Right;
    }
    Verdict::Ahead(i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX }))
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// Keeps the clock of a guest right for as long as its control stream lasts. Never ends. `readings`
/// are those of its reports.
pub(super) async fn keep(
    instance: &Instance,
    mut readings: watch::Receiver<Option<ClockReading>>,
    mut jumps: watch::Receiver<()>,
) {
    // An init of an older Hearth never has one, and is never asked.
    if readings.wait_for(Option::is_some).await.is_err() {
        return std::future::pending().await;
    }
    loop {
        if correct(instance, &mut readings).await.is_none() {
            return std::future::pending().await;
        }
        // Both arms are cancel safe.
        tokio::select! {
            biased;
            Ok(()) = jumps.changed() => {}
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
    }
}

/// Asks until the clock is right, or for some time. `None` where the stream has ended.
async fn correct(
    instance: &Instance,
    readings: &mut watch::Receiver<Option<ClockReading>>,
) -> Option<()> {
    let mut ahead_ns = 0;
    for _ in 0..ASKS_MAX {
        let was_slewed = ahead_ns != 0 && !is_step(ahead_ns);
        match ask(instance, readings, ahead_ns).await? {
            Verdict::Right => return Some(()),
            // It takes its time.
            Verdict::Ahead(_) if was_slewed => return Some(()),
            Verdict::Ahead(ahead) => {
                if is_step(ahead) {
                    let ahead_ms = ahead / 1_000_000;
                    tracing::info!(instance = %instance.id, ahead_ms, "setting the clock of a guest");
                }
                ahead_ns = ahead;
            }
            Verdict::Unsure => ahead_ns = 0,
        }
    }
    Some(())
}

fn is_step(ahead_ns: i64) -> bool {
    Duration::from_nanos(ahead_ns.unsigned_abs()) > CLOCK_STEP_OVER
}

/// Corrects a guest's clock and asks for it. Waits for as long as the guest is paused.
async fn ask(
    instance: &Instance,
    readings: &mut watch::Receiver<Option<ClockReading>>,
    ahead_ns: i64,
) -> Option<Verdict> {
    // Continues during a suspend, and identifies the question too.
    let asked = now(ClockId::Boottime);
    let ask = u64::try_from(asked.as_nanos()).unwrap_or(u64::MAX);
    instance.commands.send(Command::Clock { ask, ahead_ns }).await.ok()?;
    let is_answer = |reading: &Option<ClockReading>| reading.is_some_and(|clock| clock.ask == ask);
    let reading = (*readings.wait_for(is_answer).await.ok()?)?;
    let round_trip = now(ClockId::Boottime).saturating_sub(asked);
    let received_ns = u64::try_from(now(ClockId::Realtime).as_nanos()).unwrap_or(u64::MAX);
    Some(judge(reading.now_ns, received_ns, round_trip))
}

fn now(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Marks `jumps` whenever the wall clock of this machine is set, also by the end of a suspend. The
/// kernel says so: nothing is polled.
pub(super) async fn watch_host(jumps: watch::Sender<()>) {
    let timer = match timer() {
        Ok(timer) => timer,
        Err(error) => {
            tracing::warn!(%error, "cannot watch the clock; guests are asked once a minute");
            return;
        }
    };
    loop {
        let Ok(mut ready) = timer.readable().await else { return };
        let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
        if matches!(read, Ok(Err(_))) {
            jumps.send_replace(());
            if let Err(error) = arm(timer.get_ref()) {
                tracing::warn!(%error, "cannot watch the clock any more");
                return;
            }
        }
    }
}

#[allow(unsafe_code)]
fn timer() -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
    arm(&timer)?;
    // SAFETY: the descriptor is owned, always the same, and stays open until the `AsyncFd` has
    // deregistered it.
    Ok(unsafe { AsyncFd::register(timer) }?)
}

/// Arms a timer that never expires and is cancelled when the clock is set.
fn arm(timer: &OwnedFd) -> std::io::Result<()> {
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    // Some 270 years from 1970.
    let never = Timespec { tv_sec: 1 << 33, tv_nsec: 0 };
    let once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let spec = Itimerspec { it_interval: once, it_value: never };
    match timerfd_settime(timer, flags, &spec) {
        // Armed all the same: it was set once more meanwhile.
        Ok(_) | Err(Errno::CANCELED) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_judged_by_its_round_trip() {
        const S: i64 = 1_000_000_000;
        const NOW: u64 = 1_800_000_000_000_000_000;
        for (off, round_trip_ms, expected) in [
            (0, 1, Verdict::Right),
            (9_000_000, 1, Verdict::Right),
            (-30_000_000, 1, Verdict::Ahead(-30_000_000 + S / 2000)),
            // Within what the way may have taken.
            (-100_000_000, 200, Verdict::Right),
            (0, 200, Verdict::Right),
            (-5 * S, 2, Verdict::Ahead(-5 * S + S / 1000)),
            // Paused for 5 s behind the question: the reading is right, or as old as the question.
            (0, 5000, Verdict::Unsure),
            (-5 * S, 5000, Verdict::Unsure),
            // It can't be right, whenever it was read.
            (-3600 * S, 5000, Verdict::Ahead(-3600 * S + 5 * S / 2)),
        ] {
            let reading = NOW.saturating_add_signed(off);
            let round_trip = Duration::from_millis(round_trip_ms);
            assert_eq!(judge(reading, NOW, round_trip), expected, "{off} {round_trip_ms}");
        }
        assert_eq!(judge(0, u64::MAX, Duration::ZERO), Verdict::Ahead(i64::MIN));
        assert_eq!(judge(u64::MAX, 0, Duration::ZERO), Verdict::Ahead(i64::MAX));
        assert_eq!(judge(0, 0, Duration::MAX), Verdict::Unsure);
    }

    #[tokio::test]
    async fn watch_on_the_clock_can_be_armed_again() {
        let timer = timer().expect("a timer");
        arm(timer.get_ref()).expect("again");
        let read = rustix::io::read(timer.get_ref(), &mut [0; 8]);
        assert_eq!(read, Err(Errno::AGAIN));
    }
}
