//! The guest's wall clock. The host says by how much it is off; nothing here measures anything.

use crate::console::say;
use hearth_guest::CLOCK_STEP_OVER;
use std::time::{Duration, SystemTime};

/// A wall clock.
pub(crate) trait Clock {
    /// What it says, in nanoseconds since 1970 UTC.
    fn now_ns(&self) -> u64;
    /// Corrects it, `ahead_ns` being by how much it is ahead.
    fn correct(&self, ahead_ns: i64);
}

/// How a clock is corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Correction {
    /// It is right.
    None,
    /// It runs 0.05 % faster or slower until so many microseconds are made up for: no app sees a jump.
    Slew(i64),
    /// It is set forward by so many nanoseconds, or back.
    Step(i64),
}

fn correction(ahead_ns: i64) -> Correction {
    if ahead_ns == 0 {
        Correction::None
    } else if Duration::from_nanos(ahead_ns.unsigned_abs()) <= CLOCK_STEP_OVER {
        Correction::Slew(-ahead_ns / 1000)
    } else {
        Correction::Step(ahead_ns.saturating_neg())
    }
}

/// The wall clock of the machine. To be corrected by PID 1 of a microVM only.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn correct(&self, ahead_ns: i64) {
        let corrected = match correction(ahead_ns) {
            Correction::None => return,
            Correction::Slew(microseconds) => slew(microseconds),
            Correction::Step(nanoseconds) => {
                let now = Duration::from_nanos(self.now_ns().saturating_add_signed(nanoseconds));
                let time = rustix::time::Timespec {
                    tv_sec: now.as_secs() as i64,
                    tv_nsec: i64::from(now.subsec_nanos()),
                };
                let set = rustix::time::clock_settime(rustix::time::ClockId::Realtime, time);
                set.map_err(std::io::Error::from)
            }
        };
        if let Err(error) = corrected {
            say(format_args!("cannot correct the clock: {error}"));
        }
    }
}

/// Replaces what is left of an earlier one.
#[allow(unsafe_code)]
fn slew(microseconds: i64) -> std::io::Result<()> {
    // SAFETY: a timex of zeroes is valid.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_OFFSET_SINGLESHOT;
    request.offset = microseconds;
    // SAFETY: adjtimex reads and fills the request, which outlives the call.
    let result = unsafe { libc::adjtimex(&raw mut request) };
    if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_set_only_if_it_is_off_by_more_than_half_a_second() {
        for (ahead_ns, expected) in [
            (0, Correction::None),
            (20_000_000, Correction::Slew(-20_000)),
            (-20_000_000, Correction::Slew(20_000)),
            (500_000_000, Correction::Slew(-500_000)),
            (500_000_001, Correction::Step(-500_000_001)),
            (-5_000_000_000, Correction::Step(5_000_000_000)),
            (i64::MIN, Correction::Step(i64::MAX)),
        ] {
            assert_eq!(correction(ahead_ns), expected, "{ahead_ns}");
        }
    }
}
