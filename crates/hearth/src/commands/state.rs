//! `hearth backup`, `restore` and `doctor`: what is done about a state directory without its daemon.

use crate::output::{Output, Tone, counted};
use crate::settings::ServeArgs;
use crate::{config, exit, input};
use anyhow::Context;
use clap::Args as ClapArgs;
use hearth_daemon::Restored;
use hearth_daemon::doctor::{self, Finding, Verdict};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Whose state; what is not said is taken as hearth serve takes it.
#[derive(Debug, ClapArgs)]
pub(crate) struct StateArgs {
    /// The state directory [default: the daemon's, as hearth config show says]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// The daemon's config file [default: the one that hearth serve would read]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl From<StateArgs> for ServeArgs {
    fn from(StateArgs { state_dir, config }: StateArgs) -> ServeArgs {
        let flags = state_dir.into_iter().map(|dir| ("state_dir", dir)).collect();
        ServeArgs { config, flags }
    }
}

/// The command line of `hearth backup`.
#[derive(Debug, ClapArgs)]
pub(crate) struct BackupArgs {
    /// Output file; must not exist
    file: PathBuf,
    #[command(flatten)]
    state: StateArgs,
}

/// The command line of `hearth restore`.
#[derive(Debug, ClapArgs)]
pub(crate) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    state: StateArgs,
}

/// The command line of `hearth doctor`.
#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// Make the repairs that it suggests; the daemon must not run
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    state: StateArgs,
}

/// Takes a backup.
///
/// # Errors
/// Where the database can't be read or the file can't be written.
pub(crate) fn backup(
    BackupArgs { file, state }: BackupArgs,
    output: &Output,
) -> anyhow::Result<u8> {
    let state_dir = config::resolve(&state.into())?.settings.into_config().state_dir;
    let contents = hearth_daemon::backup(&state_dir, &file)?;
    print_backed_up(&file, contents.jobs, output);
    Ok(exit::DONE)
}

/// Puts a backup back.
///
/// # Errors
/// Where it is none, or a daemon runs; the database is then as it was.
pub(crate) fn restore(
    RestoreArgs { file, state }: RestoreArgs,
    output: &Output,
) -> anyhow::Result<u8> {
    let state_dir = config::resolve(&state.into())?.settings.into_config().state_dir;
    input::check(&file).with_context(|| format!("cannot read the backup {}", file.display()))?;
    let restored = hearth_daemon::restore(&state_dir, &file)?;
    print_restored(&file, &restored, output);
    Ok(exit::DONE)
}

/// Shows how a state directory stands, and repairs it where that is asked for.
///
/// # Errors
/// Where it can't be looked at, or is to be repaired while a daemon runs.
pub(crate) fn doctor(
    DoctorArgs { repair, state }: DoctorArgs,
    output: &Output,
) -> anyhow::Result<u8> {
    let config = config::resolve(&state.into())?.settings.into_config();
    // Processes are looked at through descriptors that a runtime watches.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let findings = doctor::examine(&config)?;
    print_findings(&findings, repair, output);
    let repairable = findings.iter().filter(|finding| finding.repair().is_some()).count();
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad);
    let mut left = bad.filter(|finding| !repair || finding.repair().is_none()).count();
    if repair && repairable > 0 {
        let failures = doctor::repair(&config, &findings)?;
        left += failures.len();
        print_repaired(repairable - failures.len(), &failures, output);
    }
    let unrepaired = repairable > 0 && !repair;
    Ok(if left > 0 || unrepaired { exit::ERROR } else { exit::DONE })
}

fn print_backed_up(file: &Path, jobs: usize, output: &Output) {
    if !output.printed(&json!({ "file": file, "jobs": jobs })) {
        output.line(format_args!("{}: a backup of {}", file.display(), counted(jobs, "job")));
    }
}

fn print_restored(file: &Path, restored: &Restored, output: &Output) {
    let Restored { contents, replaced } = restored;
    let shown = json!({ "file": file, "jobs": contents.jobs, "replaced": replaced });
    if output.printed(&shown) {
        return;
    }
    output.line(format_args!("restored {} from {}", counted(contents.jobs, "job"), file.display()));
    if let Some(replaced) = replaced {
        output.line(format_args!("the previous database is {}", replaced.display()));
    }
}

/// What `hearth doctor` found, with what it does about it, or could.
fn print_findings(findings: &[Finding], repairs: bool, output: &Output) {
    let word = |finding: &Finding| match finding.verdict {
        Verdict::Good => ("ok", Tone::Good),
        Verdict::Warn => ("warn", Tone::Busy),
        Verdict::Bad => ("bad", Tone::Bad),
    };
    if output.for_programs() {
        let all: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({ "about": finding.about, "verdict": word(finding).0,
                        "finding": finding.sentence, "repair": finding.repair() })
            })
            .collect();
        output.printed(&all);
        return;
    }
    for finding in findings {
        let (word, tone) = word(finding);
        let about = finding.about;
        let line = output.begin().toned(format_args!("{word:<4}"), tone);
        output.print(&line.text(format_args!(" {about:<9} {}", finding.sentence)));
        match finding.repair() {
            Some(repair) if repairs => {
                output.line(format_args!("{:>14} repairing: {repair}", ""));
            }
            Some(repair) => output.line(format_args!("{:>14} --repair would {repair}", "")),
            None => {}
        }
    }
}

/// What `hearth doctor --repair` did.
fn print_repaired(done: usize, failures: &[String], output: &Output) {
    if output.for_programs() {
        output.printed(&json!({ "repaired": done, "failures": failures }));
        return;
    }
    for failure in failures {
        output.print(&output.begin().toned(failure, Tone::Bad));
    }
    output.line(format_args!("repaired {}", counted(done, "thing")));
}
