//! The daemon's log: on stderr, as text or as JSON lines.

use crate::settings::LogFormat;
use anyhow::Context;
use std::io;
use tracing_subscriber::EnvFilter;

/// Starts logging.
///
/// # Errors
/// Where the filter makes no sense.
pub(crate) fn start(format: LogFormat, filter: &str, colour: bool) -> anyhow::Result<()> {
    let filter: EnvFilter =
        filter.parse().with_context(|| format!("cannot read the log filter {filter:?}"))?;
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .with_target(false);
    match format {
        LogFormat::Text => logger.init(),
        LogFormat::Json => logger.json().flatten_event(true).init(),
    }
    Ok(())
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
