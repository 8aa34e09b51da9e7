//! `hearth serve`.

use crate::output::Output;
use crate::settings::ServeArgs;
use crate::{config, logging};
use anyhow::Context;
use std::time::Duration;

/// Threads for files: twice as many as microVMs that boot at once, each of which waits in one for its
/// Firecracker. The runtime's own bound is 512, and each thread that ever was takes about a megabyte
/// of memory.
const FILE_THREADS_MAX: usize = 16;

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Where it cannot start.
pub(crate) fn serve(args: ServeArgs, output: &Output) -> anyhow::Result<u8> {
    let config::Resolved { settings, .. } = config::resolve(&args)?;
    let _written_at_the_end =
        logging::start(settings.log_format, &settings.log, output.colours_errors())?;
    let config = settings.into_config();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS_MAX)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let daemon = hearth_daemon::start(config).await?;
        for warning in &daemon.host_facts().warnings {
            tracing::warn!("{warning}");
        }
        output.serving(daemon.address(), &daemon.host_facts().description);
        daemon.run().await?;
        output.ended();
        anyhow::Ok(())
    })?;
    // What still runs is told to go; nothing waits for it.
    runtime.shutdown_timeout(Duration::from_millis(500));
    Ok(0)
}
