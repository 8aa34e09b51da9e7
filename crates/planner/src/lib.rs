//! Decides: [`plan`] takes what is wanted and what is seen and says what to do, [`status`] says
//! how a job stands, [`verdict`] what an exit means. Pure functions: no I/O, no clock, no chance.
//! This crate depends on `hearth-model` alone, and Cargo checks that.

mod backoff;
mod capacity;
mod check;
mod fleet;
mod images;
mod plan;
mod pool;
mod status;
mod verdict;
mod world;

pub use backoff::{STREAK_ENDS_AFTER, backoff};
pub use capacity::{Capacity, Need};
pub use check::{Violation, check};
pub use fleet::{Changed, Fleet, Subject, Subjects};
pub use hearth_model::Status;
pub use images::images_to_remove;
pub use plan::plan;
pub use status::{JobStatus, Reason, status};
pub use verdict::{Verdict, verdict};
pub use world::{
    Busy, Limits, NextCheck, Plan, PoolHealth, Queue, Scope, Step, Target, Waiting, World,
};
