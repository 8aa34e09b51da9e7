//! The operation of each instance: what is being done to it, and when the next action may follow.
//!
//! ```text
//!            begin                finish
//!   Idle ──────────▶ InFlight ──────────────▶ Idle ──cool_down──────────▶ Cooldown
//!    ▲                  │                      ├─────await_confirmation──▶ AwaitingConfirmation
//!    │                  │ cancel               │
//!    ├──────────────────┘                      └─────begin──▶ …
//!    ├── release: time is up, and a later observation could show what the action did ── both waits
//!    └── confirm: a new state was observed ── AwaitingConfirmation alone
//! ```
//!
//! `finish` is the host's answer. A failed action is followed by `cool_down`; a stop or an identity
//! whose effect was not observed yet by `await_confirmation`; anything else leaves the instance idle.
//! `cancel` drops an action whose commit failed: the host never gets it.
//!
//! Nothing here is stored. After a restart every instance is idle, and the first observation says what
//! became of the actions of the previous daemon. What is known of the creation is in
//! [`hearth_model::Creation`], which the row of the instance holds.

use crate::input::ActionId;
use hearth_model::{Action, InstanceId, Mono};
use hearth_planner::Busy;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// From a failed action on an instance to the next one: repeating it at once rarely helps, and each
/// failure is an event.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long to wait for the effect of an action before it is repeated. Longer than two intervals between
/// observations, so that at least one of them falls between two attempts and can show that nothing is
/// left to act on.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);

/// What is being done to an instance. The planner leaves it alone unless it is idle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Operation {
    /// Nothing.
    #[default]
    Idle,
    /// The host carries out an action.
    InFlight(ActionId, Action),
    /// An action failed.
    Cooldown {
        /// Earliest time of the next action.
        until: Mono,
    },
    /// An action succeeded, and its effect was not observed yet.
    AwaitingConfirmation {
        /// When to stop waiting and repeat it.
        until: Mono,
    },
}

/// The transitions. Each takes the operation and returns what follows.
///
/// # Panics
/// On a transition that the diagram of this module does not have.
impl Operation {
    fn begin(self, id: ActionId, action: Action) -> Operation {
        match self {
            Operation::Idle => Operation::InFlight(id, action),
            busy => panic!("{action:?} began while the instance was busy: {busy:?}"),
        }
    }

    /// Ends an action, by the host's answer or because its commit failed.
    fn end(self, id: ActionId) -> (Operation, Action) {
        match self {
            Operation::InFlight(current, action) if current == id => (Operation::Idle, action),
            other => panic!("{id:?} ended during {other:?}"),
        }
    }

    fn cool_down(self, until: Mono) -> Operation {
        match self {
            Operation::Idle => Operation::Cooldown { until },
            other => panic!("a cooldown began during {other:?}"),
        }
    }

    fn await_confirmation(self, until: Mono) -> Operation {
        match self {
            Operation::Idle => Operation::AwaitingConfirmation { until },
            other => panic!("a wait for confirmation began during {other:?}"),
        }
    }

    /// A new state was observed.
    fn confirm(self) -> Operation {
        match self {
            Operation::AwaitingConfirmation { .. } => Operation::Idle,
            other => other,
        }
    }

    /// The wait is over.
    fn release(self) -> Operation {
        match self {
            Operation::Cooldown { .. } | Operation::AwaitingConfirmation { .. } => Operation::Idle,
            other => panic!("{other:?} was released"),
        }
    }

    /// The wait lasts until `until`.
    fn extend(self, until: Mono) -> Operation {
        match self {
            Operation::Cooldown { .. } => Operation::Cooldown { until },
            Operation::AwaitingConfirmation { .. } => Operation::AwaitingConfirmation { until },
            other => panic!("{other:?} was extended"),
        }
    }

    /// When the wait ends, if this is one.
    fn until(&self) -> Option<Mono> {
        match self {
            Operation::Cooldown { until } | Operation::AwaitingConfirmation { until } => {
                Some(*until)
            }
            Operation::Idle | Operation::InFlight(..) => None,
        }
    }
}

/// The operation of an instance, and when its last action ended: an observation that began earlier says
/// neither that the instance is missing nor that it still exists.
#[derive(Debug, Default)]
struct Entry {
    operation: Operation,
    last_action_ended_at: Option<Mono>,
}

/// The operations of all instances, and of those removed since the last whole observation began.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    entries: BTreeMap<InstanceId, Entry>,
    /// The entries in flight, by action. Derived.
    in_flight: BTreeMap<ActionId, InstanceId>,
    /// The entries that wait, by when that ends. Derived.
    waits: BTreeSet<(Mono, InstanceId)>,
    last_id: u64,
}

impl Operations {
    /// Begins an action on an idle instance.
    ///
    /// # Panics
    /// If the instance is busy.
    pub(crate) fn begin(&mut self, action: Action) -> ActionId {
        self.last_id += 1;
        let (id, instance) = (ActionId(self.last_id), action.instance().clone());
        self.change(&instance, |operation| operation.begin(id, action));
        id
    }

