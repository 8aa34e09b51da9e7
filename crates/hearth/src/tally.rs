//! The outcome of a command about several jobs.

use crate::exit;
use crate::output::Output;

/// The exit code of a command about several jobs: it continues after one that fails, and exits with
/// the code of the first error.
pub(crate) struct Tally {
    code: u8,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally { code: exit::DONE }
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// The value; where there is none, the error is shown and counted.
    pub(crate) fn count<T>(&mut self, outcome: anyhow::Result<T>, output: &Output) -> Option<T> {
        outcome
            .inspect_err(|error| {
                output.error(error);
                if self.code == exit::DONE {
                    self.code = exit::code_of(error);
                }
            })
            .ok()
    }
}
