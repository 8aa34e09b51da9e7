//! Whose output is followed just now. The engine keeps finished jobs for their followers; these are woken when
//! their job is shown otherwise.

use hearth_model::JobId;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The followers of each job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followed(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    followers: BTreeMap<JobId, Followers>,
    /// Whether the set of jobs is another than it was when it was asked for last.
    changed: bool,
}

#[derive(Debug)]
struct Followers {
    count: usize,
    /// Marked when their job is shown otherwise.
    shown: watch::Sender<()>,
}

/// One follower of a job, until it is dropped.
#[derive(Debug)]
pub(crate) struct Following {
    followed: Followed,
    job: JobId,
    shown: watch::Receiver<()>,
}

impl Followed {
    /// One more follower of a job.
    pub(crate) fn follow(&self, job: &JobId) -> Following {
        let mut state = self.state();
        let none = || Followers { count: 0, shown: watch::channel(()).0 };
        let followers = state.followers.entry(job.clone()).or_insert_with(none);
        followers.count += 1;
        let (shown, is_first) = (followers.shown.subscribe(), followers.count == 1);
        state.changed |= is_first;
        Following { followed: self.clone(), job: job.clone(), shown }
    }

    /// These jobs are shown otherwise. Wakes their followers, and no others.
    pub(crate) fn shown(&self, jobs: &BTreeSet<JobId>) {
        let state = self.state();
        let woken = state.followers.iter().filter(|(job, _)| jobs.contains(*job));
        woken.for_each(|(_, followers)| followers.shown.send_replace(()));
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

impl Following {
    /// Waits until the job is shown otherwise than when this was last called, or than at first. Cancel safe.
    pub(crate) async fn shown_otherwise(&mut self) {
        if self.shown.changed().await.is_err() {
            // Its sender is kept for as long as this is.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut state = self.followed.state();
        let Some(followers) = state.followers.get_mut(&self.job) else { return };
        followers.count -= 1;
        if followers.count == 0 {
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
    use std::time::Duration;
    use tokio::time::timeout;

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

    #[tokio::test(start_paused = true)]
    async fn followers_are_woken_by_their_own_job_alone() {
        let followed = Followed::default();
        let [web, api] = ["web", "api"].map(|job| JobId::parse(job).expect("a name"));
        let mut following = followed.follow(&web);
        let mut woken = async || {
            let shown = timeout(Duration::from_secs(3600), following.shown_otherwise());
            shown.await.is_ok()
        };
        followed.shown(&BTreeSet::from([api.clone()]));
        assert!(!woken().await);
        followed.shown(&BTreeSet::from([api, web.clone()]));
        followed.shown(&BTreeSet::from([web]));
        assert!(woken().await);
        assert!(!woken().await, "once for both");
    }
}
