//! What the host can be asked to do. Every action is idempotent: applied twice it does what it
//! does once.

use crate::desired::PoolTenant;
use crate::hash::SpecHash;
use crate::ids::{Identity, InstanceId, Slot};
use crate::machine::Machine;
use crate::signal::Signal;
use crate::spec::{Spec, Stage};
use std::sync::Arc;

/// One effect on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes and starts an instance. Done when Firecracker has accepted the start.
    Create(Box<Create>),
    /// Assigns an identity to a guest. Done when the guest has acknowledged it.
    Tell {
        /// Which guest.
        instance: InstanceId,
        /// Its identity from now on.
        identity: Identity,
        /// Whether a held command may start.
        go: bool,
    },
    /// Ends an instance: politely, then not. Done when the process is gone.
    Stop {
        /// Which instance.
        instance: InstanceId,
        /// What its command is told to stop with.
        signal: Signal,
        /// Seconds from the app's stop signal to SIGKILL.
        timeout_s: u32,
    },
    /// Removes what an ended instance left, but for its logs.
    Remove {
        /// Which instance.
        instance: InstanceId,
    },
    /// Removes the logs of an instance.
    DropLogs {
        /// Which instance.
        instance: InstanceId,
    },
}

/// What an instance is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// The new instance.
    pub instance: InstanceId,
    /// Its slot, unique among live instances.
    pub slot: Slot,
    /// What it runs.
    pub spec: Arc<Spec>,
    /// The machine that it runs in, of the images that were resolved for this generation; a host refuses
    /// others.
    pub machine: Machine,
    /// The hash of spec and images.
    pub hash: SpecHash,
    /// How far it goes by itself.
    pub stage: Stage,
    /// Its job or pool.
    pub owner: Owner,
}

/// Whose an instance is when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A job's.
    Job(Identity),
    /// A pool's, with the tenants that may claim it.
    Pool(PoolTenant),
}

impl Owner {
    /// That of a job's.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Owner::Job(identity) => Some(identity),
            Owner::Pool(_) => None,
        }
    }
}

impl Action {
    /// The instance that the action is about.
    #[must_use]
    pub fn instance(&self) -> &InstanceId {
        match self {
            Action::Create(create) => &create.instance,
            Action::Tell { instance, .. }
            | Action::Stop { instance, .. }
            | Action::Remove { instance }
            | Action::DropLogs { instance } => instance,
        }
    }

    /// A word for logs and events.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Action::Create(_) => "create",
            Action::Tell { .. } => "tell",
            Action::Stop { .. } => "stop",
            Action::Remove { .. } => "remove",
            Action::DropLogs { .. } => "drop-logs",
        }
    }
}
