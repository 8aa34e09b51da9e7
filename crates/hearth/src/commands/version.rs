//! `hearth version`.

use crate::exit;
use crate::output::Output;
use hearth_api::{Client, Health, Readiness};
use serde_json::json;

/// Shows the versions of this program, and of the daemon if one answers.
///
/// # Errors
/// None: a daemon that does not answer has no version.
pub(crate) async fn version(client: &Client, output: &Output) -> anyhow::Result<u8> {
    let daemon = client.health().await.ok();
    let ready = client.readiness().await.ok();
    print_version(daemon.as_ref(), ready.as_ref(), output);
    Ok(exit::DONE)
}

fn print_version(daemon: Option<&Health>, ready: Option<&Readiness>, output: &Output) {
    let own = env!("CARGO_PKG_VERSION");
    if output.printed(&json!({ "hearth": own, "daemon": daemon, "ready": ready })) {
        return;
    }
    output.line(format_args!("hearth {own}"));
    match daemon {
        Some(health) => output.line(format_args!("daemon {}", health.version)),
        None => output.line("daemon: none answers"),
    }
    if let Some(ready) = ready {
        output.line(format_args!("host   {}", ready.host));
        for warning in &ready.warnings {
            output.line(format_args!("       {}", warning));
        }
    }
}
