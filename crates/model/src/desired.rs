//! What should be, and what Hearth has recorded of how far it is: jobs and instances.

use crate::digest::SpecHash;
use crate::hash::spec_hash;
use crate::ids::{Generation, InstanceId, JobId, PoolKey, PoolTenant, Slot, Tenant};
use crate::observed::{End, Exit, InstanceState, Phase};
use crate::spec::{ImageProgress, Images, Lookup, Spec, Stage};
use std::sync::Arc;
use std::time::Duration;

/// A point of the host's monotonic clock: time since the host booted, suspension included. It
/// outlives a daemon and is void after a reboot of the host, as are the instances it speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub Duration);

impl Mono {
    /// From milliseconds.
    #[must_use]
    pub fn from_millis(millis: u64) -> Mono {
        Mono(Duration::from_millis(millis))
    }

    /// In milliseconds.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// Time from `earlier` until this; zero where that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Mono {
        Mono(self.0.saturating_add(duration))
    }
}

/// A job: what its user wants, and what has become of it so far. The two are stored apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Its tenant; the job's own name where none was given.
    pub tenant: Tenant,
    /// Whether the tenant was given, or only defaulted.
    pub tenant_given: bool,
    /// Grows with every accepted change.
    pub generation: Generation,
    /// The generation of the last change that wants a new instance. Instances serve this one.
    pub run: Generation,
    /// What it runs.
    pub spec: Arc<Spec>,
    /// What the user wants.
    pub wanted: Wanted,
    /// What has become of its current run.
    pub progress: Progress,
}

/// What has become of the current run of a job. Written by what Hearth does and sees, and started again
/// by each change that wants a new instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The digests that the spec's names had when the run began.
    pub resolution: Resolution,
    /// How it ended, for a `job` that did.
    pub outcome: Option<Outcome>,
    /// Consecutive failures.
    pub failures: u32,
    /// Not started again before this.
    pub not_before: Option<Mono>,
    /// Why it failed last.
    pub last_failure: Option<String>,
}

impl Progress {
    /// That of a run which has only begun, with the images as they were looked up for it.
    #[must_use]
    pub fn begun(resolution: Resolution) -> Progress {
        Progress { resolution, outcome: None, failures: 0, not_before: None, last_failure: None }
    }
}

/// What a user wants of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Running, or for a `job`: run.
    Running,
    /// Stopped, and kept.
    Stopped,
    /// Gone.
    Deleted,
}

/// The digests of a generation's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Known.
    Known {
        /// The digests.
        images: Images,
        /// The hash of the spec with them.
        hash: SpecHash,
    },
    /// An image is being read, which takes its time; how far that was when it was last looked at,
    /// which is not kept over a restart.
    Preparing(Option<ImageProgress>),
    /// An image is missing or unfit; the sentence says which and what to do.
    Failed(String),
}

impl Resolution {
    /// Of a spec, by what a look-up of its images came to.
    #[must_use]
    pub fn of(spec: &Spec, lookup: Lookup) -> Resolution {
        match lookup {
            Lookup::Known(images) => Resolution::Known { images, hash: spec_hash(spec, &images) },
            Lookup::Preparing(progress) => Resolution::Preparing(Some(progress)),
        }
    }
}

/// How a `job` ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Completed,
    /// Anything else; a sentence.
    Failed(String),
}

/// What an instance is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// A pool.
    Pool(PoolKey),
    /// A generation of a job.
    Job {
        /// The job.
        job: JobId,
        /// The generation it serves.
        run: Generation,
        /// When a warm instance was claimed for it; `None` for one that was booted for it.
        claimed_at: Option<Mono>,
    },
}

/// An instance as recorded, with what was last seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its suffix.
    pub id: InstanceId,
    /// Its slot.
    pub slot: Slot,
    /// What it is for.
    pub assignment: Assignment,
    /// What it is made of.
    pub hash: SpecHash,
    /// The digests it is made of.
    pub images: Images,
    /// What it runs.
    pub spec: Arc<Spec>,
    /// How far it goes by itself.
    pub stage: Stage,
    /// When it was asked for.
    pub created_at: Mono,
    /// When this daemon first observed it, or, if another made it, when it first reported to this one:
    /// no deadline starts earlier. Not kept.
    pub seen_at: Option<Mono>,
    /// Whether another daemon made it, and it has not reported to this one yet. Not kept.
    pub awaiting_first_report: bool,
    /// When its command was first seen running.
    pub running_since: Option<Mono>,
    /// When it was first seen ready while serving a job.
    pub ready_since: Option<Mono>,
    /// How many processes its kernel has killed for lack of memory, as far as events tell of them.
    pub oom_kills: u32,
    /// When an event told of some last. Not kept.
    pub oom_told_at: Option<Mono>,
    /// What became of the last attempt to assign an identity to its guest, and before it a workload that comes
    /// late, if the attempt failed. Not kept.
    pub assign_failure: Option<String>,
    /// Why Hearth ends it, once it does.
    pub stopping: Option<String>,
    /// What was last seen; `None` before its creation was seen to be done.
    pub state: Option<InstanceState>,
    /// How many probes its VMM has missed, once it is silent; see [`crate::Observed::silence`]. Not kept.
    pub silence: u32,
    /// Whether its VMM runs unconfined; see [`crate::Observed::confined`]. Not kept.
    pub unconfined: bool,
    /// What is known of its creation.
    pub creation: Creation,
}

