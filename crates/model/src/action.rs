//! What the host can be asked to do. Every action is idempotent: applied twice it does what it
//! does once.

use crate::digest::SpecHash;
use crate::ids::{Identity, InstanceId, PoolTenant, Slot};
use crate::machine::Machine;
use crate::signal::Signal;
use crate::spec::{Boot, Spec, Stage};
use std::sync::Arc;

/// One effect on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes and starts an instance. Done when Firecracker has accepted the start.
    Create(Box<Create>),
    /// Assigns an identity to a guest, after the workload if it waits for that. Done when the guest has
    /// acknowledged both.
    AssignIdentity {
        /// Which guest.
        instance: InstanceId,
        /// What it runs.
        spec: Arc<Spec>,
        /// Its identity from now on.
        identity: Identity,
        /// Whether a held command may start.
        release: bool,
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
    /// How its guest gets what it runs.
    pub workload: Delivery,
}

/// How a guest gets its workload: the command, its environment, its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// With the configuration that it boots with.
    Inline,
    /// With the first [`Action::AssignIdentity`]. Until then nothing of a job is in it.
    Late,
}

impl Delivery {
    /// How a new guest gets it. A warm one that holds its command runs nothing before it is a job's, and is
    /// a job's once it is told so; all others begin by themselves.
    #[must_use]
    pub fn of(guest: Boot, stage: Stage, owner: &Owner) -> Delivery {
        match (guest, stage, owner) {
            (Boot::Init, Stage::Init, Owner::Pool(_)) => Delivery::Late,
            _ => Delivery::Inline,
        }
    }
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
            Action::AssignIdentity { instance, .. }
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
            Action::AssignIdentity { .. } => "assign-identity",
            Action::Stop { .. } => "stop",
            Action::Remove { .. } => "remove",
            Action::DropLogs { .. } => "drop-logs",
        }
    }
}
