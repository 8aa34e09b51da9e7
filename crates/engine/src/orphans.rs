//! Instances that the host has and the database does not name: their slots, and their share of the capacity.

use hearth_model::{Identity, InstanceId, Observed, Owner, Slot};
use hearth_planner::{Capacity, Need};
use std::collections::{BTreeMap, BTreeSet};

/// Instances that no job or pool owns yet.
#[derive(Debug, Default)]
pub(crate) struct Orphans(pub(crate) BTreeMap<InstanceId, Observed>);

impl Orphans {
    pub(crate) fn insert(&mut self, id: InstanceId, observed: Observed) {
        self.0.insert(id, observed);
    }

    /// Those that a whole look at the host does not show are gone.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn contains(&self, id: &InstanceId) -> bool {
        self.0.contains_key(id)
    }

    /// Slots that nothing else may have.
    pub(crate) fn slots(&self) -> BTreeSet<Slot> {
        self.0.values().map(|observed| observed.slot).collect()
    }

    /// What they leave of the capacity.
    pub(crate) fn left_of(&self, capacity: Capacity) -> Capacity {
        let runs = |observed: &&Observed| !observed.state.is_exited();
        let needs = self.0.values().filter(runs).filter_map(|observed| observed.created.as_ref());
        let taken =
            needs.map(|made| capacity.need_of(made.resources)).fold(Need::default(), Need::plus);
        let left = capacity.total().minus(taken);
        // What their scratch disks may take is not remembered.
        Capacity { vcpus: left.vcpus, memory_mib: left.memory_mib, ..capacity }
    }

    /// A sentence for each.
    pub(crate) fn sentences(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(id, observed)| {
            let what = match observed.created.as_ref().map(|made| &made.owner) {
                Some(Owner::Job(Identity { job_id, generation, .. })) => format!(
                    "instance {id} of job {job_id}, generation {generation}, is on the host and the \
                     job is not in the database: declare the job to have it taken over"
                ),
                Some(Owner::Pool(_)) => format!(
                    "instance {id} of a pool is on the host and not in the database: declare a job \
                     of its spec to have it taken over"
                ),
                None => format!("instance {id} is on the host and not in the database"),
            };
            format!("{what}; it is left alone")
        })
    }
}
