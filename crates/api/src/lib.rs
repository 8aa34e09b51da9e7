//! What travels over Hearth's HTTP API: the wire types, problem details, and a typed [`Client`].
//!
//! The JSON names are the wire's own; conversions from the model live in the daemon, so that a
//! client needs nothing else of Hearth. This crate never validates a spec: the daemon does.

mod client;
pub mod document;
mod endpoint;
mod error;
mod events;
mod lines;
mod log;
mod problem;
mod wire;

pub use client::{Client, JobFilter, Prune, Tunnel};
pub use endpoint::{Endpoint, EndpointError};
pub use error::ClientError;
pub use events::{FollowedEvents, News};
pub use log::{FollowedLog, LogQuery, LogStream};
pub use problem::{FieldProblem, PROBLEM_JSON, Problem};
pub use wire::{
    Caller, CallerKind, ChangedJob, CreateVm, Declared, Deleted, DesiredFile, DesiredFileStatus,
    DrainedPool, EVENT_STREAM, Event, EventKind, Exit, ExitKind, Health, Heartbeat, Image, Images,
    Job, JobStatus, KilledProcess, KnownBy, LogLine, LogRecord, NDJSON, Page, Plan, Pool, Pruned,
    Readiness, RefusedEntry, SpecChange, Stats, Summary, WarmVm,
};

/// Where the daemon listens and the command line asks, unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8088";

/// The API as an OpenAPI 3.1 document; a test holds the daemon to it.
pub const OPENAPI: &str = include_str!("../openapi.json");