/// What is known of the creation of an instance. An instance that may have run is never taken for one
/// that did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Creation {
    /// It was asked for.
    #[default]
    Unconfirmed,
    /// It failed and may have been done all the same. What that means if the next whole observation
    /// does not find the instance. Not stored.
    OutcomeUnknown(End),
    /// It was done: the host said so, or the guest was observed.
    Confirmed,
}

impl Creation {
    /// After a creation that failed and may have been done. What was observed stays confirmed.
    #[must_use]
    pub fn failed_with_unknown_outcome(self, end: End) -> Creation {
        match self {
            Creation::Confirmed => Creation::Confirmed,
            Creation::Unconfirmed | Creation::OutcomeUnknown(_) => Creation::OutcomeUnknown(end),
        }
    }

    /// How an instance ended that the host has nothing of.
    #[must_use]
    pub fn end_if_missing(&self) -> End {
        match self {
            Creation::Unconfirmed => End::NeverStarted,
            Creation::OutcomeUnknown(end) => end.clone(),
            Creation::Confirmed => End::Unknown,
        }
    }
}

impl Job {
    /// Who may share its pool.
    #[must_use]
    pub fn pool_tenant(&self) -> PoolTenant {
        if self.tenant_given { PoolTenant::Named(self.tenant.clone()) } else { PoolTenant::Shared }
    }

    /// The hash of its spec, where the images are known.
    #[must_use]
    pub fn hash(&self) -> Option<SpecHash> {
        match &self.progress.resolution {
            Resolution::Known { hash, .. } => Some(*hash),
            Resolution::Preparing(_) | Resolution::Failed(_) => None,
        }
    }

    /// The pool it claims from, where the images are known.
    #[must_use]
    pub fn pool_key(&self) -> Option<PoolKey> {
        self.hash().map(|hash| PoolKey { tenant: self.pool_tenant(), hash })
    }
}

impl Instance {
    /// The job it serves.
    #[must_use]
    pub fn job(&self) -> Option<&JobId> {
        match &self.assignment {
            Assignment::Job { job, .. } => Some(job),
            Assignment::Pool(_) => None,
        }
    }

    /// The name under which it is shown.
    #[must_use]
    pub fn display_id(&self) -> String {
        match &self.assignment {
            Assignment::Job { .. } => self.id.vm_id(),
            Assignment::Pool(_) => self.id.warm_id(),
        }
    }

    /// When the deadline starts of what was requested at `since`. It never starts before this daemon first
    /// observed the instance: it may have just started, or may have failed to identify it until now.
    #[must_use]
    pub fn deadline_start(&self, since: Mono) -> Mono {
        self.seen_at.map_or(since, |seen| seen.max(since))
    }

    /// How it ended, where it did.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            Some(InstanceState::Exited(exit)) => Some(exit),
            _ => None,
        }
    }

    /// Whether it may be handed to a job now: warm at its stage, and not on its way out.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        let at_stage = match (&self.state, self.stage) {
            (Some(InstanceState::Up { phase: Phase::Running, ready, .. }), Stage::App) => *ready,
            (Some(InstanceState::Up { phase: Phase::Held, .. }), Stage::Init) => true,
            _ => false,
        };
        at_stage
            && !self.is_silent()
            && self.stopping.is_none()
            && matches!(self.assignment, Assignment::Pool(_))
    }

    /// Whether its VMM does not answer, so that nothing is known of its guest.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silence > 0
    }

    /// Whether the command runs, is ready, and has its identity.
    #[must_use]
    pub fn serves(&self, run: Generation) -> bool {
        !self.is_silent() && self.state.as_ref().is_some_and(|state| state.serves(run))
    }
}
