//! The daemon's log: on stderr, as text or as JSON lines. A thread of its own writes what has come
//! together, so that neither a slow reader nor a system call a line holds the engine up.

use crate::settings::LogFormat;
use anyhow::Context;
use std::io::{self, BufWriter};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that wait for a reader of stderr: some 2 MB. What comes beyond that is lost, and the daemon
/// goes on.
const LINES_WAITING_MAX: usize = 10_000;

/// Starts logging. What was logged is written once the guard is gone, at the latest.
///
/// # Errors
/// Where the filter makes no sense.
pub(crate) fn start(format: LogFormat, filter: &str, colour: bool) -> anyhow::Result<WorkerGuard> {
    let filter: EnvFilter =
        filter.parse().with_context(|| format!("cannot read the log filter {filter:?}"))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .thread_name("hearth-log")
        .finish(BufWriter::new(io::stderr()));
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colour)
        .with_target(false);
    match format {
        LogFormat::Text => logger.init(),
        LogFormat::Json => logger.json().flatten_event(true).init(),
    }
    Ok(guard)
}

/// Whether a filter makes sense.
///
/// # Errors
/// Where it does not. A sentence.
pub(crate) fn checked(filter: &str) -> Result<(), String> {
    filter.parse::<EnvFilter>().map(drop).map_err(|_| {
        format!("{filter:?} is no log filter; write info, or warn,hearth_daemon=debug")
    })
}
