//! The planner: rules one by one, and what holds for every plan.
//!
//! One binary for all of it, since linking many takes longer than running them.

mod plans;
mod rules;
