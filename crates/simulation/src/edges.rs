//! The states of an instance as the engine knows them, and the edges between them that are legal.
//!
//! ```text
//!   Named ──> Booting ──> Held ──> Running ──> Stopping ──> Exited ──> gone
//! ```
//!
//! Looks may miss any of them, so that an edge may lead over some, and none leads back. `Exited` is on disk
//! and permanent, and nothing is gone that has not exited. The others are held in memory: after a start of
//! the daemon, and after a commit that failed, an instance is `Named` until it is looked at again. What is
//! on disk besides goes one way as well: an instance of a pool becomes a job's and stays it, one that is
//! to stop is never spared, and one that was made was made.

use hearth_engine::Engine;
use hearth_model::{Assignment, Instance, InstanceState, Phase};

/// What is known of an instance.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) assignment: Assignment,
    state: State,
    /// Whether it is to stop.
    pub(crate) stopping: bool,
    /// Whether its creation is known to be done.
    created: bool,
}

/// In the order in which an instance goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Named,
    Booting,
    Held,
    Running,
    Stopping,
    Exited,
}

impl State {
    fn of(instance: &Instance) -> State {
        match &instance.state {
            None => State::Named,
            Some(InstanceState::Booting) => State::Booting,
            Some(InstanceState::Up { phase: Phase::Held, .. }) => State::Held,
            Some(InstanceState::Up { phase: Phase::Running, .. }) => State::Running,
            Some(InstanceState::Up { phase: Phase::Stopping, .. }) => State::Stopping,
            Some(InstanceState::Exited(_)) => State::Exited,
        }
    }
}

impl Known {
    /// When it is met for the first time.
    pub(crate) fn of(engine: &Engine, instance: &Instance) -> Known {
        Known {
            assignment: instance.assignment.clone(),
            state: State::of(instance),
            stopping: instance.stopping.is_some(),
            created: engine.saw_created(&instance.id),
        }
    }

    /// What was only in memory is forgotten.
    pub(crate) fn forget(&mut self) {
        if self.state != State::Exited {
            self.state = State::Named;
        }
    }

    /// Takes an edge, if it is legal.
    pub(crate) fn advance(&mut self, engine: &Engine, instance: &Instance) -> Result<(), String> {
        let Instance { id, assignment, .. } = instance;
        let state = State::of(instance);
        if state < self.state {
            return Err(format!("{id} was {:?} and is {state:?}", self.state));
        }
        if self.stopping && instance.stopping.is_none() {
            return Err(format!("{id} was to stop, and is spared"));
        }
        if self.created && !engine.saw_created(id) {
            return Err(format!("{id} was created, and no longer is"));
        }
        self.state = state;
        self.stopping = instance.stopping.is_some();
        self.created = engine.saw_created(id);
        if self.assignment != *assignment {
            if !leads_to(&self.assignment, assignment) {
                return Err(format!(
                    "{id} was for {:?} and is for {assignment:?}",
                    self.assignment
                ));
            }
            self.assignment = assignment.clone();
        }
        Ok(())
    }

    /// Whether the database may forget it.
    pub(crate) fn may_go(&self) -> bool {
        self.state == State::Exited
    }
}

fn leads_to(was: &Assignment, is: &Assignment) -> bool {
    match (was, is) {
        (Assignment::Pool(_), Assignment::Job { .. }) => true,
        // On disk times are in milliseconds.
        (
            Assignment::Job { job: left, run: before, .. },
            Assignment::Job { job: right, run: after, .. },
        ) => left == right && before == after,
        (_, Assignment::Pool(_)) => false,
    }
}
