//! What the host says is.

use crate::action::{Create, Owner};
use crate::digest::SpecHash;
use crate::ids::{Generation, Identity, InstanceId, Slot};
use crate::spec::{Images, Resources, Stage};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One look at the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Whether it was at everything that the host has; else only at what has changed since an
    /// earlier look, so that what is missing says nothing.
    pub whole: bool,
    /// The host's revision at the look's begin. What has changed since may be in it or not.
    pub revision: u64,
    /// By instance.
    pub instances: BTreeMap<InstanceId, Observed>,
    /// What the scratch disks of all instances may take in all, in MiB: what is free of their disk, and
    /// what they take of it already. `None` where the host can't tell.
    pub scratch_mib: Option<u64>,
    /// What a whole look found and could not identify, by name, which may be an instance's. It is left
    /// alone, and may be alive. Sentences.
    pub unidentified: BTreeMap<String, String>,
}

/// What is known of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its slot.
    pub slot: Slot,
    /// The hash of the spec that it was made of.
    pub hash: SpecHash,
    /// What else is remembered of how it was made; nothing of what an older Hearth made.
    pub created: Option<Arc<CreatedInstance>>,
    /// What it does.
    pub state: InstanceState,
    /// What its kernel has killed for lack of memory, but for its command.
    pub oom_kills: OomKills,
    /// How often in a row its VMM was asked and did not answer; 0 where it answers, and before it has
    /// missed [`SILENT_AFTER`]. Counted, not timed: a host or a daemon that was suspended has asked no
    /// oftener.
    pub silence: u32,
    /// Whether its VMM is confined, where that can be.
    pub confined: bool,
}

/// Processes of a guest that its kernel has killed for lack of memory, but for its command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OomKills {
    /// How many.
    pub count: u32,
    /// The last of them, oldest first.
    pub last: Vec<OomKill>,
}

/// A process that a guest's kernel has killed for lack of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKill {
    /// Its number in the guest.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

impl fmt::Display for OomKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

/// A VMM that misses so many probes in a row is reported as silent.
pub const SILENT_AFTER: u32 = 2;

/// What the host remembers of an instance for when the database does not name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedInstance {
    /// Its job or pool: the last that it was to be assigned, else the one that it was created for.
    pub owner: Owner,
    /// The digests of its images.
    pub images: Images,
    /// How far it went by itself.
    pub stage: Stage,
    /// What it takes.
    pub resources: Resources,
}

impl CreatedInstance {
    /// What is remembered of a creation.
    #[must_use]
    pub fn of(create: &Create) -> CreatedInstance {
        CreatedInstance {
            owner: create.owner.clone(),
            images: create.machine.images(),
            stage: create.stage,
            resources: create.machine.resources,
        }
    }

    /// The same, once it is to be assigned this identity. What it knows of a later generation
    /// stays.
    #[must_use]
    pub fn assigned(&self, identity: &Identity) -> CreatedInstance {
        match &self.owner {
            Owner::Job(known) if known.generation >= identity.generation => self.clone(),
            _ => CreatedInstance { owner: Owner::Job(identity.clone()), ..self.clone() },
        }
    }
}

/// What an instance does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// The process is there; the guest has not reported.
    Booting,
    /// The guest has reported, or is raw and was started.
    Up {
        /// How far it is.
        phase: Phase,
        /// Whether the readiness check has passed.
        ready: bool,
        /// The generation in the guest's identity file.
        acknowledged: Option<Generation>,
        /// Why the readiness check fails, the last time it did.
        ready_detail: Option<String>,
    },
    /// The process is gone; what is left can be removed.
    Exited(Exit),
}

impl InstanceState {
    /// Whether the process is gone.
    #[must_use]
    pub fn is_exited(&self) -> bool {
        matches!(self, InstanceState::Exited(_))
    }

    /// Whether the command runs, is ready, and knows that it is this run of its job.
    #[must_use]
    pub fn serves(&self, run: Generation) -> bool {
        match self {
            InstanceState::Up { phase: Phase::Running, ready, acknowledged, .. } => {
                *ready && *acknowledged == Some(run)
            }
            _ => false,
        }
    }
}

/// How far a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The command waits for the start signal.
    Held,
    /// The command runs.
    Running,
    /// The command was told to stop, or has ended and the guest is about to reboot.
    Stopping,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What happened.
    pub end: End,
    /// Whether Hearth had asked for it.
    pub stop_requested: bool,
}

/// What ended an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The command exited with this code.
    Code(u8),
    /// The command was killed by this signal.
    Signal(u8),
    /// The guest's kernel killed the command for lack of memory.
    OutOfMemory,
    /// The host killed the microVM since it had exceeded a limit of its cgroup; a sentence.
    OverLimit(String),
    /// The command could not be started; a sentence.
    NotStarted(String),
    /// The guest could not be set up; a sentence.
    SetUp(String),
    /// The guest's kernel panicked; its last lines.
    Panic(String),
    /// Firecracker failed or was killed; a sentence.
    Vmm(String),
    /// The host could not make the microVM this time; a sentence. Nothing ran.
    NotCreated(String),
    /// The microVM was never started, for instance since the daemon died before it could be.
    NeverStarted,
    /// Nothing could be learned.
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Code(code) => write!(f, "exit code {code}"),
            End::Signal(signal) => write!(f, "killed by signal {signal}"),
            End::OutOfMemory => f.write_str("out of memory in the guest"),
            End::NotStarted(detail)
            | End::SetUp(detail)
            | End::OverLimit(detail)
            | End::Vmm(detail)
            | End::NotCreated(detail) => f.write_str(detail),
            End::Panic(lines) => write!(f, "guest kernel panicked: {lines}"),
            End::NeverStarted => f.write_str("never started"),
            End::Unknown => f.write_str("exit unknown"),
        }
    }
}
