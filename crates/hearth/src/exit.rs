//! Exit codes, as `hearth --help` and docs/cli.md list them.

use std::fmt;
use std::time::Duration;

/// Done.
pub(crate) const DONE: u8 = 0;
/// Something went wrong; the reason is on stderr.
pub(crate) const ERROR: u8 = 1;
/// `hearth plan` found something to do. The code that Terraform and `kubectl diff` users test for.
pub(crate) const TO_DO: u8 = 2;
/// Nothing could be read where something was to be checked.
pub(crate) const UNREAD: u8 = 2;
/// `--timeout` ran out. The code that `timeout(1)` uses for it.
pub(crate) const TIMEOUT: u8 = 124;
/// A job failed without an exit code of its own: it could not be started, was killed, or ran out
/// of time or memory. The code that container tools use for it.
pub(crate) const NO_CODE: u8 = 125;

/// The end of `hearth --help`. The table of docs/cli.md has the same lines.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    an error; its reason is on stderr
  2    wrong usage; plan: there is something to do; validate, convert: the file can't be read
  124  --timeout ran out
  125  run --wait: the job failed without an exit code of its own
  130  run --wait --rm: SIGINT (Ctrl-C) ended it, and the job with it
  143  run --wait --rm: SIGTERM ended it, and the job with it
  *    run --wait: the job's own exit code";

/// A command waited as long as it was told to, without success. Ends the program with [`TIMEOUT`].
#[derive(Debug)]
pub(crate) struct TimedOut {
    /// What had not come to be, and how things stood instead.
    pub(crate) message: String,
    /// How long it was waited.
    pub(crate) waited: Duration,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gave up after {} s: {}", self.waited.as_secs_f64(), self.message)
    }
}

impl std::error::Error for TimedOut {}

/// The code for an error.
pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<TimedOut>() { TIMEOUT } else { ERROR }
}

#[cfg(test)]
mod tests {
    use super::HELP;

    #[test]
    fn documentation_lists_the_same_codes() {
        let page = include_str!("../../../docs/cli.md");
        for line in HELP.lines().skip(1) {
            let (code, meaning) = line.trim().split_once(' ').expect("a code and its meaning");
            let row = format!("| {code} | {} |", meaning.trim());
            assert!(page.contains(&row), "{row} is missing");
        }
    }
}