    /// The host has answered: the instance is idle again. `None` for an unknown action.
    pub(crate) fn finish(&mut self, id: ActionId, now: Mono) -> Option<Action> {
        let action = self.cancel(id)?;
        self.entries.entry(action.instance().clone()).or_default().last_action_ended_at = Some(now);
        Some(action)
    }

    /// The host never gets this action: the instance is as before. `None` for an unknown action.
    pub(crate) fn cancel(&mut self, id: ActionId) -> Option<Action> {
        let instance = self.in_flight.get(&id)?.clone();
        let mut ended = None;
        self.change(&instance, |operation| {
            let (next, action) = operation.end(id);
            ended = Some(action);
            next
        });
        ended
    }

    /// The last action on an instance failed.
    pub(crate) fn cool_down(&mut self, instance: &InstanceId, now: Mono) {
        self.change(instance, |operation| operation.cool_down(now.after(RETRY_AFTER)));
    }

    /// The effect of the last action on an instance was not observed yet.
    pub(crate) fn await_confirmation(&mut self, instance: &InstanceId, now: Mono) {
        self.change(instance, |operation| operation.await_confirmation(now.after(CONFIRM_TIMEOUT)));
    }

    /// A new state of an instance was observed. Returns whether that ends a wait.
    pub(crate) fn confirm(&mut self, instance: &InstanceId) -> bool {
        let awaits = matches!(
            self.entries.get(instance).map(|entry| &entry.operation),
            Some(Operation::AwaitingConfirmation { .. })
        );
        if awaits {
            self.change(instance, Operation::confirm);
        }
        awaits
    }

    /// Releases the instances whose wait is over, once an observation that began after their last action
    /// could show what it did; until then a guest that took its identity may seem not to have it, and
    /// its job would run in another as well. Returns them.
    pub(crate) fn release_due(&mut self, now: Mono, observed_at: Option<Mono>) -> Vec<InstanceId> {
        let due = |(until, _): &&(Mono, InstanceId)| *until <= now;
        let due: Vec<_> = self.waits.iter().take_while(due).map(|(_, id)| id.clone()).collect();
        let (extended, released): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|id| observed_at < self.last_action_ended_at(id));
        for id in &extended {
            self.change(id, |operation| operation.extend(now.after(RETRY_AFTER)));
        }
        for id in &released {
            self.change(id, Operation::release);
        }
        released
    }

    /// When the next wait is over.
    pub(crate) fn next_release(&self) -> Option<Mono> {
        self.waits.first().map(|(until, _)| *until)
    }

    /// Whether the host carries out an action on this instance.
    pub(crate) fn is_in_flight(&self, instance: &InstanceId) -> bool {
        let entry = self.entries.get(instance);
        entry.is_some_and(|entry| matches!(entry.operation, Operation::InFlight(..)))
    }

    /// Whether an action on this instance ended at `began` or later: an observation of that time says
    /// nothing of what the action did.
    pub(crate) fn ended_since(&self, instance: &InstanceId, began: Mono) -> bool {
        self.last_action_ended_at(instance).is_some_and(|at| at >= began)
    }

    /// Forgets removed instances that no observation can still show: a whole one began at `began`.
    pub(crate) fn retain(&mut self, began: Mono, is_known: impl Fn(&InstanceId) -> bool) {
        self.entries.retain(|id, entry| {
            is_known(id)
                || entry.operation != Operation::Idle
                || entry.last_action_ended_at.is_some_and(|at| at >= began)
        });
    }

    fn last_action_ended_at(&self, instance: &InstanceId) -> Option<Mono> {
        self.entries.get(instance)?.last_action_ended_at
    }

    /// The one place where an operation changes, which keeps the indexes true.
    fn change(&mut self, instance: &InstanceId, transition: impl FnOnce(Operation) -> Operation) {
        let operation = &mut self.entries.entry(instance.clone()).or_default().operation;
        let before = std::mem::take(operation);
        if let Operation::InFlight(id, _) = &before {
            self.in_flight.remove(id);
        }
        if let Some(until) = before.until() {
            self.waits.remove(&(until, instance.clone()));
        }
        *operation = transition(before);
        if let Operation::InFlight(id, _) = operation {
            self.in_flight.insert(*id, instance.clone());
        }
        if let Some(until) = operation.until() {
            self.waits.insert((until, instance.clone()));
        }
    }
}

