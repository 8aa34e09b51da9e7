//! The lifecycle of a job, as flags name it.

use clap::ValueEnum;

/// How long a job lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lifecycle {
    /// Kept running; a new version starts beside the old one
    Service,
    /// Kept running; the old version stops first
    Daemon,
    /// Runs once
    Job,
}

impl Lifecycle {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Lifecycle::Service => "service",
            Lifecycle::Daemon => "daemon",
            Lifecycle::Job => "job",
        }
    }
}
