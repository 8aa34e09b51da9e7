//! Requests: what a caller can ask the engine, and the type of the reply to each. How jobs stand is not asked:
//! it is in the published [`View`](crate::View).

use crate::entry::EntryDigest;
use crate::reply::{Refusal, Reply, ReplyTo};
use crate::view::JobView;
use hearth_model::{Caller, JobId, KeepImages, Resolution, Spec, SpecHash, StoredImage, Tenant};
use hearth_store::{Accepted, EventPage, Events};
use std::path::PathBuf;
use std::sync::Arc;

/// A request as it reaches the engine.
#[derive(Debug)]
pub struct Call {
    /// Who sent it.
    pub caller: Caller,
    /// What must hold for it to be carried out. A read has none.
    pub preconditions: Preconditions,
    /// What is asked.
    pub request: Request,
}

/// What must hold for a request to be carried out.
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    /// The same request has not been accepted before.
    pub repeat: Option<Repeat>,
    /// The job exists, at one of these generations, or at any if empty.
    pub generations: Option<Vec<u64>>,
}

impl Preconditions {
    /// Nothing.
    pub const NONE: Preconditions = Preconditions { repeat: None, generations: None };
}

/// Tells a repeat of a request from another request.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// The key that the caller chose for it.
    pub key: String,
    /// Of all that the request says.
    pub digest: String,
}

/// A request with the recipient of its reply. Made by [`Ask::reply_to`].
#[derive(Debug)]
pub enum Request {
    /// Change a job.
    Change(JobChange, ReplyTo<Changed>),
    /// Delete a job.
    Delete(Delete, ReplyTo<Deleted>),
    /// Apply declared jobs.
    Apply(FileLoad, ReplyTo<LoadPlan>),
    /// Record an incident.
    Record(Incident, ReplyTo<()>),
    /// Show something, and change nothing.
    Read(Read),
}

/// A change of a job.
#[derive(Clone, Debug)]
pub enum JobChange {
    /// Create it, or replace its spec.
    Upsert(Upsert),
    /// End its instance.
    Stop(Stop),
    /// Run it.
    Start(Start),
    /// Replace its instance.
    Restart(Restart),
}

/// A request that changes nothing, with the recipient of its reply.
#[derive(Debug)]
pub enum Read {
    /// Some of the events.
    Events(Events, ReplyTo<EventPage>),
    /// Whether changes are accepted.
    Ready(ReplyTo<()>),
    /// What applying declared jobs would do.
    Plan(FileLoad, ReplyTo<LoadPlan>),
    /// Which copies of images are in use.
    PlanImages(PlanImages, ReplyTo<ImagePlan>),
}

/// Something that can be asked of the engine.
pub trait Ask {
    /// The reply to it.
    type Reply: Send + 'static;

    /// The request, with the recipient of its reply.
    fn reply_to(self, to: ReplyTo<Self::Reply>) -> Request;
}

/// Each kind of request, the type of its reply, and its place in [`Request`].
macro_rules! asks {
    ($($ask:ident -> $reply:ty: |$this:pat_param, $to:ident| $request:expr;)*) => {$(
        impl Ask for $ask {
            type Reply = $reply;

            fn reply_to(self, $to: ReplyTo<$reply>) -> Request {
                let $this = self;
                $request
            }
        }
    )*};
}

asks! {
    JobChange -> Changed: |ask, to| Request::Change(ask, to);
    Upsert -> Changed: |ask, to| Request::Change(JobChange::Upsert(ask), to);
    Stop -> Changed: |ask, to| Request::Change(JobChange::Stop(ask), to);
    Start -> Changed: |ask, to| Request::Change(JobChange::Start(ask), to);
    Restart -> Changed: |ask, to| Request::Change(JobChange::Restart(ask), to);
    Delete -> Deleted: |ask, to| Request::Delete(ask, to);
    ApplyFile -> LoadPlan: |ApplyFile(load), to| Request::Apply(load, to);
    Incident -> (): |ask, to| Request::Record(ask, to);
    Events -> EventPage: |ask, to| Request::Read(Read::Events(ask, to));
    CheckReady -> (): |CheckReady, to| Request::Read(Read::Ready(to));
    PlanFile -> LoadPlan: |PlanFile(load), to| Request::Read(Read::Plan(load, to));
    PlanImages -> ImagePlan: |ask, to| Request::Read(Read::PlanImages(ask, to));
}

