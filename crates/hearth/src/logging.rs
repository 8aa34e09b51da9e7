//! The daemon's log: on stderr, as text or as JSON lines. A thread of its own writes what has come
//! together, so that neither a slow reader nor a system call a line holds the engine up.

use anyhow::Context;
use hearth_model::text::{plain, plain_json, visible};
use std::io::{self, BufWriter, Write};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that wait for a reader of stderr: some 2 MB. Lines beyond that are lost, and the daemon
/// continues.
const LINES_WAITING_MAX: usize = 10_000;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

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
        .with_writer(move || Plain { writer: writer.clone(), format, colour })
        .with_ansi(colour)
        .with_target(false);
    match format {
        LogFormat::Text => logger.init(),
        LogFormat::Json => logger.json().flatten_event(true).init(),
    }
    Ok(guard)
}

/// Writes events with every character in them seen: names and reasons come from others, and a log is
/// read on terminals.
struct Plain {
    writer: NonBlocking,
    format: LogFormat,
    colour: bool,
}

impl Write for Plain {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let shown = match self.format {
            LogFormat::Json => plain_json(&text),
            // The subscriber has escaped what is not its own colours.
            LogFormat::Text if self.colour => visible(&text),
            LogFormat::Text => plain(&text),
        };
        self.writer.write_all(shown.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Whether a filter makes sense.
///
/// # Errors
/// Where it does not. A sentence.
pub(crate) fn checked(filter: &str) -> Result<(), String> {
    filter.parse::<EnvFilter>().map(drop).map_err(|_| {
        format!("{filter:?} is not a log filter; write info, or warn,hearth_daemon=debug")
    })
}
