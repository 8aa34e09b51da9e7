//! `hearth serve`.

use crate::args::{HostKind, ServeArgs};
use crate::logging;
use crate::output::Output;
use anyhow::Context;
use hearth_daemon::{Config, DesiredPath, HostChoice, MassDeletion, Overcommit, default_state_dir};
use std::path::PathBuf;
use std::time::Duration;

/// The seed's own variable for the desired-state file.
const SEED_DESIRED_ENV: &str = "FC_EX_CP_DESIRED_VMS_CONFIG";

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Where it cannot start.
pub(crate) fn serve(args: ServeArgs, output: &Output) -> anyhow::Result<u8> {
    logging::start(args.log_format, &args.log, output.colours_errors())?;
    let config = config(args);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
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

fn config(args: ServeArgs) -> Config {
    let from_seed =
        || std::env::var_os(SEED_DESIRED_ENV).filter(|path| !path.is_empty()).map(PathBuf::from);
    let desired = args.desired.filter(|path| !path.as_os_str().is_empty()).or_else(from_seed);
    Config {
        listen: args.listen,
        state_dir: args.state_dir.unwrap_or_else(default_state_dir),
        images: args.images,
        desired: desired.map_or(DesiredPath::Default, DesiredPath::Named),
        deletions: if args.allow_delete { MassDeletion::Allowed } else { MassDeletion::Held },
        host: match args.host {
            HostKind::Linux => HostChoice::Linux { firecracker: args.firecracker },
            HostKind::Sim => HostChoice::Sim { boot: Duration::from_millis(args.sim_boot_ms) },
        },
        overcommit: Overcommit {
            vcpus_per_cpu: args.vcpus_per_cpu,
            memory_reserve_mib: args.memory_reserve_mb,
        },
    }
}
