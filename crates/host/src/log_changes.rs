//! Who waits for a log to grow. The writer of a log is a task of this process, so that a channel in memory is
//! all it takes; there is one for each log that is waited for, and none for the others.

use hearth_model::InstanceId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The logs that are waited for.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogChanges(Arc<Mutex<BTreeMap<InstanceId, watch::Sender<()>>>>);

impl LogChanges {
    /// Changes whenever the log of an instance has grown, from now on.
    pub(crate) fn subscribe(&self, instance: &InstanceId) -> watch::Receiver<()> {
        let mut waited_for = self.waited_for();
        waited_for.retain(|_, changed| changed.receiver_count() > 0);
        let changed = waited_for.entry(instance.clone());
        changed.or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// The log of an instance has grown.
    pub(crate) fn appended(&self, instance: &InstanceId) {
        if let Some(changed) = self.waited_for().get(instance) {
            changed.send_replace(());
        }
    }

    fn waited_for(&self) -> MutexGuard<'_, BTreeMap<InstanceId, watch::Sender<()>>> {
        // A panic while it is held leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the log of one instance has grown; without an instance it does nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogSignal(Option<(LogChanges, InstanceId)>);

impl LogSignal {
    pub(crate) fn of(changes: &LogChanges, instance: &InstanceId) -> LogSignal {
        LogSignal(Some((changes.clone(), instance.clone())))
    }

    pub(crate) fn appended(&self) {
        if let Some((changes, instance)) = &self.0 {
            changes.appended(instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_followers_of_the_log_that_has_grown_are_woken() {
        let changes = LogChanges::default();
        let [one, other] = ["a1", "a2"].map(|id| InstanceId::parse(id).unwrap());
        changes.appended(&one);
        let mut waiting = [changes.subscribe(&one), changes.subscribe(&one)];
        let elsewhere = changes.subscribe(&other);
        assert!(waiting.iter().all(|follower| !follower.has_changed().unwrap()));
        changes.appended(&one);
        assert!(waiting.iter().all(|follower| follower.has_changed().unwrap()));
        assert!(!elsewhere.has_changed().unwrap());
        waiting[0].mark_unchanged();
        changes.appended(&one);
        assert!(waiting[0].has_changed().unwrap());
    }

    #[test]
    fn logs_without_followers_are_forgotten() {
        let changes = LogChanges::default();
        let [one, other] = ["a1", "a2"].map(|id| InstanceId::parse(id).unwrap());
        drop(changes.subscribe(&one));
        let _kept = changes.subscribe(&other);
        assert_eq!(changes.waited_for().keys().collect::<Vec<_>>(), [&other]);
    }
}
