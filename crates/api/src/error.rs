//! Why a request has no answer.

use crate::endpoint::Endpoint;
use crate::problem::Problem;
use std::io;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there, or may not be talked to.
    #[error("cannot reach the daemon at {endpoint}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("cannot {operation}: the connection to the daemon broke")]
    Broken {
        /// What was being done.
        operation: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There was no answer in time.
    #[error("cannot {operation}: the daemon did not answer within {seconds} s")]
    Deadline {
        /// What was being done.
        operation: String,
        /// How long it was waited, in seconds.
        seconds: u64,
    },
    /// The daemon refused.
    #[error("cannot {operation}")]
    Refused {
        /// What was being done.
        operation: String,
        /// What the daemon said.
        source: Box<Problem>,
    },
    /// The answer was not Hearth's.
    #[error("cannot {operation}: the answer is not one of Hearth's")]
    Foreign {
        /// What was being done.
        operation: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClientError {
    /// What the daemon said, where it refused.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Refused { source, .. } => Some(source),
            _ => None,
        }
    }

    /// The status of the daemon's refusal, where it refused.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.problem().map(|problem| problem.status)
    }

    /// Whether asking again may help: the daemon is away, broke off, or can't serve just now. A
    /// change that was asked for may have happened; see [`Client::create`](crate::Client::create) for how to repeat it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            ClientError::Connect { .. }
            | ClientError::Broken { .. }
            | ClientError::Deadline { .. } => true,
            ClientError::Refused { source, .. } => source.status == 503,
            ClientError::Foreign { .. } => false,
        }
    }
}
