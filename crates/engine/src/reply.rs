//! Where a reply goes. A request carries the recipient of its reply through the engine, which can only
//! address a reply of the right type to it: no reply can reach the wrong recipient. The engine never
//! calls a recipient. The caller of [`crate::Engine::step`] does, by [`Reply::deliver`].

use crate::input::Refusal;
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
