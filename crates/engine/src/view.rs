//! What is shown of the state.

use crate::engine::Engine;
use crate::input::{JobView, List, Now, PoolView, Reply, StatsView, WarmView};
use hearth_model::{Instance, InstanceId, InstanceState, Job, JobId, PoolKey, PoolTenant, Tenant};
use hearth_planner::{World, status};
use hearth_store::JobNotes;
use std::ops::Bound;

impl Engine {
    pub(crate) fn view(&self, world: &World<'_>, job: &Job, now: &Now) -> JobView {
        let stands = status(world, job, self.agenda.waiting(&job.id));
        let notes = self.notes.get(&job.id);
        let mut instances: Vec<InstanceId> = notes
            .map(|notes| notes.past().map(|(instance, _)| instance).collect())
            .unwrap_or_default();
        let mut live: Vec<&Instance> = self.fleet.of_job(&job.id).collect();
        live.sort_by_key(|instance| (instance.created_at, instance.id.clone()));
        instances.extend(live.iter().map(|instance| instance.id.clone()));
        let since = notes
            .filter(|notes| notes.status == stands.status.as_str())
            .map_or_else(|| now.wall.clone(), |notes| notes.since.clone());
        JobView {
            job: job.id.clone(),
            tenant: job.tenant.clone(),
            instance: stands.instance,
            instances,
            status: stands.status,
            reason: stands.reason,
            since,
            generation: job.generation,
            hash: job.hash(),
            exit_code: notes.and_then(|notes| notes.exit_code),
            exit: notes.and_then(JobNotes::exit),
            spec: job.spec.clone(),
        }
    }

    pub(crate) fn view_of(&self, now: &Now, id: &JobId) -> Option<JobView> {
        let world = self.world(now.mono);
        self.fleet.job(id).map(|job| self.view(&world, job, now))
    }

    pub(crate) fn views(&self, now: &Now) -> Vec<JobView> {
        let world = self.world(now.mono);
        self.fleet.jobs().values().map(|job| self.view(&world, job, now)).collect()
    }

    /// A page of the jobs that `list` asks for. Cursors are ids, so that a page is where it was
    /// whatever was made or deleted before it.
    pub(crate) fn page(&self, now: &Now, list: &List) -> Reply {
        let world = self.world(now.mono);
        let behind = list.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = self
            .fleet
            .jobs()
            .range((behind, Bound::Unbounded))
            .map(|(_, job)| job)
            .filter(|job| list.selector.matches(&job.tenant, &job.spec))
            .map(|job| self.view(&world, job, now))
            .filter(|view| list.statuses.is_empty() || list.statuses.contains(&view.status));
        let jobs = found.by_ref().take(list.limit).collect();
        Reply::Jobs { jobs, more: found.next().is_some() }
    }

    pub(crate) fn stats(&self, now: &Now) -> StatsView {
        let warm_pool: Vec<WarmView> = self
            .fleet
            .pool_keys()
            .flat_map(|key| self.fleet.of_pool(key).map(move |instance| (instance, key)))
            .filter(|(instance, _)| instance.exit().is_none())
            .map(|(instance, key)| self.warm_view(instance, key))
            .collect();
        let pools = self.fleet.pool_keys().map(|key| self.pool_view(key)).collect();
        let left_alone = self.unidentified.values().cloned().chain(self.orphans.sentences());
        StatsView { jobs: self.views(now), pools, warm_pool, unidentified: left_alone.collect() }
    }

    fn pool_view(&self, key: &PoolKey) -> PoolView {
        let living = || self.fleet.of_pool(key).filter(|instance| instance.exit().is_none());
        let count = |status| living().filter(|instance| warm_status(instance).0 == status).count();
        let (jobs, target) = self.fleet.demand(key);
        let of_job = self.fleet.job_of_pool(key).map(|job| &job.spec);
        let spec = of_job.or_else(|| self.fleet.of_pool(key).next().map(|instance| &instance.spec));
        let rootfs = spec.and_then(|spec| spec.rootfs.as_ref());
        PoolView {
            tenant: tenant_of(key),
            hash: key.hash,
            rootfs: rootfs.map(|rootfs| rootfs.as_str().to_owned()),
            jobs,
            target,
            warm: count("warm"),
            starting: count("starting"),
            claims: self.claims.of(key),
        }
    }

    fn warm_view(&self, instance: &Instance, key: &PoolKey) -> WarmView {
        let (status, reason) = warm_status(instance);
        let reason = reason.or_else(|| {
            let health = self.pools.get(key).filter(|_| status != "warm")?;
            Some(format!("the one before died: {}", health.reason))
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
