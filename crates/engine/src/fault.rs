//! What the engine does while its database can't be written, or is lost: changes are refused, reads continue,
//! and nothing is done to the host. It is tried again each second.
//!
//! ```text
//!   a commit fails ──> each change is tried and refused ──a commit or probe succeeds──> as before
//!   files are lost ──> no change is tried; what actions came to waits ──files are back──> as before
//! ```

use crate::ask::{Call, Request};
use crate::engine::Engine;
use crate::input::{Effect, Input, Now, StepOutput};
use crate::journal::progress_row;
use crate::reply::{Refusal, Reply};
use hearth_model::Mono;
use hearth_store::{Changes, Event, EventKind, InstanceRow, JobRow, Means, StoreError};
use std::time::Duration;

/// How old the last proof that the database can be written may be when somebody asks for it. Trying costs a
/// commit.
const PROOF_LASTS: Duration = Duration::from_secs(1);
/// How often is tried whether a fault is over.
const RETRY_EVERY: Duration = Duration::from_millis(500);

impl Engine {
    /// Why changes are refused just now, where they are.
    #[must_use]
    pub fn refusing(&self) -> Option<&Refusal> {
        self.health.refusing.as_ref()
    }

    /// Looks whether the files of the database are where they were. Where they are again, what has waited
    /// for that comes before what is new.
    ///
    /// # Errors
    /// The inputs, where the files are lost.
    pub(crate) fn look_at_files(
        &mut self,
        now: &Now,
        inputs: Vec<Input>,
    ) -> Result<Vec<Input>, Vec<Input>> {
        if let Err(error) = self.store.check() {
            let problem = error.to_string();
            if self.health.lost.as_ref() != Some(&problem) {
                let detail = format!("{problem}. {}", self.remedy(now, &error));
                self.health.refusing = Some(Refusal::Lost { detail });
                self.health.lost = Some(problem);
            }
            return Err(inputs);
        }
        if self.health.lost.take().is_none() {
            return Ok(inputs);
        }
        self.health.refusing = None;
        let mut all = std::mem::take(&mut self.health.deferred);
        all.extend(inputs);
        Ok(all)
    }

    /// What to do about files that are lost. What they held is saved first, where they are what is lost.
    fn remedy(&self, now: &Now, error: &StoreError) -> String {
        let refused = "Changes are refused, microVMs keep running";
        match error {
            StoreError::Lost { means: Means::Directory, .. } => {
                return format!("{refused}: put the state directory back, or end the daemon");
            }
            StoreError::Lost { means: Means::Lock, .. } => {
                return format!(
                    "{refused}, since another daemon may use the state directory: end this one, then \
                     start one again"
                );
            }
            _ => {}
        }
        match self.store.save(&self.everything(now, error)) {
            Ok(Some(saved)) => format!(
                "{refused}. Everything that was accepted is in {}: start the daemon again (as hearth \
                 restore FILE does) and it continues with that, or with FILE",
                saved.display()
            ),
            Ok(None) => refused.to_owned(),
            Err(why) => format!(
                "{refused}. What was accepted can't be saved beside it ({why}): put the database back, or \
                 restore a backup with hearth restore"
            ),
        }
    }

