//! The real engine and planner, over SQLite or memory and a simulated machine, driven through schedules
//! of requests and faults that follow from a seed. After every step the invariants of `invariants` are
//! asserted; after the last fault the world must come to rest.
//!
//! ```text
//!   seed ──> Schedule ──> World { Engine, SimState, queue of what is to come } ──> Passed, or a sentence
//!                 └──── smaller ones, while they fail ────┘
//! ```

/// A run makes and drops a great many small things.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod answers;
mod asked;
mod edges;
mod invariants;
mod requests;
mod schedule;
mod shrink;
mod world;

pub use schedule::{Item, Schedule, What};
pub use shrink::smallest;
pub use world::{CrashPoint, Database, Passed, Side, run, run_with_crashes};

/// As [`run`], with a panic of the engine as a failure.
///
/// # Errors
/// The invariant that did not hold, or the panic's message.
pub fn outcome(schedule: &Schedule, database: Database) -> Result<Passed, String> {
    std::panic::catch_unwind(|| run(schedule, database, None))
        .unwrap_or_else(|panic| Err(panic_message(&*panic)))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the engine panicked: {}", text.unwrap_or("without words"))
}
