//! The engine over the simulated host, with time that the test moves.
//!
//! One binary for all of it, since linking many takes longer than running them.

mod callers;
mod copies;
mod declared;
mod images;
mod orphans;
mod requests;
mod retention;
mod rows;
mod scenarios;
mod views;
#[allow(dead_code, unreachable_pub, missing_docs)]
mod world;
