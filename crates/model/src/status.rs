//! The word for how a job stands.

use std::fmt;

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// No instance runs yet; the reason says what it waits for.
    Pending,
    /// An instance is on its way.
    Starting,
    /// It serves.
    Running,
    /// On its way to stopped or gone.
    Stopping,
    /// Stopped on request.
    Stopped,
    /// A `job` that ended with exit code 0.
    Completed,
    /// It ended otherwise, or can't be started.
    Failed,
}

impl Status {
    /// Every status.
    pub const ALL: &'static [Status] = &[
        Status::Pending,
        Status::Starting,
        Status::Running,
        Status::Stopping,
        Status::Stopped,
        Status::Completed,
        Status::Failed,
    ];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Starting => "starting",
            Status::Running => "running",
            Status::Stopping => "stopping",
            Status::Stopped => "stopped",
            Status::Completed => "completed",
            Status::Failed => "failed",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
