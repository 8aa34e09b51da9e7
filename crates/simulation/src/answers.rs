//! What must hold of every answer: it says what is on disk once its step is over, and nothing else, whatever
//! else the step was asked for.

use crate::asked::Exchange;
use crate::invariants::{Invariants, Life, Told, serves};
use crate::schedule::JOBS;
use hearth_engine::{Accepted, Changed, Delete, Deleted, Engine, JobPage, JobView, List, Refusal};
use hearth_host::sim::SimState;
use hearth_model::{Generation, Job, JobId};

impl Invariants {
    /// A request is answered.
    pub(crate) fn acknowledged(
        &mut self,
        engine: &Engine,
        machine: &SimState,
        exchange: &Exchange,
    ) -> Result<(), String> {
        match exchange {
            Exchange::Change(_, Ok(Changed { accepted, job, repeated })) => {
                if *accepted == Accepted::Claimed && !repeated {
                    is_claimed(engine, machine, job)?;
                }
                self.tell(engine, &job.job, job.generation)
            }
            Exchange::Apply(Ok(load)) => {
                let changed = load.replace.iter().chain(&load.update).map(|change| &change.job);
                let mut all = load.create.iter().chain(changed).chain(&load.deleted);
                all.try_for_each(|id| self.tell(engine, id, Generation(1)))
            }
            Exchange::Delete(Delete { job }, Ok(Deleted { gone })) => {
                // Another request of the same step may have created it again.
                let made = engine.fleet().job(job).map(|job| job.generation);
                let created_again = engine.tombstone(job).is_some_and(|last| made > Some(last));
                if *gone && made.is_some() && !created_again {
                    return Err(format!("{job} was told to be gone and is there"));
                }
                self.tell(engine, job, Generation(1))
            }
            _ => Ok(()),
        }
    }

    /// A client reads a job, between two steps.
    pub(crate) fn read(engine: &Engine, id: &JobId) -> Result<(), String> {
        match (engine.view().job(id), engine.fleet().job(id)) {
            (Some(view), Some(_)) => is_on_disk(engine, view),
            (None, None) => Ok(()),
            (shown, job) => Err(format!("{shown:?} was shown, and there is {job:?}")),
        }
    }

    /// A client lists all jobs, between two steps. What was acknowledged is in the list.
    pub(crate) fn list(&self, engine: &Engine) -> Result<(), String> {
        let all = List { limit: usize::from(JOBS), ..List::default() };
        let JobPage { jobs, .. } = engine.view().page(&all);
        let shown = |id: &JobId| jobs.iter().any(|view| view.job == *id);
        let gone = |id| engine.fleet().job(id).is_none() && engine.tombstone(id).is_some();
        if let Some(id) = self.told.keys().find(|id| !shown(id) && !gone(id)) {
            return Err(format!("{id} is not in the list: {jobs:?}"));
        }
        jobs.iter().try_for_each(|view| is_on_disk(engine, view))
    }

    /// A client was told that a job is of this generation at least. It may be gone by the same step.
    fn tell(&mut self, engine: &Engine, id: &JobId, least: Generation) -> Result<(), String> {
        let (job, last) = (engine.fleet().job(id), engine.tombstone(id));
        match (job, last) {
            (Some(job), _) if job.generation >= least => {
                let Job { generation, wanted, spec, .. } = job.clone();
                self.told.insert(id.clone(), Told { generation, wanted, spec });
                Ok(())
            }
            (None, Some(last)) if last >= least => {
                self.lives.insert(id.clone(), Life { generation: last, run: last, gone: true });
                Ok(())
            }
            _ => Err(format!("{id} was told of {least}; there is {job:?}, and was {last:?}")),
        }
    }

    /// The answer to a request is on disk, whether it reaches the client or not: one key makes one change.
    pub(crate) fn keyed(&mut self, exchange: &Exchange) -> Result<(), String> {
        let Exchange::Change(Some(repeat), answer) = exchange else { return Ok(()) };
        let made = self.keys.get(&repeat.key);
        let fine = match answer {
            Ok(Changed { job, repeated: false, .. }) => {
                let first = made.is_none();
                self.keys.insert(repeat.key.clone(), job.job.clone());
                first
            }
            Ok(Changed { job: JobView { job, .. }, repeated: true, .. })
            | Err(Refusal::GoneSince(job)) => made == Some(job),
            // It was not made before, as far as any client was told, and is not now.
            Err(Refusal::Store { .. } | Refusal::Lost { .. }) => true,
            _ => made.is_none(),
        };
        if fine { Ok(()) } else { Err(format!("{repeat:?} was answered {answer:?}")) }
    }
}

/// A claim is of an instance that lives, and is the job's own.
fn is_claimed(engine: &Engine, machine: &SimState, view: &JobView) -> Result<(), String> {
    if !view.instance.as_ref().is_some_and(|id| machine.alive(id)) {
        return Err(format!("{} was given a dead instance", view.job));
    }
    let claimed = view.instance.as_ref().and_then(|id| engine.fleet().instance(id));
    if claimed.is_some_and(|claimed| serves(claimed, &view.job, view.generation)) {
        return Ok(());
    }
    Err(format!("{} was given what is not its own: {claimed:?}", view.job))
}

/// What a client is shown is what the database holds when the step is over.
fn is_on_disk(engine: &Engine, view: &JobView) -> Result<(), String> {
    let job = engine.fleet().job(&view.job);
    let same = |job: &Job| job.generation > view.generation || job.spec == view.spec;
    let fine = job.is_some_and(|job| job.generation >= view.generation && same(job))
        && view.instance.as_ref().is_none_or(|id| engine.fleet().instance(id).is_some());
    if fine { Ok(()) } else { Err(format!("{view:?} was shown, and there is {job:?}")) }
}
