//! Where a reply goes, and why a request is refused. A request carries the recipient of its reply through the engine, which can only
//! address a reply of the right type to it: no reply can reach the wrong recipient. The engine never
//! calls a recipient. The caller of [`crate::Engine::step`] does, by [`Reply::deliver`].

use hearth_model::{Generation, JobId};
use hearth_store::StoreError;
use std::fmt;

/// Takes a reply.
pub trait Recipient<R>: Send {
    /// Takes it.
    fn receive(self: Box<Self>, reply: Result<R, Refusal>);

    /// Whether no one waits for the reply any more.
    fn has_gone(&self) -> bool {
        false
    }
}

impl<R, F: FnOnce(Result<R, Refusal>) + Send> Recipient<R> for F {
    fn receive(self: Box<Self>, reply: Result<R, Refusal>) {
        self(reply);
    }
}

/// The recipient of a reply.
#[must_use = "each request is answered"]
pub struct ReplyTo<R>(Box<dyn Recipient<R>>);

impl<R: Send + 'static> ReplyTo<R> {
    /// To this recipient.
    pub fn new(recipient: impl Recipient<R> + 'static) -> ReplyTo<R> {
        ReplyTo(Box::new(recipient))
    }

    /// Whether no one waits for the reply any more.
    pub(crate) fn has_gone(&self) -> bool {
        self.0.has_gone()
    }

    /// The reply, addressed.
    pub(crate) fn with(self, reply: Result<R, Refusal>) -> Reply {
        let ReplyTo(recipient) = self;
        Reply {
            deliver: Box::new(move |verdict| recipient.receive(verdict.and(reply))),
            verdict: Ok(()),
        }
    }
}

impl<R> fmt::Debug for ReplyTo<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyTo")
    }
}

/// A reply with its recipient.
#[must_use = "each request is answered"]
pub struct Reply {
    deliver: Box<dyn FnOnce(Result<(), Refusal>) + Send>,
    verdict: Result<(), Refusal>,
}

impl Reply {
    /// A refusal in its place: the step's commit failed.
    pub(crate) fn refused(self, refusal: Refusal) -> Reply {
        Reply { verdict: Err(refusal), ..self }
    }

    /// Hands it to its recipient.
    pub fn deliver(self) {
        (self.deliver)(self.verdict);
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("verdict", &self.verdict).finish_non_exhaustive()
    }
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
    #[error("cannot write the database: {detail}; nothing was changed")]
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
