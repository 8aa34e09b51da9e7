//! Reconciler, executor and store as one step function: [`Engine::step`] takes the time and what
//! happened, commits what follows from it, and says what to do. No thread, no socket, no clock of
//! its own, so that a simulation runs the real thing.
//!
//! Within a step the order is: take in every input, plan, record the intents, commit once, and only
//! then hand out effects and replies. So nothing is acknowledged or done that is not on disk, and
//! requests that arrive together share one commit.
//!
//! ```text
//!   step ──▶ request, file, observation, execute, fault, retention, … : what each input means
//!              └──▶ engine: the state ──▶ operation, journal, agenda, orphans, … ──▶ input
//! ```
//! The files above `engine` are its rules, those below it do not know it.

mod adoption;
mod agenda;
mod ask;
mod claims;
mod engine;
mod entry;
mod execute;
mod fault;
mod file;
mod health;
mod images;
mod input;
mod journal;
mod observation;
mod oldest;
mod operation;
mod orphans;
mod preconditions;
mod publish;
mod random;
mod read;
mod removal;
mod removals;
mod reply;
mod request;
mod retention;
mod step;
mod view;

pub use ask::{
    ApplyFile, Ask, Call, Changed, CheckReady, Delete, Deleted, Deletions, DiffBase, Drained,
    FileEntry, FileLoad, ImagePlan, Incident, JobChange, LoadPlan, PlanFile, PlanImages,
    PlannedChange, Preconditions, Read, Repeat, Request, Restart, Start, Stop, Upsert, Why,
};
pub use claims::ClaimCounts;
pub use engine::{Config, DiskOvercommit, Engine};
pub use entry::EntryDigest;
pub use hearth_store::{Accepted, Event, EventKind, EventPage, Events, JobExit};
pub use input::{ActionId, Effect, Input, Now};
pub use oldest::Retention;
pub use publish::Publication;
pub use reply::{Recipient, Refusal, Reply, ReplyTo};
pub use view::{JobPage, JobView, List, PoolView, View, WarmView};
