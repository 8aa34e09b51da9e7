//! Keeps the view true at the cost of what a step changed. What is out of date is collected during the step
//! (in [`Shown`](crate::view::Shown)) and made again after its commit, so that nothing is shown that is not on disk.

use crate::engine::Engine;
use crate::input::Now;
use crate::view::{JobView, PoolMembers, PoolView, View, WarmView};
use hearth_model::{Instance, InstanceId, InstanceState, Job, JobId, PoolKey, PoolTenant, Tenant};
use hearth_planner::{Subjects, status};
use hearth_store::JobNotes;
use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

/// What a step has published: the view as it is now, and the jobs that it shows otherwise than the last.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Everything that is shown.
    pub view: View,
    /// Jobs that are new, shown otherwise, or gone.
    pub jobs: BTreeSet<JobId>,
}

impl Engine {
    /// What is shown, as the database held it behind the last step.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.shown.view
    }

    /// The view, if it is another than when it was taken last.
    pub fn take_publication(&mut self) -> Option<Publication> {
        let shown = &mut self.shown;
        let jobs = mem::take(&mut shown.jobs);
        mem::take(&mut shown.changed).then(|| Publication { view: shown.view.clone(), jobs })
    }

    /// Compares what is shown with a view that is made of the whole state.
    ///
    /// # Errors
    /// A sentence that names the first difference.
    pub fn audit_view(&self) -> Result<(), String> {
        let shown = &self.shown.view;
        let jobs = self.fleet.jobs().iter();
        let fresh = View {
            jobs: jobs.map(|(id, job)| (id.clone(), Arc::new(self.job_view(job)))).collect(),
            pools: self
                .fleet
                .pool_keys()
                .map(|key| (key.clone(), Arc::new(self.pool_members(key))))
                .collect(),
            unidentified: self.left_alone_shown().collect(),
        };
        if let Some((id, job)) = fresh.jobs.iter().find(|(id, job)| shown.job(id) != Some(job)) {
            return Err(format!("job {id} is {job:?} and is shown as {:?}", shown.job(id)));
        }
        if let Some(id) = shown.jobs.keys().find(|id| fresh.job(id).is_none()) {
            return Err(format!("job {id} is shown and gone"));
        }
        if let Some((key, pool)) =
            fresh.pools.iter().find(|(key, pool)| shown.pools.get(key) != Some(pool))
        {
            return Err(format!("a pool is {pool:?} and is shown as {:?}", shown.pools.get(key)));
        }
        if *shown == fresh {
            Ok(())
        } else {
            Err("a pool or an orphan is shown that is gone".to_owned())
        }
    }

    /// Makes what is out of date again. For after a commit.
    pub(crate) fn publish(&mut self) {
        self.shown.stale(self.fleet.due().clone());
        let Subjects { jobs, mut pools } = mem::take(&mut self.shown.stale);
        for id in jobs {
            let view = self.fleet.job(&id).map(|job| {
                // Its pool is shown with the images of its spec, and its claims.
                pools.extend(job.pool_key());
                self.job_view(job)
            });
            let shown = &mut self.shown;
            if shown.view.jobs.get(&id).map(|view| &**view) == view.as_ref() {
                continue;
            }
            match view {
                Some(view) => shown.view.jobs.insert_mut(id.clone(), Arc::new(view)),
                None => drop(shown.view.jobs.remove_mut(&id)),
            }
            shown.changed = true;
            shown.jobs.insert(id);
        }
        for key in pools {
            let pool = self.fleet.has_pool(&key).then(|| self.pool_members(&key));
            let shown = &mut self.shown;
            if shown.view.pools.get(&key).map(|pool| &**pool) == pool.as_ref() {
                continue;
            }
            match pool {
                Some(pool) => shown.view.pools.insert_mut(key, Arc::new(pool)),
                None => drop(shown.view.pools.remove_mut(&key)),
            }
            shown.changed = true;
        }
        if mem::take(&mut self.shown.unidentified_stale) {
            let unidentified: Arc<[String]> = self.left_alone_shown().collect();
            self.shown.changed |= self.shown.view.unidentified != unidentified;
            self.shown.view.unidentified = unidentified;
        }
    }

    /// A job as it is within a step, for the reply to a request.
    pub(crate) fn view_of(&self, now: &Now, id: &JobId) -> Option<JobView> {
        let mut view = self.job_view(self.fleet.job(id)?);
        view.since.get_or_insert_with(|| now.wall.clone());
        Some(view)
    }

    fn job_view(&self, job: &Job) -> JobView {
        let stands = status(&self.fleet, job, self.agenda.waiting(&job.id));
        let notes = self.notes.get(&job.id);
        let mut instances: Vec<InstanceId> = notes
            .map(|notes| notes.past().map(|(instance, _)| instance).collect())
            .unwrap_or_default();
        let mut live: Vec<&Instance> = self.fleet.of_job(&job.id).collect();
        live.sort_by_key(|instance| (instance.created_at, instance.id.clone()));
        instances.extend(live.iter().map(|instance| instance.id.clone()));
        let shown = stands.instance.as_ref().and_then(|id| self.fleet.instance(id));
        let unconfined = shown.is_some_and(|instance| instance.unconfined);
        let recorded = notes.filter(|notes| notes.status == stands.status.as_str());
        JobView {
            job: job.id.clone(),
            tenant: job.tenant.clone(),
            instance: stands.instance,
            unconfined,
            instances,
            status: stands.status,
            reason: stands.reason,
            since: recorded.map(|notes| notes.since.clone()),
            generation: job.generation,
            hash: job.hash(),
            exit_code: notes.and_then(|notes| notes.exit_code),
            exit: notes.and_then(JobNotes::exit),
            spec: job.spec.clone(),
        }
    }

    fn pool_members(&self, key: &PoolKey) -> PoolMembers {
        let living = self.fleet.of_pool(key).filter(|instance| instance.exit().is_none());
        let warm: Vec<WarmView> = living.map(|instance| self.warm_view(instance, key)).collect();
        let count = |status| warm.iter().filter(|one| one.status == status).count();
        let (jobs, target) = self.fleet.demand(key);
        let of_job = self.fleet.job_of_pool(key).map(|job| &job.spec);
        let spec = of_job.or_else(|| self.fleet.of_pool(key).next().map(|instance| &instance.spec));
        let rootfs = spec.and_then(|spec| spec.rootfs.as_ref());
        let pool = PoolView {
            tenant: tenant_of(key),
            hash: key.hash,
            rootfs: rootfs.map(|rootfs| rootfs.as_str().to_owned()),
            jobs,
            target,
            warm: count("warm"),
            starting: count("starting"),
            claims: self.claims.of(key),
        };
        PoolMembers { pool, warm }
    }

    fn warm_view(&self, instance: &Instance, key: &PoolKey) -> WarmView {
        let (status, reason) = warm_status(instance);
        let reason = reason.or_else(|| {
            let health = self.pools.get(key).filter(|_| status != "warm")?;
            Some(format!("the previous one died: {}", health.reason))
        });
        WarmView {
            instance: instance.id.clone(),
            hash: instance.hash,
            tenant: tenant_of(key),
            status,
            reason,
            spec: instance.spec.clone(),
        }
    }

    fn left_alone_shown(&self) -> impl Iterator<Item = String> {
        self.unidentified.values().cloned().chain(self.orphans.sentences())
    }
}

fn tenant_of(key: &PoolKey) -> Option<Tenant> {
    match &key.tenant {
        PoolTenant::Shared => None,
        PoolTenant::Named(tenant) => Some(tenant.clone()),
    }
}

/// The status of a pool instance that has not exited, and why it is not warm.
fn warm_status(instance: &Instance) -> (&'static str, Option<String>) {
    match &instance.state {
        _ if instance.stopping.is_some() => ("stopping", instance.stopping.clone()),
        _ if instance.is_silent() => ("starting", Some("its VMM does not answer".to_owned())),
        _ if instance.is_warm() => ("warm", None),
        Some(InstanceState::Up { ready_detail, .. }) => {
            ("starting", ready_detail.clone().map(|why| format!("not ready: {why}")))
        }
        _ => ("starting", Some("booting".to_owned())),
    }
}
