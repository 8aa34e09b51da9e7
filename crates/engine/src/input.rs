//! What goes into a step and what comes out of it.

use crate::ask::Call;
use crate::entry::EntryDigest;
use crate::reply::Reply;
use hearth_host::HostError;
use hearth_model::{
    Action, Generation, JobId, Mono, Observation, Resolution, Selector, Spec, SpecHash, Tenant,
};
use hearth_store::{Event, StoreError};
use std::collections::BTreeSet;
use std::path::PathBuf;
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

/// Which jobs, and how many of them.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Only jobs behind this one, which need not be there any more.
    pub after: Option<JobId>,
    /// At most this many.
    pub limit: usize,
    /// Only jobs with one of these statuses; with any if empty.
    pub statuses: Vec<hearth_planner::Status>,
    /// Only jobs that this selects.
    pub selector: Selector,
}

/// Jobs that a file or a person declares.
#[derive(Clone, Debug)]
pub struct FileLoad {
    /// Which file; entries of other files are not touched. Where `None`, nothing is remembered of the
    /// entries, and so nothing is ever deleted for having left.
    pub path: Option<PathBuf>,
    /// What it declares. No two are of one job.
    pub entries: Vec<FileEntry>,
    /// What may be deleted.
    pub deletions: Deletions,
    /// What the entries are compared with.
    pub against: DiffBase,
}

/// What a load's entries are compared with: those that differ count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffBase {
    /// The same file's entries as they were applied last, so that what was changed over HTTP stays:
    /// the watched file.
    LastApplied,
    /// The jobs as they are: a user applies the declaration.
    Jobs,
}

/// What a file may delete by leaving jobs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletions {
    /// Nothing yet: the file has changed within the last 2 s.
    Wait,
    /// Up to half of the file's jobs, or a single one.
    Few,
    /// As many as it leaves out.
    All,
}

/// One entry of a file.
#[derive(Clone, Debug)]
pub struct FileEntry {
    /// The job.
    pub job: JobId,
    /// Its tenant, where one was given.
    pub tenant: Option<Tenant>,
    /// What it runs.
    pub spec: Arc<Spec>,
    /// The digest of its tenant and its spec.
    pub digest: EntryDigest,
    /// The digests of its images.
    pub resolution: Resolution,
}

/// What a load does, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadPlan {
    /// Jobs that are made.
    pub create: Vec<JobId>,
    /// Jobs that run again, as a new generation.
    pub replace: Vec<PlannedChange>,
    /// Jobs whose policy alone changes: their instances stay.
    pub update: Vec<PlannedChange>,
    /// Jobs that are deleted, since the file no longer has them.
    pub deleted: Vec<JobId>,
    /// Jobs that would be deleted; see [`Deletions`].
    pub held: Vec<JobId>,
    /// Jobs that the file no longer has and that stay, since they were changed otherwise since.
    pub kept: Vec<JobId>,
    /// Entries that are refused, with the reason.
    pub refused: Vec<(JobId, String)>,
    /// Entries that are as they were.
    pub unchanged: usize,
    /// Pools that no job wants any more.
    pub drained: Vec<Drained>,
}

impl LoadPlan {
    /// How many jobs are made or changed.
    #[must_use]
    pub fn applied(&self) -> usize {
        self.create.len() + self.replace.len() + self.update.len()
    }
}

/// A change of a job that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChange {
    /// Which.
    pub job: JobId,
    /// Its spec as it was.
    pub before: Arc<Spec>,
    /// As it will be.
    pub after: Arc<Spec>,
    /// Why.
    pub why: Why,
}

/// Why a job is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its spec is another.
    Spec,
    /// Its images have changed.
    Images,
    /// It was stopped.
    Stopped,
    /// It was being deleted.
    BeingDeleted,
    /// It had finished.
    Finished,
}

/// A pool that no job wants any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// What its instances are made of.
    pub hash: SpecHash,
    /// How many of them go.
    pub instances: usize,
}

/// Why a request was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such job: 404.
    #[error("there is no job {0}")]
    NotFound(JobId),
    /// The job is another tenant's: 409.
    #[error("job {0} belongs to another tenant; use another job_id")]
    OtherTenant(JobId),
    /// The job is at another generation than the change hangs on, or not there: 412.
    #[error("{}", other_generation(.job, .current.as_ref()))]
    OtherGeneration {
        /// Which job.
        job: JobId,
        /// Its generation.
        current: Option<Generation>,
    },
    /// The key was another request's: 422.
    #[error(
        "the key {key:?} was used for another request, which concerned job {job}; \
         nothing was changed, use another key"
    )]
    KeyOfAnother {
        /// The key.
        key: String,
        /// The job of that request.
        job: JobId,
    },
    /// The request was carried out before, and its job has been deleted since: 404.
    #[error("job {0}, which this request was accepted for, was deleted since")]
    GoneSince(JobId),
    /// The database could not be written: 503, or 507 where the disk is full.
    #[error("cannot write the database: {detail}; nothing was changed, try again")]
    Store {
        /// What it said.
        detail: String,
        /// Whether the disk is full.
        disk_full: bool,
    },
    /// The database is not where it was, or not what it was: 503 until a person has done something. What
    /// was asked for at the very moment when that happened may be in what is left of it.
    #[error("the database is lost: {detail}")]
    Lost {
        /// What has happened, and what to do about it.
        detail: String,
    },
}

impl From<&StoreError> for Refusal {
    /// Why a change is refused when the database could not be used.
    fn from(error: &StoreError) -> Refusal {
        if error.is_lost() {
            return Refusal::Lost { detail: error.to_string() };
        }
        let detail = match std::error::Error::source(error) {
            Some(source) => source.to_string(),
            None => error.to_string(),
        };
        Refusal::Store { detail, disk_full: error.is_disk_full() }
    }
}

fn other_generation(job: &JobId, current: Option<&Generation>) -> String {
    match current {
        Some(current) => format!(
            "job {job} is at generation {current}, which is not the one that the change is for; \
             nothing was changed, look at the job again"
        ),
        None => format!("there is no job {job}, and so not the generation that the change is for"),
    }
}

/// What is decided of the copies that a host has, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePlan {
    /// Those in use.
    pub used: Vec<String>,
    /// Those that go, in this order.
    pub remove: Vec<String>,
}
