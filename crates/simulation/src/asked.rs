//! What a run asks of the engine, and each request with its reply.

use hearth_engine::{
    ApplyFile, Ask, Call, Changed, Delete, Deleted, FileLoad, ImagePlan, JobChange, LoadPlan,
    PlanImages, Preconditions, Refusal, Repeat, Reply, ReplyTo, Request,
};
use hearth_model::Caller;
use std::sync::{Arc, Mutex, PoisonError};

/// A request.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Change(JobChange, Option<Repeat>),
    Delete(Delete),
    Apply(FileLoad),
    PlanImages(PlanImages),
}

/// A request and its reply.
#[derive(Debug)]
pub(crate) enum Exchange {
    Change(Option<Repeat>, Result<Changed, Refusal>),
    Delete(Delete, Result<Deleted, Refusal>),
    Apply(Result<LoadPlan, Refusal>),
    PlanImages(PlanImages, Result<ImagePlan, Refusal>),
}

/// Takes the replies, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replies(Arc<Mutex<Option<(u64, Exchange)>>>);

impl Replies {
    /// The request of this number, as the engine takes it.
    pub(crate) fn call(&self, number: u64, asked: Asked) -> Call {
        let (repeat, request) = match asked {
            Asked::Change(change, repeat) => {
                let of = repeat.clone();
                let to = self.to(number, |reply| Exchange::Change(of, reply));
                (repeat, change.reply_to(to))
            }
            Asked::Delete(delete) => {
                let of = delete.clone();
                (None, delete.reply_to(self.to(number, |reply| Exchange::Delete(of, reply))))
            }
            Asked::Apply(load) => {
                (None, ApplyFile(load).reply_to(self.to(number, Exchange::Apply)))
            }
            Asked::PlanImages(plan) => {
                let of = plan.clone();
                (None, plan.reply_to(self.to(number, |reply| Exchange::PlanImages(of, reply))))
            }
        };
        call(repeat, request)
    }

    fn to<R: Send + 'static>(
        &self,
        number: u64,
        exchange: impl FnOnce(Result<R, Refusal>) -> Exchange + Send + 'static,
    ) -> ReplyTo<R> {
        let Replies(replies) = self.clone();
        ReplyTo::new(move |reply| {
            let last = &mut *replies.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((number, exchange(reply)));
        })
    }

    /// The number of the request that is answered, with its reply.
    pub(crate) fn receive(&self, reply: Reply) -> (u64, Exchange) {
        reply.deliver();
        let Replies(replies) = self;
        let last = replies.lock().unwrap_or_else(PoisonError::into_inner).take();
        last.expect("a reply reaches its recipient")
    }
}

fn call(repeat: Option<Repeat>, request: Request) -> Call {
    let preconditions = Preconditions { repeat, generations: None };
    Call { caller: Caller::Unknown, preconditions, request }
}

impl Exchange {
    /// Whether it was refused since the database could not be written.
    pub(crate) fn is_unwritten(&self) -> bool {
        let refusal = match self {
            Exchange::Change(_, reply) => reply.as_ref().err(),
            Exchange::Delete(_, reply) => reply.as_ref().err(),
            Exchange::Apply(reply) => reply.as_ref().err(),
            Exchange::PlanImages(_, reply) => reply.as_ref().err(),
        };
        matches!(refusal, Some(Refusal::Store { .. } | Refusal::Lost { .. }))
    }
}
