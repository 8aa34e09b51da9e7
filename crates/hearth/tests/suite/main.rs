//! The binary as a process: its API, its command line, and what it survives.
//!
//! One binary for all of it, since linking many takes longer than running them.

mod api;
mod bounds;
mod callers;
mod command_line;
mod declare;
mod desired_file;
mod faults;
mod formats;
#[allow(dead_code, unreachable_pub, missing_docs)]
mod guests;
mod kills;
mod output;
mod power;
mod resource_exhaustion;
mod restart;
mod scale;
mod smoke;
mod state;
mod state_dir;
mod streams;
mod support;
mod syscalls;
mod systemd;
mod takeover;
mod transcripts;
