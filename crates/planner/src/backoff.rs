//! How long to wait before trying again.

use std::time::Duration;

/// An instance that served this long ends a streak of failures.
pub const STREAK_ENDS_AFTER: Duration = Duration::from_secs(600);

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// The wait after so many failures in a row: none after the first, then 1 s, doubling to 5 min.
#[must_use]
pub fn backoff(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_failure_restarts_at_once_then_waits_double_to_5_min() {
        let waits: Vec<u64> = (0..=12).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff(u32::MAX), LONGEST);
    }
}
