//! What goes into a step and what comes out of it.

use crate::ask::Call;
use crate::reply::Reply;
use hearth_host::HostError;
use hearth_model::{Action, Generation, JobId, Mono, Observation, Resolution, Spec};
use hearth_store::Event;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The time of a step. The engine has no clock of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// For every decision.
    pub mono: Mono,
    /// For people: RFC 3339 UTC. Nothing is decided by it.
    pub wall: String,
}

/// Names an action under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActionId(pub u64);

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A request.
    Request(Call),
    /// A look at the host. A look that failed is not sent: the engine waits for one that did not.
    Observed {
        /// When the look began: what was done since may be missing from it.
        began: Mono,
        /// What was seen.
        observation: Observation,
    },
    /// An action is over.
    Done(ActionId, Result<(), HostError>),
    /// The images of a job were looked up again.
    Resolved(JobId, Generation, Resolution),
    /// The output of these jobs is followed now, and of no others.
    Followed(BTreeSet<JobId>),
    /// Time went by.
    Tick,
}

/// Something to do, after the step's commit is on disk.
#[derive(Debug)]
pub enum Effect {
    /// Deliver a reply.
    Reply(Reply),
    /// Apply to the host, then send [`Input::Done`]. At most one a time for each instance.
    Apply(ActionId, Action),
    /// Look the job's images up, then send [`Input::Resolved`].
    Resolve(JobId, Generation, Arc<Spec>),
    /// Step again no later than this from now.
    WakeIn(Duration),
    /// Say this in the log of the daemon; it is in the events of the job as well.
    Log(Event),
}

/// What a step hands out once its commit is on disk.
#[derive(Debug, Default)]
pub(crate) struct StepOutput {
    pub(crate) effects: Vec<Effect>,
    pub(crate) replies: Vec<Reply>,
}
