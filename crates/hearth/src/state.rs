//! `hearth backup`, `restore` and `doctor`: what is done about a state directory without its daemon.

use crate::output::Output;
use crate::settings::ServeArgs;
use crate::{config, exit, input};
use anyhow::Context;
use hearth_daemon::doctor::{self, Verdict};
use std::path::Path;

/// Takes a backup.
///
/// # Errors
/// Where the database can't be read or the file can't be written.
pub(crate) fn backup(file: &Path, args: &ServeArgs, output: &Output) -> anyhow::Result<u8> {
    let state_dir = config::resolve(args)?.settings.into_config().state_dir;
    let contents = hearth_daemon::backup(&state_dir, file)?;
    output.backed_up(file, contents.jobs);
    Ok(exit::DONE)
}

/// Puts a backup back.
///
/// # Errors
/// Where it is none, or a daemon runs; the database is then as it was.
pub(crate) fn restore(file: &Path, args: &ServeArgs, output: &Output) -> anyhow::Result<u8> {
    let state_dir = config::resolve(args)?.settings.into_config().state_dir;
    input::check(file).with_context(|| format!("cannot read the backup {}", file.display()))?;
    let restored = hearth_daemon::restore(&state_dir, file)?;
    output.restored(file, &restored);
    Ok(exit::DONE)
}

/// Shows how a state directory stands, and repairs it where that is asked for.
///
/// # Errors
/// Where it can't be looked at, or is to be repaired while a daemon runs.
pub(crate) fn doctor(repair: bool, args: &ServeArgs, output: &Output) -> anyhow::Result<u8> {
    let config = config::resolve(args)?.settings.into_config();
    // Processes are looked at through descriptors that a runtime watches.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let findings = doctor::examine(&config)?;
    output.findings(&findings, repair);
    let repairable = findings.iter().filter(|finding| finding.repair().is_some()).count();
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad);
    let mut left = bad.filter(|finding| !repair || finding.repair().is_none()).count();
    if repair && repairable > 0 {
        let failures = doctor::repair(&config, &findings)?;
        left += failures.len();
        output.repaired(repairable - failures.len(), &failures);
    }
    let unrepaired = repairable > 0 && !repair;
    Ok(if left > 0 || unrepaired { exit::ERROR } else { exit::DONE })
}
