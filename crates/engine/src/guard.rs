//! Changes that somebody guards: by a key, so that a repeat changes nothing, or by a generation, so
//! that nobody else's change is undone unseen.

use crate::engine::Engine;
use crate::input::{Guard, Guarded, Now, Refusal, Repeat, Reply, Request, StepOutput};
use hearth_model::{InstanceId, Mono, Wanted};
use hearth_store::{KEY_LIVES, Used};

impl Engine {
    pub(crate) fn guarded(
        &mut self,
        now: &Now,
        guarded: Guarded,
        alive: &dyn Fn(&InstanceId) -> bool,
        output: &mut StepOutput,
    ) -> Result<Reply, Refusal> {
        let Guarded { guard: Guard { repeat, generations }, request } = guarded;
        if let Some(repeat) = &repeat
            && let Some(used) = self.used(now.mono, repeat)?
        {
            return self.repeated(now, repeat, used);
        }
        if let Some(generations) = &generations {
            self.check_generation(&request, generations)?;
        }
        let reply = self.request(now, request, alive, output)?;
        if let (Some(Repeat { key, digest }), Reply::Changed(accepted, view)) = (repeat, &reply) {
            let (job, accepted) = (view.job.clone(), *accepted);
            self.journal.note_key(key, Used { digest, job, accepted, at: now.mono });
        }
        Ok(reply)
    }

    /// The request that had this key, where it is known yet.
    fn used(&self, now: Mono, repeat: &Repeat) -> Result<Option<Used>, Refusal> {
        let used = match self.journal.used(&repeat.key) {
            Some(used) => Some(used.clone()),
            None => self.store.used(&repeat.key).map_err(|error| Refusal::from(&error))?,
        };
        Ok(used.filter(|used| now.since(used.at) < KEY_LIVES))
    }

    /// How the request was accepted then, and its job as it is now.
    fn repeated(&self, now: &Now, repeat: &Repeat, used: Used) -> Result<Reply, Refusal> {
        if used.digest != repeat.digest {
            return Err(Refusal::KeyOfAnother { key: repeat.key.clone(), job: used.job });
        }
        match self.view_of(now, &used.job) {
            Some(view) => Ok(Reply::Repeated(used.accepted, view)),
            None => Err(Refusal::GoneSince(used.job)),
        }
    }

    /// Whether the job that a request changes stands at one of these generations, or at any.
    fn check_generation(&self, request: &Request, generations: &[u64]) -> Result<(), Refusal> {
        let Some(id) = request.changed_job() else { return Ok(()) };
        let job = self.fleet.job(id);
        if let Request::Delete { .. } = request {
            // What was asked for has happened, or is happening, whoever asked first.
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
