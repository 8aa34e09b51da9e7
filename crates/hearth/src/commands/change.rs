//! `hearth stop`, `start`, `restart` and `rm`: a change of jobs, which is waited for if that is asked for.

use crate::output::{Output, Tone};
use crate::tally::Tally;
use crate::wait::{Goal, Limit, WaitArgs, until};
use clap::Args as ClapArgs;
use hearth_api::{Client, ClientError, Job, JobFilter};
use serde_json::json;

/// The jobs that a command changes.
#[derive(Debug, ClapArgs)]
pub(crate) struct ChangeArgs {
    /// Their ids
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// The command line of `hearth rm`.
#[derive(Debug, ClapArgs)]
pub(crate) struct RemoveArgs {
    /// Their ids
    #[arg(required_unless_present = "all", value_name = "JOB")]
    jobs: Vec<String>,
    /// All jobs there are
    #[arg(long, conflicts_with = "jobs")]
    all: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Stops jobs. Returns the exit code.
///
/// # Errors
/// None: those of each job are shown.
pub(crate) async fn stop(args: ChangeArgs, client: &Client, output: &Output) -> anyhow::Result<u8> {
    let stop = async |job: &str| client.stop(job).await;
    change(args, stop, Goal::Ended, client, output).await
}

/// Starts jobs. Returns the exit code.
///
/// # Errors
/// None: those of each job are shown.
pub(crate) async fn start(
    args: ChangeArgs,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let start = async |job: &str| client.start(job).await;
    change(args, start, Goal::Running, client, output).await
}

/// Restarts jobs. Returns the exit code.
///
/// # Errors
/// None: those of each job are shown.
pub(crate) async fn restart(
    args: ChangeArgs,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let restart = async |job: &str| client.restart(job).await;
    change(args, restart, Goal::Running, client, output).await
}

/// Asks for the same change of each job, all before the first is waited for.
async fn change(
    ChangeArgs { jobs, wait: WaitArgs { wait, timeout } }: ChangeArgs,
    ask: impl AsyncFn(&str) -> Result<Job, ClientError>,
    goal: Goal,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let limit = Limit::new(timeout);
    let mut tally = Tally::new();
    let mut asked = Vec::new();
    for job in &jobs {
        if let Some(job) = tally.count(ask(job).await.map_err(Into::into), output) {
            asked.push(job);
        }
    }
    for job in asked {
        let shown = match wait {
            true => until(&job.job_id, goal, limit, client, output).await,
            false => Ok(Some(job)),
        };
        if let Some(Some(job)) = tally.count(shown, output) {
            print_changed(&job, output);
        }
    }
    Ok(tally.code())
}

/// Deletes jobs. Returns the exit code.
///
/// # Errors
/// Where the daemon cannot say which jobs there are.
pub(crate) async fn remove(
    RemoveArgs { jobs, all, wait: WaitArgs { wait, timeout } }: RemoveArgs,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let jobs = if all { all_jobs(client).await? } else { jobs };
    let limit = Limit::new(timeout);
    let mut tally = Tally::new();
    let mut going = Vec::new();
    for job in &jobs {
        match tally.count(client.delete(job).await.map_err(Into::into), output) {
            Some(None) => print_removed(job, output),
            Some(Some(_)) if wait => going.push(job),
            Some(Some(_)) => print_going(job, output),
            None => {}
        }
    }
    for job in going {
        if tally.count(until(job, Goal::Gone, limit, client, output).await, output).is_some() {
            print_removed(job, output);
        }
    }
    Ok(tally.code())
}

async fn all_jobs(client: &Client) -> Result<Vec<String>, ClientError> {
    let jobs = client.jobs(&JobFilter::default()).await?;
    Ok(jobs.into_iter().map(|job| job.job_id).collect())
}

/// A job that was just changed.
pub(crate) fn print_changed(job: &Job, output: &Output) {
    if output.printed(job) {
        return;
    }
    let reason = job.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let line = output.begin().text(format_args!("{} ", job.job_id));
    output.print(&line.toned(job.status, Tone::of_status(job.status)).text(reason));
}

fn print_removed(job: &str, output: &Output) {
    if !output.printed(&json!({ "job_id": job, "gone": true })) {
        output.line(format_args!("{job} deleted"));
    }
}

fn print_going(job: &str, output: &Output) {
    if !output.printed(&json!({ "job_id": job, "gone": false })) {
        output.line(format_args!("{job} stopping; it is deleted once it has stopped"));
    }
}
