//! What is shown of the state: a value that never changes, made by each step of what it has changed, after
//! its commit. A clone shares all of it, so that a reader keeps one and waits for no step.

use crate::claims::ClaimCounts;
use hearth_model::{
    Generation, InstanceId, JobId, Mono, PoolKey, Selector, Spec, SpecHash, Status, Tenant,
};
use hearth_planner::{Reason, Subjects};
use hearth_store::JobExit;
use rpds::RedBlackTreeMapSync;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// Everything that is shown, as it was after one commit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    pub(crate) jobs: RedBlackTreeMapSync<JobId, Arc<JobView>>,
    pub(crate) pools: RedBlackTreeMapSync<PoolKey, Arc<PoolMembers>>,
    pub(crate) unidentified: Arc<[String]>,
}

/// Which jobs, and how many of them.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Only jobs behind this one, which need not be there any more.
    pub after: Option<JobId>,
    /// At most this many.
    pub limit: usize,
    /// Only jobs with one of these statuses; with any if empty.
    pub statuses: Vec<Status>,
    /// Only jobs that this selects.
    pub selector: Selector,
}

/// A page of the jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPage {
    /// The jobs, by id.
    pub jobs: Vec<Arc<JobView>>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// A pool with its instances.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PoolMembers {
    pub(crate) pool: PoolView,
    pub(crate) warm: Vec<WarmView>,
}

impl View {
    /// One job.
    #[must_use]
    pub fn job(&self, id: &JobId) -> Option<&Arc<JobView>> {
        self.jobs.get(id)
    }

    /// All jobs, by id.
    pub fn jobs(&self) -> impl Iterator<Item = &JobView> {
        self.jobs.values().map(|job| &**job)
    }

    /// How many jobs there are.
    #[must_use]
    pub fn jobs_count(&self) -> usize {
        self.jobs.size()
    }

    /// A page of the jobs that `list` asks for. Cursors are ids, so that a page is where it was
    /// whatever was made or deleted before it.
    #[must_use]
    pub fn page(&self, list: &List) -> JobPage {
        let behind = list.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let asked = |view: &&Arc<JobView>| {
            list.selector.matches(&view.tenant, &view.spec)
                && (list.statuses.is_empty() || list.statuses.contains(&view.status))
        };
        let behind = self.jobs.range::<JobId, _>((behind, Bound::Unbounded));
        let mut found = behind.map(|(_, view)| view).filter(asked);
        let jobs = found.by_ref().take(list.limit).cloned().collect();
        JobPage { jobs, more: found.next().is_some() }
    }

    /// All pools that have instances or should have some.
    pub fn pools(&self) -> impl Iterator<Item = &PoolView> {
        self.pools.values().map(|pool| &pool.pool)
    }

    /// All pool instances.
    pub fn warm_pool(&self) -> impl Iterator<Item = &WarmView> {
        self.pools.values().flat_map(|pool| &pool.warm)
    }

    /// What the last look at the host found and could not identify.
    #[must_use]
    pub fn unidentified(&self) -> &[String] {
        &self.unidentified
    }
}

/// A job as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct JobView {
    /// Its name.
    pub job: JobId,
    /// Its tenant.
    pub tenant: Tenant,
    /// The instance that serves it or will.
    pub instance: Option<InstanceId>,
    /// Whether the VMM of that instance runs unconfined.
    pub unconfined: bool,
    /// Its instances past and present, newest last, for their logs.
    pub instances: Vec<InstanceId>,
    /// What it does.
    pub status: Status,
    /// Why, or what it waits for.
    pub reason: Option<Reason>,
    /// Since when, RFC 3339 UTC. `None` where the status is newer than what is recorded, and so from now.
    pub since: Option<String>,
    /// Its generation.
    pub generation: Generation,
    /// The hash of its spec, where the images are known.
    pub hash: Option<SpecHash>,
    /// How its last instance's command ended: the code, where it exited with one.
    pub exit_code: Option<u8>,
    /// How its last instance of this generation exited.
    pub exit: Option<JobExit>,
    /// What it runs.
    pub spec: Arc<Spec>,
}

/// A pool as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// Whose jobs may claim from it; `None`: those whose tenant was not given.
    pub tenant: Option<Tenant>,
    /// What its instances are made of.
    pub hash: SpecHash,
    /// The root filesystem of its instances, if they have one.
    pub rootfs: Option<String>,
    /// How many jobs want spare instances of it.
    pub jobs: usize,
    /// How many instances it is to have.
    pub target: u32,
    /// How many can be claimed now.
    pub warm: usize,
    /// How many are on their way.
    pub starting: usize,
    /// Claims since the engine's start.
    pub claims: ClaimCounts,
}

/// A pool instance as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmView {
    /// Its suffix.
    pub instance: InstanceId,
    /// What it is made of.
    pub hash: SpecHash,
    /// Whose jobs may claim it; `None`: those whose tenant was not given.
    pub tenant: Option<Tenant>,
    /// `warm` when it can be claimed, else `starting` or `stopping`.
    pub status: &'static str,
    /// Why, where it is not warm.
    pub reason: Option<String>,
    /// What it runs.
    pub spec: Arc<Spec>,
}

impl JobView {
    /// Why, or what it waits for, as a sentence at a time.
    #[must_use]
    pub fn reason_at(&self, now: Mono) -> Option<String> {
        self.reason.as_ref().map(|reason| reason.at(now))
    }
}

/// The view, and what of it is out of date.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) view: View,
    /// Jobs and pools that may have to be shown otherwise.
    pub(crate) stale: Subjects,
    /// Whether what could not be identified may be another.
    pub(crate) unidentified_stale: bool,
    /// Whether the view is another than the last that was taken, and in which jobs.
    pub(crate) changed: bool,
    pub(crate) jobs: BTreeSet<JobId>,
}

impl Shown {
    /// These may have to be shown otherwise.
    pub(crate) fn stale(&mut self, subjects: Subjects) {
        self.stale.jobs.extend(subjects.jobs);
        self.stale.pools.extend(subjects.pools);
    }

    /// These jobs may have to be shown otherwise.
    pub(crate) fn stale_jobs(&mut self, jobs: impl IntoIterator<Item = JobId>) {
        self.stale.jobs.extend(jobs);
    }

    /// What could not be identified may be another.
    pub(crate) fn stale_unidentified(&mut self) {
        self.unidentified_stale = true;
    }

    /// Everything that is shown, or was, may have to be shown otherwise.
    pub(crate) fn stale_all(&mut self) {
        self.stale.jobs.extend(self.view.jobs.keys().cloned());
        self.stale.pools.extend(self.view.pools.keys().cloned());
        self.unidentified_stale = true;
    }
}
