//! A Firecracker without KVM, for tests: a process that takes Firecracker's arguments, speaks its API
//! over its Unix socket and ends as it does, and that goes wrong where a test says so.
//!
//! ```text
//!   test ──Fake::script──> faults.json ──read at each start──> the process
//!     ^                                                            │
//!     └──Fake::processes, Fake::calls <── processes, calls <───────┘
//! ```
//!
//! What it says and does was learned from the real binary (1.12.1), and one suite runs against both:
//! `crates/firecracker/tests/contract.rs`. What is written there holds for both; what Hearth doesn't use
//! is not here. Bare guests run: the few instructions that they are made of are interpreted (`cpu`).
//! A guest with an initramfs is taken for one with Hearth's init, and what the init says is said for it
//! (`guest`), without a kernel, a root file system or a program in it.
//!
//! It is found beside the test that uses it, in the target directory; cargo builds it when its package
//! is among those that are tested.

mod api;
mod arguments;
mod cpu;
mod guest;
pub mod kernels;
mod loader;
mod output;
mod process;
mod script;
mod server;
mod shared;
mod vm;

pub use process::run;
pub use script::{Call, Does, Effect, Fake, Fault, On};
