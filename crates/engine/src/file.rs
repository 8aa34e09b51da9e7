//! Declared jobs, of the watched desired-state file and of explicit applies. What a load would do is
//! decided by [`Engine::decide_load`] alone, which changes nothing: a plan is that decision told, an
//! apply is that decision carried out.

use crate::ask::{Deletions, DiffBase, Drained, FileEntry, FileLoad, LoadPlan, PlannedChange, Why};
use crate::engine::Engine;
use crate::entry::EntryDigest;
use crate::input::{Now, StepOutput};
use crate::reply::Refusal;
use crate::request::{Change, ChangeKind};
use hearth_model::hash::same_inside;
use hearth_model::{Caller, Job, JobId, Wanted};
use hearth_store::{AppliedEntry, EventKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a load comes to, and all that carrying it out needs.
#[derive(Debug, Default)]
struct Decision {
    plan: LoadPlan,
    changes: Vec<Change>,
    /// Entries that are in force from now on, with their digests.
    recorded: Vec<(JobId, String)>,
    /// Entries that the file no longer has.
    forgotten: Vec<JobId>,
}

impl Engine {
    /// What [`Engine::apply_file`] would do now.
    pub(crate) fn plan_load(&self, load: &FileLoad) -> LoadPlan {
        self.decide_load(load).plan
    }

    pub(crate) fn apply_file(
        &mut self,
        now: &Now,
        caller: Caller,
        load: &FileLoad,
        output: &mut StepOutput,
    ) -> LoadPlan {
        let Decision { plan, changes, recorded, forgotten } = self.decide_load(load);
        for change in changes {
            self.accept(now, caller, change);
        }
        if let Some(path) = &load.path {
            for (id, digest) in recorded {
                let generation = self.fleet.jobs()[&id].generation;
                self.record_entry(path, &id, Some(AppliedEntry { digest, generation }));
            }
            for id in &forgotten {
                self.record_entry(path, id, None);
            }
        }
        let source = source_name(load);
        for id in &plan.deleted {
            let message = format!("{source} no longer declares it");
            self.mark_for_deletion(now, caller, id, message);
            if self.observation_is_fresh(now.mono) && self.fleet.of_job(id).next().is_none() {
                self.forget(now, id, output);
            }
        }
        // One event for a load that changed something.
        let (applied, deleted, unchanged) = (plan.applied(), plan.deleted.len(), plan.unchanged);
        if applied + deleted > 0 {
            let message =
                format!("{source}: {applied} applied, {deleted} deleted, {unchanged} unchanged");
            self.event_by(now, caller, None, None, EventKind::Loaded, message);
        }
        plan
    }

    fn record_entry(&mut self, path: &Path, id: &JobId, entry: Option<AppliedEntry>) {
        let key = (path.to_owned(), id.clone());
        if self.entries.get(&key) == entry.as_ref() {
            return;
        }
        match entry {
            Some(entry) => self.entries.insert(key.clone(), entry),
            None => self.entries.remove(&key),
        };
        self.journal.note_entry(key);
    }

    fn decide_load(&self, load: &FileLoad) -> Decision {
        let mut decision = Decision::default();
        for entry in &load.entries {
            self.decide_entry(load, entry, &mut decision);
        }
        if let Some(path) = &load.path {
            self.decide_left_out(path, load, &mut decision);
        }
        let mut after: BTreeMap<&JobId, Option<&Job>> =
            decision.changes.iter().map(|change| (&change.job.id, Some(&change.job))).collect();
        after.extend(decision.plan.deleted.iter().map(|id| (id, None)));
        let drained = self.fleet.drained_by(&after);
        decision.plan.drained = drained
            .into_iter()
            .map(|(key, instances)| Drained { hash: key.hash, instances })
            .collect();
        decision
    }

    fn decide_entry(&self, load: &FileLoad, entry: &FileEntry, decision: &mut Decision) {
        let plan = &mut decision.plan;
        let EntryDigest(digest) = &entry.digest;
        let settled = match load.against {
            DiffBase::LastApplied => {
                let applied = self.applied_entry(load, &entry.job);
                if applied.is_some_and(|applied| applied.digest == *digest) {
                    plan.unchanged += 1;
                    return;
                }
                false
            }
            DiffBase::Jobs => self.is_as_declared(entry),
        };
        let decided: Result<Option<Change>, Refusal> = if settled {
            Ok(None)
        } else {
            let FileEntry { job, tenant, spec, resolution, .. } = entry;
            self.decide(job, tenant.as_ref(), spec, resolution)
        };
        match decided {
            Ok(None) => plan.unchanged += 1,
            Ok(Some(change)) => {
                self.tell_change(&change, plan);
                decision.changes.push(change);
            }
            Err(refusal) => {
                plan.refused.push((entry.job.clone(), refusal.to_string()));
                return;
            }
        }
        decision.recorded.push((entry.job.clone(), digest.clone()));
    }

    fn applied_entry(&self, load: &FileLoad, job: &JobId) -> Option<&AppliedEntry> {
        self.entries.get(&(load.path.clone()?, job.clone()))
    }

    /// Whether the job exists as the entry says, and is wanted. A `job` that has finished is: running it
    /// again was not requested.
    fn is_as_declared(&self, entry: &FileEntry) -> bool {
        self.fleet.job(&entry.job).is_some_and(|job| {
            let same_tenant = entry.tenant.as_ref().is_none_or(|tenant| *tenant == job.tenant);
            job.wanted == Wanted::Running && job.spec == entry.spec && same_tenant
        })
    }

    fn tell_change(&self, change: &Change, plan: &mut LoadPlan) {
        let id = change.job.id.clone();
        let Some(before) = self.fleet.job(&id) else {
            plan.create.push(id);
            return;
        };
        let planned = PlannedChange {
            job: id,
            before: before.spec.clone(),
            after: change.job.spec.clone(),
            why: why(before, change),
        };
        match change.kind {
            ChangeKind::Policy => plan.update.push(planned),
            ChangeKind::Create | ChangeKind::Replace => plan.replace.push(planned),
        }
    }

    fn decide_left_out(&self, path: &Path, load: &FileLoad, decision: &mut Decision) {
        let declared: BTreeSet<&JobId> = load.entries.iter().map(|entry| &entry.job).collect();
        let of_file: Vec<(&JobId, &AppliedEntry)> = self
            .entries
            .iter()
            .filter(|((of, _), _)| of == path)
            .map(|((_, job), applied)| (job, applied))
            .collect();
        let (mut to_delete, mut kept, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (id, applied) in of_file.iter().filter(|(id, _)| !declared.contains(id)) {
            match self.fleet.job(id).filter(|job| job.wanted != Wanted::Deleted) {
                None => gone.push((*id).clone()),
                Some(job) if job.generation == applied.generation => to_delete.push((*id).clone()),
                Some(_) => kept.push((*id).clone()),
            }
        }
        let many = to_delete.len() >= 2 && to_delete.len() * 2 > of_file.len();
        let hold = match load.deletions {
            Deletions::Wait => true,
            Deletions::Few => many,
            Deletions::All => false,
        };
        let plan = &mut decision.plan;
        if hold {
            (plan.held, plan.kept) = (to_delete, kept);
            return;
        }
        decision.forgotten = to_delete.iter().chain(&kept).cloned().chain(gone).collect();
        (plan.deleted, plan.kept) = (to_delete, kept);
    }
}

/// Why a job is changed, whatever its spec says otherwise.
fn why(before: &Job, change: &Change) -> Why {
    match before.wanted {
        Wanted::Stopped => Why::Stopped,
        Wanted::Deleted => Why::BeingDeleted,
        Wanted::Running if before.progress.outcome.is_some() => Why::Finished,
        // Only its images can have made it another inside.
        Wanted::Running
            if change.kind == ChangeKind::Replace
                && same_inside(&before.spec, &change.job.spec) =>
        {
            Why::Images
        }
        Wanted::Running => Why::Spec,
    }
}

/// What a load is called in events.
fn source_name(load: &FileLoad) -> String {
    load.path
        .as_ref()
        .map_or_else(|| "an apply without a file".to_owned(), |path| path.display().to_string())
}
