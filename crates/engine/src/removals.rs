//! Which finished jobs with `auto_remove` wait for their deletion, and since when.

use hearth_model::{JobId, Mono};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Finished jobs that are to be deleted, by when their time began.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    since: BTreeMap<JobId, Mono>,
    oldest: BTreeSet<(Mono, JobId)>,
}

impl Removals {
    pub(crate) fn contains(&self, id: &JobId) -> bool {
        self.since.contains_key(id)
    }

    pub(crate) fn begin(&mut self, id: &JobId, at: Mono) {
        self.end(id);
        self.since.insert(id.clone(), at);
        self.oldest.insert((at, id.clone()));
    }

    pub(crate) fn end(&mut self, id: &JobId) {
        if let Some(at) = self.since.remove(id) {
            self.oldest.remove(&(at, id.clone()));
        }
    }

    /// Takes out those whose time is over.
    pub(crate) fn due(&mut self, now: Mono, after: Duration) -> Vec<JobId> {
        let mut due = Vec::new();
        while let Some((at, id)) = self.oldest.first()
            && now.since(*at) >= after
        {
            let id = id.clone();
            self.end(&id);
            due.push(id);
        }
        due
    }
}