    /// All rows as they were committed, but for the events and keys.
    fn everything(&self, now: &Now, error: &StoreError) -> Changes<'_> {
        let instance = |id| self.fleet.instance(id).map(InstanceRow::of);
        let event = Event {
            id: self.journal.next_event(),
            at: now.wall.clone(),
            job: None,
            instance: None,
            generation: None,
            caller: None,
            kind: EventKind::Error,
            message: format!("{error}; what had happened before is lost with it"),
        };
        let jobs = || self.fleet.jobs().iter();
        let tombstones = self.tombstones.iter();
        let entries = self.entries.iter();
        Changes {
            jobs: jobs().map(|(id, job)| (id.clone(), Some(JobRow::of(job)))).collect(),
            progress: jobs()
                .map(|(id, _)| (id.clone(), progress_row(&self.fleet, &self.notes, id)))
                .collect(),
            instances: self.fleet.instances().keys().map(|id| (id.clone(), instance(id))).collect(),
            tombstones: tombstones.map(|(id, one)| (id.clone(), Some(*one))).collect(),
            entries: entries.map(|(key, one)| (key.clone(), Some(one.clone()))).collect(),
            keys: Vec::new(),
            log_drops: self.log_drops.iter().map(|id| (id.clone(), true)).collect(),
            events: vec![event],
            first_event: 0,
            boot_id: Some(self.config.boot_id.clone()),
        }
    }

    /// A step without a database: what only reads is answered from memory, changes are refused.
    pub(crate) fn step_without_files(&mut self, now: &Now, inputs: Vec<Input>) -> Vec<Effect> {
        let Some(refusal) = self.health.refusing.clone() else { return Vec::new() };
        // What is seen meanwhile could not be recorded, and has to be seen again.
        self.looked_at = None;
        let mut effects = Vec::new();
        for input in inputs {
            match input {
                Input::Request(Call { request: Request::Read(read), .. }) => {
                    effects.push(Effect::Reply(self.read(read)));
                }
                Input::Request(call) => {
                    effects.push(Effect::Reply(call.request.refused(refusal.clone())));
                }
                input @ (Input::Done(..) | Input::Resolved(..)) => self.health.deferred.push(input),
                Input::Followed(jobs) => self.followed(now.mono, jobs),
                Input::Observed { .. } | Input::Tick => {}
            }
        }
        effects.push(Effect::WakeIn(RETRY_EVERY));
        effects
    }

    /// The files were lost during a commit: it is in what is left of them, and so in memory, and may be lost
    /// again. None of its effects is acknowledged or done; as after a crash behind a commit, it is planned
    /// again once the files are back.
    pub(crate) fn withhold(&mut self, error: &StoreError, output: StepOutput) -> Vec<Effect> {
        let refusal = Refusal::from(error);
        self.looked_at = None;
        for effect in &output.effects {
            match effect {
                Effect::Apply(id, action) => {
                    self.operations.cancel(*id);
                    self.fleet.replan_instance(action.instance());
                }
                Effect::Resolve(job, ..) => drop(self.resolving.remove(job)),
                _ => {}
            }
        }
        let refused = |reply: Reply| Effect::Reply(reply.refused(refusal.clone()));
        let mut effects: Vec<Effect> = output.replies.into_iter().map(refused).collect();
        effects.push(Effect::WakeIn(RETRY_EVERY));
        effects
    }

    /// A commit has succeeded or failed.
    pub(crate) fn note_commit(&mut self, now: Mono, error: Option<&StoreError>) {
        self.health.refusing = error.map(Refusal::from);
        self.health.tried_at = Some(now);
    }

    /// Whether changes are accepted, which is tried where it is not known: `asked` by somebody, or since
    /// they were not.
    ///
    /// # Panics
    /// As [`Engine::step`].
    pub(crate) fn try_writing(&mut self, now: Mono, asked: bool) {
        let lasts = match self.health.refusing {
            Some(_) => RETRY_EVERY,
            None if asked => PROOF_LASTS,
            None => return,
        };
        if self.health.tried_at.is_some_and(|at| now.since(at) < lasts) {
            return;
        }
        let tried = self.store.probe();
        if let Err(error) = &tried
            && error.is_sync_failed()
        {
            panic!("the disk failed to sync the database; look for its errors in the kernel's log")
        }
        self.note_commit(now, tried.as_ref().err());
    }

    /// The reply to [`crate::CheckReady`].
    pub(crate) fn ready(&self) -> Result<(), Refusal> {
        self.health.refusing.clone().map_or(Ok(()), Err)
    }
}
