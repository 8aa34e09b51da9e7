//! What the planner sees, and what it answers.

use crate::capacity::{Capacity, Need};
use crate::fleet::{Fleet, Subject};
use hearth_model::{InstanceId, JobId, Mono, PoolKey};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

/// Everything that a decision depends on.
#[derive(Debug)]
pub struct World<'a> {
    /// The time of the decision.
    pub now: Mono,
    /// All jobs, and all instances that have not been removed.
    pub fleet: &'a Fleet,
    /// Pools whose instances died, with when they may be filled again.
    pub pools: &'a BTreeMap<PoolKey, PoolHealth>,
    /// What the host can hold.
    pub capacity: Capacity,
    /// How long things may take.
    pub limits: Limits,
    /// Which instances to leave alone.
    pub busy: &'a dyn Busy,
}

/// Which instances have an action in flight, or wait after one. Nothing else is done to them meanwhile.
pub trait Busy: Debug {
    /// Whether this one does.
    fn is_busy(&self, instance: &InstanceId) -> bool;
}

impl Busy for BTreeSet<InstanceId> {
    fn is_busy(&self, instance: &InstanceId) -> bool {
        self.contains(instance)
    }
}

/// How a pool fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolHealth {
    /// Instances in a row that died or did not become warm in time.
    pub failures: u32,
    /// Not filled before this.
    pub not_before: Mono,
    /// Why the last one died.
    pub reason: String,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From a creation, or from the first sight of a guest that another daemon made, to its first
    /// report. Booting Debian's kernel takes less than 1 s on
    /// hardware; emulated, where this is stretched tenfold, 5 s on a quiet machine and up to 50 s
    /// on a busy one.
    pub boot: Duration,
    /// From the claim of a guest that has reported to its acknowledgement; then another replaces it.
    pub claim: Duration,
    /// By how much the seconds of a spec's readiness check are stretched on an emulated CPU.
    pub time_factor: u32,
    /// How many instances may be booting at once: more only slow each other down.
    pub boots_max: usize,
    /// How many probes in a row a VMM may miss; then its instance is replaced. With one probe each 3 s
    /// from the first that was missed on it is some 30 s, in which a person who has stopped it for a look
    /// can let it continue.
    pub silence_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            boot: Duration::from_secs(12),
            claim: Duration::from_secs(5),
            time_factor: 1,
            boots_max: 8,
            silence_max: 10,
        }
    }
}

/// Whom a plan is for.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Everybody: the resync.
    All,
    /// Those that may have changed, and then those that wait for room, as far as there is some.
    Some {
        /// Jobs.
        jobs: &'a BTreeSet<JobId>,
        /// Pools.
        pools: &'a BTreeSet<PoolKey>,
        /// Who waits for room.
        queue: &'a Queue,
    },
    /// This job alone: what can be done at once for a request.
    Job(&'a JobId),
}

/// Who waits for room on the host, or for a turn to boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Jobs. They go first.
    pub jobs: BTreeSet<JobId>,
    /// Pools with fewer instances than they should have.
    pub pools: BTreeSet<PoolKey>,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// All jobs and pools that the plan was made for, and when each is checked next.
    pub next_checks: Vec<(Subject, NextCheck)>,
}

/// What a job or a pool waits for that no step of the plan brings about, and when it is due again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextCheck {
    /// What a job waits for.
    pub waiting: Option<Waiting>,
    /// When time alone makes a difference next.
    pub wake_at: Option<Mono>,
    /// Whether a pool waits for room, or for its turn to boot.
    pub unfilled: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hand a warm instance to the current generation of a job.
    Claim {
        /// Which.
        instance: InstanceId,
        /// For whom.
        job: JobId,
    },
    /// Boot an instance.
    Create(Target),
    /// Assign an identity to a guest.
    AssignIdentity {
        /// Which.
        instance: InstanceId,
        /// Whether a held command may start.
        release: bool,
    },
    /// End an instance.
    Stop {
        /// Which.
        instance: InstanceId,
        /// Why, for its event.
        reason: String,
        /// Whether the instance's job failed by it: not ready or not up in its time.
        failed: bool,
    },
    /// Remove what an ended instance left.
    Remove {
        /// Which.
        instance: InstanceId,
    },
    /// Look up the images of a job again; a second one while one is under way is none.
    Resolve {
        /// Which.
        job: JobId,
    },
    /// End a `job` as failed, since it has run for longer than its `timeout_s`.
    TimeOut {
        /// Which.
        job: JobId,
        /// After so many seconds.
        timeout_s: u32,
    },
    /// Forget a deleted job of which nothing is left.
    Forget {
        /// Which.
        job: JobId,
    },
}

/// What an instance is booted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The current generation of this job.
    Job(JobId),
    /// This pool.
    Pool(PoolKey),
}

/// What a job waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Its predecessor's end.
    Predecessor,
    /// The end of a back-off.
    BackOff(Mono),
    /// Room on the host.
    Capacity {
        /// What it needs.
        need: Need,
        /// What the host has in all.
        total: Need,
    },
    /// Room for its scratch disk, in MiB.
    Disk {
        /// What the disk may come to take.
        need_mib: u64,
        /// What others leave of what there is.
        left_mib: u64,
    },
    /// Others that are booting.
    Turn,
}

impl Waiting {
    /// Whether it ends when there is room on the host.
    #[must_use]
    pub fn is_for_room(&self) -> bool {
        matches!(self, Waiting::Capacity { .. } | Waiting::Disk { .. } | Waiting::Turn)
    }
}
