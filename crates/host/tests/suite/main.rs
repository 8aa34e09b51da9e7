//! Hosts: one contract, and what goes wrong beneath the real one.
//!
//! One binary for all of it, since linking many takes longer than running them.

mod bare_guests;
#[allow(dead_code, unreachable_pub, missing_docs)]
mod contract;
mod faults;
mod linux_guests;
mod sim;
mod support;
