//! The desired-state file: an entry is applied when it differs from what was last applied, and
//! takes its job with it when it leaves, unless somebody has changed the job since over HTTP.

use crate::engine::{Engine, Turn};
use crate::input::{Deletions, FileEntry, FileLoad, FileReport, Now, Upsert};
use crate::json::to_json;
use crate::store::AppliedEntry;
use hearth_model::{JobId, Wanted};
use std::collections::BTreeSet;

impl Engine {
    pub(crate) fn apply_file(&mut self, now: &Now, load: FileLoad, turn: &mut Turn) -> FileReport {
        let mut report = FileReport::default();
        let declared: BTreeSet<JobId> =
            load.entries.iter().map(|entry| entry.job.clone()).collect();
        let before = self.entries.keys().filter(|(path, _)| *path == load.path).count();
        for entry in load.entries {
            let key = (load.path.clone(), entry.job.clone());
            let digest = digest(&entry);
            if self.entries.get(&key).is_some_and(|applied| applied.digest == digest) {
                report.unchanged += 1;
                continue;
            }
            let upsert = Upsert {
                job: Some(entry.job.clone()),
                tenant: entry.tenant,
                spec: entry.spec,
                resolution: entry.resolution,
            };
            match self.upsert(now, upsert) {
                Ok(_) => {
                    let generation = self.fleet.jobs()[&entry.job].generation;
                    self.entries.insert(key.clone(), AppliedEntry { digest, generation });
                    self.touch_entry(key);
                    report.applied.push(entry.job);
                }
                Err(refusal) => report.refused.push((entry.job, refusal.to_string())),
            }
        }
        self.left_out(now, &load.path, &declared, (load.deletions, before), &mut report, turn);
        self.tell_load(now, &load.path, &report);
        report
    }

    /// One event for a load that changed something.
    fn tell_load(&mut self, now: &Now, path: &std::path::Path, report: &FileReport) {
        let (applied, deleted) = (report.applied.len(), report.deleted.len());
        if applied + deleted > 0 {
            let unchanged = report.unchanged;
            let message = format!(
                "{}: {applied} applied, {deleted} deleted, {unchanged} unchanged",
                path.display()
            );
            self.event(now, None, None, None, "loaded", message);
        }
    }

    fn left_out(
        &mut self,
        now: &Now,
        path: &std::path::Path,
        declared: &BTreeSet<JobId>,
        (deletions, before): (Deletions, usize),
        report: &mut FileReport,
        turn: &mut Turn,
    ) {
        let left: Vec<(JobId, AppliedEntry)> = self
            .entries
            .iter()
            .filter(|((of, job), _)| of == path && !declared.contains(job))
            .map(|((_, job), applied)| (job.clone(), applied.clone()))
            .collect();
        let (doomed, kept): (Vec<_>, Vec<_>) = left.into_iter().partition(|(id, applied)| {
            self.fleet.job(id).is_some_and(|job| {
                job.generation == applied.generation && job.wanted != Wanted::Deleted
            })
        });
        let many = doomed.len() >= 2 && doomed.len() * 2 > before;
        let hold = match deletions {
            Deletions::Wait => true,
            Deletions::Few => many,
            Deletions::All => false,
        };
        if hold {
            report.held = doomed.into_iter().map(|(id, _)| id).collect();
            return;
        }
        for (id, _) in doomed.iter().chain(&kept) {
            let key = (path.to_owned(), id.clone());
            self.entries.remove(&key);
            self.touch_entry(key);
        }
        for (id, applied) in doomed {
            self.doom(&id);
            let message = format!("{} no longer declares it", path.display());
            self.event(now, Some(&id), None, Some(applied.generation), "accepted", message);
            if self.observed && self.fleet.of_job(&id).next().is_none() {
                self.forget(now, &id, turn);
            }
            report.deleted.push(id);
        }
    }
}

/// Of what the entry says, not of what its names point at.
fn digest(entry: &FileEntry) -> String {
    let tenant = entry.tenant.as_ref().map(ToString::to_string);
    let text = serde_json::json!([tenant, to_json(&entry.spec.write())]).to_string();
    blake3::hash(text.as_bytes()).to_string()
}