impl Call {
    /// Whether carrying it out makes no difference: it changes nothing, and no one waits for its reply.
    #[must_use]
    pub fn is_moot(&self) -> bool {
        match &self.request {
            Request::Read(read) => read.has_gone(),
            Request::Change(..)
            | Request::Delete(..)
            | Request::Apply(..)
            | Request::Record(..) => false,
        }
    }
}

impl Request {
    /// The job that it changes, if it changes one and names it.
    #[must_use]
    pub fn changed_job(&self) -> Option<&JobId> {
        match self {
            Request::Change(change, _) => change.job(),
            Request::Delete(Delete { job }, _) => Some(job),
            Request::Apply(..) | Request::Record(..) | Request::Read(_) => None,
        }
    }

    /// The reply that refuses it.
    pub(crate) fn refused(self, refusal: Refusal) -> Reply {
        match self {
            Request::Change(_, to) => to.with(Err(refusal)),
            Request::Delete(_, to) => to.with(Err(refusal)),
            Request::Apply(_, to) => to.with(Err(refusal)),
            Request::Record(_, to) => to.with(Err(refusal)),
            Request::Read(read) => read.refused(refusal),
        }
    }
}

impl JobChange {
    /// The job, if it is named.
    fn job(&self) -> Option<&JobId> {
        match self {
            JobChange::Upsert(Upsert { job, .. }) => job.as_ref(),
            JobChange::Stop(Stop { job })
            | JobChange::Start(Start { job })
            | JobChange::Restart(Restart { job, .. }) => Some(job),
        }
    }
}

impl Read {
    fn has_gone(&self) -> bool {
        match self {
            Read::Events(_, to) => to.has_gone(),
            Read::Ready(to) => to.has_gone(),
            Read::Plan(_, to) => to.has_gone(),
            Read::PlanImages(_, to) => to.has_gone(),
        }
    }

    fn refused(self, refusal: Refusal) -> Reply {
        match self {
            Read::Events(_, to) => to.with(Err(refusal)),
            Read::Ready(to) => to.with(Err(refusal)),
            Read::Plan(_, to) => to.with(Err(refusal)),
            Read::PlanImages(_, to) => to.with(Err(refusal)),
        }
    }
}

/// Create a job, or replace its spec.
#[derive(Clone, Debug)]
pub struct Upsert {
    /// Its name; generated if `None`.
    pub job: Option<JobId>,
    /// Its tenant, if one was given.
    pub tenant: Option<Tenant>,
    /// What it runs.
    pub spec: Arc<Spec>,
    /// The digests of its images, looked up by the caller just before.
    pub resolution: Resolution,
}

/// Keep a job, end its instance.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Which.
    pub job: JobId,
}

/// Run a stopped job; a finished `job` runs again.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which.
    pub job: JobId,
}

/// Run a job again, as a new generation of the same spec.
#[derive(Clone, Debug)]
pub struct Restart {
    /// Which.
    pub job: JobId,
    /// Its spec as the caller saw it.
    pub spec: Arc<Spec>,
    /// The digests of that spec's images, looked up by the caller just before. Not used if the job
    /// has another spec meanwhile, which came with its own.
    pub resolution: Resolution,
}

/// The reply to a change of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// How it was accepted; for a repeat, how the first request was.
    pub accepted: Accepted,
    /// The job as it is now.
    pub job: JobView,
    /// Whether it was accepted before under the same key, and nothing was changed now.
    pub repeated: bool,
}

/// Delete a job.
#[derive(Clone, Debug)]
pub struct Delete {
    /// Which.
    pub job: JobId,
}

/// The reply to a deletion, which was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Whether nothing is left to stop.
    pub gone: bool,
}

/// Apply declared jobs.
#[derive(Clone, Debug)]
pub struct ApplyFile(pub FileLoad);

/// Say what applying declared jobs would do.
#[derive(Clone, Debug)]
pub struct PlanFile(pub FileLoad);

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

/// Record something that went wrong outside of the engine, for `/events` and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The job it is about.
    pub job: Option<JobId>,
    /// A sentence.
    pub message: String,
}

/// Say whether changes are accepted.
#[derive(Clone, Copy, Debug)]
pub struct CheckReady;

/// Say which copies of images are in use, and which of the others are to be removed.
#[derive(Clone, Debug)]
pub struct PlanImages {
    /// The copies that the host has.
    pub stored: Vec<StoredImage>,
    /// How long unused ones are kept.
    pub keep: KeepImages,
}

/// The reply to [`PlanImages`]: what is decided of the copies that a host has, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePlan {
    /// Those in use.
    pub used: Vec<String>,
    /// Those that go, in this order.
    pub remove: Vec<String>,
}
