//! Whose output is followed just now. The engine keeps finished jobs for their followers.

use hearth_model::JobId;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The followers of each job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followed(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    followers: BTreeMap<JobId, usize>,
    /// Whether the set of jobs is another than it was when it was asked for last.
    changed: bool,
}

/// One follower of a job, until it is dropped.
#[derive(Debug)]
pub(crate) struct Following {
    followed: Followed,
    job: JobId,
}

impl Followed {
    /// One more follower of a job.
    pub(crate) fn follow(&self, job: &JobId) -> Following {
        let mut state = self.state();
        let count = state.followers.entry(job.clone()).or_default();
        *count += 1;
        state.changed |= *count == 1;
        Following { followed: self.clone(), job: job.clone() }
    }

    /// The jobs that are followed, if they are others than when this was asked last.
    pub(crate) fn news(&self) -> Option<BTreeSet<JobId>> {
        let mut state = self.state();
        mem::take(&mut state.changed).then(|| state.followers.keys().cloned().collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked with it left it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut state = self.followed.state();
        let Some(count) = state.followers.get_mut(&self.job) else { return };
        *count -= 1;
        if *count == 0 {
            state.followers.remove(&self.job);
            state.changed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Followed;
    use hearth_model::JobId;
    use std::collections::BTreeSet;

    #[test]
    fn job_is_followed_until_its_last_follower_goes() {
        let followed = Followed::default();
        let job = JobId::parse("web").expect("a name");
        assert_eq!(followed.news(), None);
        let first = followed.follow(&job);
        assert_eq!(followed.news(), Some(BTreeSet::from([job.clone()])));
        let second = followed.follow(&job);
        drop(first);
        assert_eq!(followed.news(), None, "nothing has changed");
        drop(second);
        assert_eq!(followed.news(), Some(BTreeSet::new()));
    }
}
