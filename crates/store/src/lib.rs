//! What the engine remembers: one writer, one commit a step, all or nothing.
//!
//! ```text
//!   Store ──> Sqlite   a file, or in memory
//!        ├──> Memory   what Sqlite does, without it: for simulations in great numbers
//!        └──> Faulty   one of these, with the faults that a simulation asks for
//! ```
//! Both pass one contract suite (`tests/suite/contract.rs`), and the simulation does the same over either.
//!
//! ```text
//!   backup ──▶ sqlite ──▶ store ──▶ changes ──▶ row, event ──▶ exit, json
//!                └──▶ files ──▶ error ──▶ loss
//! ```

mod backup;
mod caller;
mod changes;
mod error;
mod event;
mod exit;
mod faulty;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod json;
mod loss;
mod memory;
mod query;
mod row;
mod sqlite;
mod store;

pub use backup::{backup, gather, restore};
pub use caller::{caller_of_word, caller_word};
pub use changes::{AppliedEntry, Changes, KEY_LIVES, KEYS_MAX, Loaded, Tombstone, Used};
pub use error::StoreError;
pub use event::{Event, EventKind};
pub use exit::{ExitNote, JobExit};
pub use faulty::{Faults, Faulty};
pub use files::{Anchor, saved};
pub use loss::Means;
pub use memory::Memory;
pub use query::{Accepted, EventPage, Events};
pub use row::{InstanceRow, JobNotes, JobRow, Past, ProgressRow};
pub use sqlite::Sqlite;
pub use sqlite::copy::{Contents, inspect};
pub use store::Store;
