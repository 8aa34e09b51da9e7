//! What must hold for a change: a key that no request had before, so that a repeat changes nothing; a
//! generation, so that no change of which the caller does not know is undone.

use crate::ask::{Changed, Preconditions, Repeat, Request};
use crate::engine::Engine;
use crate::input::Now;
use crate::reply::{Refusal, Reply};
use hearth_model::{JobId, Mono, Wanted};
use hearth_store::{Accepted, KEY_LIVES, Used};

impl Engine {
    /// The request, if it is still to be carried out; else the reply to it.
    pub(crate) fn check_preconditions(
        &self,
        now: &Now,
        preconditions: &Preconditions,
        request: Request,
    ) -> Result<Request, Reply> {
        let Preconditions { repeat, generations } = preconditions;
        if let Some(repeat) = repeat {
            match self.used(now.mono, repeat) {
                Ok(None) => {}
                Ok(Some(used)) => return Err(self.repeated(now, repeat, used, request)),
                Err(refusal) => return Err(request.refused(refusal)),
            }
        }
        if let Some(generations) = generations
            && let Err(refusal) = self.check_generation(&request, generations)
        {
            return Err(request.refused(refusal));
        }
        Ok(request)
    }

    /// Remembers how a change was accepted, for repeats of it.
    pub(crate) fn note_repeat(&mut self, now: Mono, repeat: Repeat, changed: &Changed) {
        let Repeat { key, digest } = repeat;
        let (job, accepted) = (changed.job.job.clone(), changed.accepted);
        self.journal.note_key(key, Used { digest, job, accepted, at: now });
    }

    /// The request that had this key, if it is still known.
    fn used(&self, now: Mono, repeat: &Repeat) -> Result<Option<Used>, Refusal> {
        let used = match self.journal.used(&repeat.key) {
            Some(used) => Some(used.clone()),
            None => self.store.used(&repeat.key).map_err(|error| Refusal::from(&error))?,
        };
        Ok(used.filter(|used| now.since(used.at) < KEY_LIVES))
    }

    /// How the request was accepted then, and its job as it is now. Keys are noted of changes alone, so
    /// that anything else is not a repeat.
    fn repeated(&self, now: &Now, repeat: &Repeat, used: Used, request: Request) -> Reply {
        let Used { digest, job, accepted, .. } = used;
        match request {
            Request::Change(_, to) if digest == repeat.digest => {
                to.with(self.accepted_before(now, job, accepted))
            }
            request => request.refused(Refusal::KeyOfAnother { key: repeat.key.clone(), job }),
        }
    }

    fn accepted_before(
        &self,
        now: &Now,
        job: JobId,
        accepted: Accepted,
    ) -> Result<Changed, Refusal> {
        match self.view_of(now, &job) {
            Some(job) => Ok(Changed { accepted, job, repeated: true }),
            None => Err(Refusal::GoneSince(job)),
        }
    }

    /// Whether the job that a request changes is at one of these generations, or at any.
    fn check_generation(&self, request: &Request, generations: &[u64]) -> Result<(), Refusal> {
        let Some(id) = request.changed_job() else { return Ok(()) };
        let job = self.fleet.job(id);
        if let Request::Delete(..) = request {
            // The deletion has happened or is happening, whichever request it came with.
            let going = job.is_some_and(|job| job.wanted == Wanted::Deleted);
            if going || (job.is_none() && self.tombstones.contains_key(id)) {
                return Ok(());
            }
        }
        match job.map(|job| job.generation) {
            Some(current) if generations.is_empty() || generations.contains(&current.0) => Ok(()),
            current => Err(Refusal::OtherGeneration { job: id.clone(), current }),
        }
    }
}
