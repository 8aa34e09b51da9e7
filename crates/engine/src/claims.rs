//! How often a pool had an instance for a job, counted since the engine's start.

use hearth_model::PoolKey;
use std::collections::BTreeMap;

/// The claims of all pools. Not stored: a daemon that has just started has seen none.
#[derive(Debug, Default)]
pub(crate) struct Claims(BTreeMap<PoolKey, ClaimCounts>);

/// The claims of one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimCounts {
    /// Jobs that got a warm instance.
    pub hits: u64,
    /// Jobs that booted an instance of their own, since none was warm.
    pub misses: u64,
}

impl Claims {
    pub(crate) fn hit(&mut self, key: PoolKey) {
        self.0.entry(key).or_default().hits += 1;
    }

    pub(crate) fn miss(&mut self, key: PoolKey) {
        self.0.entry(key).or_default().misses += 1;
    }

    pub(crate) fn of(&self, key: &PoolKey) -> ClaimCounts {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// Forgets pools that are gone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&PoolKey) -> bool) {
        self.0.retain(|key, _| is_there(key));
    }
}