impl Busy for Operations {
    fn is_busy(&self, instance: &InstanceId) -> bool {
        self.entries.get(instance).is_some_and(|entry| entry.operation != Operation::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_model::Signal;

    fn at(seconds: u64) -> Mono {
        Mono(Duration::from_secs(seconds))
    }

    fn instance() -> InstanceId {
        InstanceId::parse("a").unwrap()
    }

    fn stop() -> Action {
        Action::Stop { instance: instance(), signal: Signal::TERM, timeout_s: 10 }
    }

    /// With an action that has ended at 1 s.
    fn after_action() -> Operations {
        let mut operations = Operations::default();
        let id = operations.begin(stop());
        assert_eq!(operations.finish(id, at(1)), Some(stop()));
        operations
    }

    fn cooling_down() -> Operations {
        let mut operations = after_action();
        operations.cool_down(&instance(), at(1));
        operations
    }

    fn awaiting() -> Operations {
        let mut operations = after_action();
        operations.await_confirmation(&instance(), at(1));
        operations
    }

    #[test]
    fn action_is_in_flight_until_the_host_answers() {
        let mut operations = Operations::default();
        assert!(!operations.is_busy(&instance()));
        let id = operations.begin(stop());
        assert!(operations.is_busy(&instance()) && operations.is_in_flight(&instance()));
        assert_eq!(operations.next_release(), None);
        assert_eq!(operations.finish(id, at(1)), Some(stop()));
        assert!(!operations.is_busy(&instance()) && !operations.is_in_flight(&instance()));
        assert_eq!(operations.finish(id, at(2)), None, "it has ended already");
        assert!(operations.ended_since(&instance(), at(1)));
        assert!(!operations.ended_since(&instance(), at(2)));
    }

    #[test]
    fn cancelled_action_leaves_no_trace() {
        let mut operations = Operations::default();
        let id = operations.begin(stop());
        assert_eq!(operations.cancel(id), Some(stop()));
        assert!(!operations.is_busy(&instance()));
        assert!(!operations.ended_since(&instance(), at(0)));
        assert_eq!(operations.cancel(id), None);
        let next = operations.begin(stop());
        assert!(next > id, "ids are not reused");
    }

    #[test]
    #[should_panic(expected = "began while the instance was busy")]
    fn second_action_on_a_busy_instance_panics() {
        let mut operations = Operations::default();
        operations.begin(stop());
        operations.begin(stop());
    }

    #[test]
    #[should_panic(expected = "began while the instance was busy")]
    fn action_during_a_cooldown_panics() {
        cooling_down().begin(stop());
    }

    #[test]
    #[should_panic(expected = "a cooldown began during")]
    fn cooldown_of_an_action_in_flight_panics() {
        let mut operations = Operations::default();
        operations.begin(stop());
        operations.cool_down(&instance(), at(1));
    }

    #[test]
    #[should_panic(expected = "a wait for confirmation began during")]
    fn confirmation_of_an_action_in_flight_panics() {
        let mut operations = Operations::default();
        operations.begin(stop());
        operations.await_confirmation(&instance(), at(1));
    }

    #[test]
    fn failed_action_is_not_repeated_before_its_cooldown() {
        let mut operations = cooling_down();
        let end = at(1).after(RETRY_AFTER);
        assert_eq!(operations.next_release(), Some(end));
        assert!(!operations.confirm(&instance()), "a new state does not end a cooldown");
        assert!(operations.is_busy(&instance()) && !operations.is_in_flight(&instance()));
        assert!(operations.release_due(at(1), Some(at(2))).is_empty());
        assert_eq!(operations.release_due(end, Some(at(2))), [instance()]);
        assert!(!operations.is_busy(&instance()));
        assert_eq!(operations.next_release(), None);
    }

    #[test]
    fn wait_lasts_until_an_observation_after_the_action() {
        for mut operations in [cooling_down(), awaiting()] {
            let blind = at(10);
            for observed_at in [None, Some(at(0))] {
                assert!(operations.release_due(blind, observed_at).is_empty());
                assert!(operations.is_busy(&instance()));
                assert_eq!(operations.next_release(), Some(blind.after(RETRY_AFTER)));
            }
            assert_eq!(operations.release_due(at(12), Some(at(1))), [instance()]);
        }
    }

    #[test]
    fn new_state_confirms_an_action() {
        let mut operations = awaiting();
        assert_eq!(operations.next_release(), Some(at(1).after(CONFIRM_TIMEOUT)));
        assert!(operations.confirm(&instance()));
        assert!(!operations.is_busy(&instance()));
        assert_eq!(operations.next_release(), None);
        assert!(!operations.confirm(&instance()), "once");
        let id = operations.begin(stop());
        assert!(!operations.confirm(&instance()), "an action in flight continues");
        assert!(operations.finish(id, at(2)).is_some());
    }

    #[test]
    fn removed_instance_is_remembered_for_older_observations() {
        let mut operations = after_action();
        operations.retain(at(9), |_| true);
        assert!(operations.ended_since(&instance(), at(1)), "it is known");
        operations.retain(at(1), |_| false);
        assert!(operations.ended_since(&instance(), at(1)), "the observation may show it");
        operations.retain(at(2), |_| false);
        assert!(!operations.ended_since(&instance(), at(0)));
        let id = operations.begin(stop());
        operations.retain(at(9), |_| false);
        assert!(operations.finish(id, at(10)).is_some(), "its logs are being removed");
    }
}
