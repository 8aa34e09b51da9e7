//! Desired-state files and request bodies: what is read, and what is refused with which words.
//!
//! One binary for all of it, since linking many takes longer than running them.

mod bodies;
mod cases;
mod formats;
mod golden;
mod line_ends;
mod made;
mod oracle;
mod properties;
mod scalars;
