//! Instances that the host has and the database does not name: it was lost, or was restored from a
//! backup that is older than they are. The host has a record of their identities. Each keeps running, with
//! its slot and its share of the capacity, and is adopted once there is a job that it belongs to:
//! as that job's instance where it is made of the job's spec, else as one of another generation, which
//! the plan replaces as ever. One without a job is shown and left alone.

use crate::engine::Engine;
use crate::input::Now;
use hearth_model::{
    Assignment, CreatedInstance, Creation, Generation, Identity, Instance, Job, JobId, Observed,
    Owner, PoolKey, Progress, Resources, Spec, SpecHash, Tenant, Wanted,
};
use hearth_store::EventKind;
use std::cmp::Reverse;
use std::sync::Arc;

impl Engine {
    /// Takes over what belongs to a job or a pool that there is.
    pub(crate) fn adopt_orphans(&mut self, now: &Now) {
        // What a job wants now comes first, then the newest.
        let mut orphans: Vec<_> =
            self.orphans.0.iter().map(|(id, one)| (id.clone(), one.clone())).collect();
        orphans.sort_by_key(|(_, observed)| Reverse(self.worth(observed)));
        for (id, observed) in orphans {
            let Some(made) = observed.created.clone().filter(|_| !self.fleet.has(observed.slot))
            else {
                continue;
            };
            let Some((assignment, spec)) = self.place_of(&observed, &made) else { continue };
            self.orphans.0.remove(&id);
            self.shown.stale_unidentified();
            self.fleet.insert_instance(Instance {
                id: id.clone(),
                slot: observed.slot,
                assignment,
                hash: observed.hash,
                images: made.images,
                spec,
                stage: made.stage,
                created_at: now.mono,
                seen_at: None,
                awaiting_first_report: true,
                silence: 0,
                unconfined: false,
                running_since: None,
                ready_since: None,
                oom_kills: 0,
                oom_told_at: None,
                assign_failure: None,
                stopping: None,
                state: None,
                creation: Creation::Confirmed,
            });
            let job = self.fleet.instance(&id).and_then(Instance::job).cloned();
            let message = "the database did not name it; it was taken over as it runs";
            self.event(now, job.as_ref(), Some(&id), None, EventKind::Adopted, message);
            self.report_oom_kills(now, &id, &observed);
            self.note_silence(&id, observed.silence);
            self.note_confinement(&id, observed.confined);
            self.see(now, &id, observed.state);
        }
        self.fleet.hold_slots(self.orphans.slots());
    }

    fn worth(&self, observed: &Observed) -> Option<(bool, Generation)> {
        let identity = observed.created.as_ref()?.owner.identity()?;
        let job = self.fleet.job(&identity.job_id)?;
        Some((is_made_of(job, observed), identity.generation))
    }

    /// The first generation of a new job: no generation that an instance of a job by that name was
    /// told is used for anything else.
    pub(crate) fn first_generation(
        &self,
        job: &JobId,
        tenant: &Tenant,
        hash: Option<SpecHash>,
    ) -> Generation {
        let before = self.tombstones.get(job).map_or(Generation(0), |last| last.generation);
        let told = |observed: &Observed| {
            let identity = observed.created.as_ref()?.owner.identity()?;
            let same = identity.tenant == *tenant && Some(observed.hash) == hash;
            (identity.job_id == *job).then_some((identity.generation, same))
        };
        match self.orphans.0.values().filter_map(told).max() {
            Some((told, true)) if told > before => told,
            newest => newest.map_or(before, |(told, _)| told.max(before)).next(),
        }
    }

    /// Where an instance belongs, and the spec that it has as far as that is known.
    fn place_of(
        &mut self,
        observed: &Observed,
        made: &CreatedInstance,
    ) -> Option<(Assignment, Arc<Spec>)> {
        match &made.owner {
            Owner::Job(identity) => {
                let job = self.fleet.job(&identity.job_id)?;
                if job.tenant != identity.tenant {
                    return None;
                }
                let spec = of_size(&job.spec, made.resources);
                self.move_generations(observed, identity);
                let (job, run) = (identity.job_id.clone(), identity.generation);
                Some((Assignment::Job { job, run, claimed_at: None }, spec))
            }
            Owner::Pool(tenant) => {
                let key = PoolKey { tenant: tenant.clone(), hash: observed.hash };
                let spec = self.fleet.job_of_pool(&key)?.spec.clone();
                Some((Assignment::Pool(key), spec))
            }
        }
    }

    /// Moves the generations of a job, so that an instance of `identity` is its current one where it
    /// is made of the job's spec and nothing else is that, and of another run where it is not. No
    /// generation that was ever assigned is used again.
    ///
    /// The row of the progress does not name the run that it counts for: that is the run of the job's row, and
    /// both are written by the same commit, so that no crash parts them. A later run that is adopted has a
    /// progress of its own. The run that the database wants stays the same one if it only gets another number.
    fn move_generations(&mut self, observed: &Observed, identity: &Identity) {
        let Some(job) = self.fleet.job(&identity.job_id) else { return };
        let has_current = self.fleet.of_job(&job.id).any(|instance| match &instance.assignment {
            Assignment::Job { run, .. } => *run == job.run,
            Assignment::Pool(_) => false,
        });
        let told = identity.generation;
        let serves = !has_current && is_made_of(job, observed) && told >= job.run;
        let newest = job.generation.max(told);
        let (generation, run) = if serves {
            (newest, told)
        } else if told >= job.run && !has_current {
            (newest.next(), newest.next())
        } else {
            (newest, job.run)
        };
        let id = job.id.clone();
        self.fleet.change_job(&id, |job| {
            if serves && run > job.run {
                job.progress = Progress::begun(job.progress.resolution.clone());
            }
            (job.generation, job.run) = (generation, run);
        });
    }
}

/// Whether an instance of this make is what the job wants now.
fn is_made_of(job: &Job, observed: &Observed) -> bool {
    let wanted = job.wanted == Wanted::Running && job.progress.outcome.is_none();
    wanted && job.hash() == Some(observed.hash)
}

/// The spec, as something of that size has it.
fn of_size(spec: &Arc<Spec>, resources: Resources) -> Arc<Spec> {
    if spec.resources == resources {
        return Arc::clone(spec);
    }
    Arc::new(Spec { resources, ..Spec::clone(spec) })
}
