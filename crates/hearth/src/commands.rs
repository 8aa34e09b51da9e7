//! The commands that ask a daemon. Each is one or two requests and their answer shown.

use crate::args::{Command, ImageCommand, WaitArgs};
use crate::output::Output;
use crate::run::run_job;
use crate::wait::{Goal, Limit, until};
use crate::{declare, exit, follow, forward, status};
use anyhow::bail;
use hearth_api::{Client, ClientError, Endpoint, Job, JobFilter, LogQuery, Prune};

/// Carries out a command. Returns the exit code.
///
/// # Errors
/// Where the daemon cannot be asked or refuses.
pub(crate) async fn run(
    command: Command,
    endpoint: &Endpoint,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    match command {
        Command::Plan(args) => return declare::plan(&args, client, output).await,
        Command::Apply(args) => return declare::apply(args, client, output).await,
        Command::Run(args) => return run_job(*args, client, output).await,
        Command::Ps(args) => output.jobs(&client.jobs(&args.into()).await?),
        Command::Get { job } => {
            let shown = client.job(&job).await?;
            let events = client.events(Some(&job), 10).await?;
            output.job(&shown, &events);
        }
        Command::Status => return status::show(endpoint, client, output).await,
        Command::Stats => output.stats(&client.stats().await?),
        Command::Image { command: ImageCommand::Ls } => output.images(&client.images().await?),
        Command::Image { command: ImageCommand::Prune { all, dry_run } } => {
            output.pruned(&client.prune_images(Prune { all, dry_run }).await?);
        }
        Command::Logs { job, follow, tail, since } => {
            let query = LogQuery { tail, since, ..LogQuery::default() };
            match follow {
                true => follow::follow(client.follow_logs(&job, &query).await?, output).await?,
                false => follow::show(client.logs(&job, &query).await?, output).await?,
            }
        }
        Command::Rm { jobs, all, wait } => {
            let jobs = if all { all_jobs(client).await? } else { jobs };
            return remove(&jobs, wait, client, output).await;
        }
        Command::Stop { jobs, wait } => {
            let stop = async |job: &str| client.stop(job).await;
            return change(&jobs, stop, Goal::Ended, wait, client, output).await;
        }
        Command::Start { jobs, wait } => {
            let start = async |job: &str| client.start(job).await;
            return change(&jobs, start, Goal::Running, wait, client, output).await;
        }
        Command::Restart { jobs, wait } => {
            let restart = async |job: &str| client.restart(job).await;
            return change(&jobs, restart, Goal::Running, wait, client, output).await;
        }
        Command::Events { job, limit, follow: true } => {
            follow::events(client.follow_events(job.as_deref(), limit).await?, output).await?;
        }
        Command::Events { job, limit, follow: false } => {
            output.events(&client.events(job.as_deref(), limit).await?);
        }
        Command::PortForward { job, ports } => {
            forward::forward(&job, ports, client, output).await?
        }
        Command::Version => version(client, output).await,
        Command::Serve(_)
        | Command::Validate(_)
        | Command::Convert(_)
        | Command::Backup { .. }
        | Command::Restore { .. }
        | Command::Doctor { .. }
        | Command::Kernel { .. }
        | Command::Config { .. }
        | Command::Completions { .. }
        | Command::Man { .. } => bail!("this command asks no daemon, which is a bug"),
    }
    Ok(exit::DONE)
}

async fn all_jobs(client: &Client) -> Result<Vec<String>, ClientError> {
    let jobs = client.jobs(&JobFilter::default()).await?;
    Ok(jobs.into_iter().map(|job| job.job_id).collect())
}

/// The exit code of a command about several jobs: it continues after one that fails, and exits with
/// the code of the first error.
pub(crate) struct Tally {
    code: u8,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally { code: exit::DONE }
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// The value; where there is none, the error is shown and counted.
    pub(crate) fn count<T>(&mut self, outcome: anyhow::Result<T>, output: &Output) -> Option<T> {
        outcome
            .inspect_err(|error| {
                output.error(error);
                if self.code == exit::DONE {
                    self.code = exit::code_of(error);
                }
            })
            .ok()
    }
}

/// Asks for the same change of each job, all before the first is waited for.
async fn change(
    jobs: &[String],
    ask: impl AsyncFn(&str) -> Result<Job, ClientError>,
    goal: Goal,
    WaitArgs { wait, timeout }: WaitArgs,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let limit = Limit::new(timeout);
    let mut tally = Tally::new();
    let mut asked = Vec::new();
    for job in jobs {
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
            output.changed(&job);
        }
    }
    Ok(tally.code)
}

async fn remove(
    jobs: &[String],
    WaitArgs { wait, timeout }: WaitArgs,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let limit = Limit::new(timeout);
    let mut tally = Tally::new();
    let mut going = Vec::new();
    for job in jobs {
        match tally.count(client.delete(job).await.map_err(Into::into), output) {
            Some(None) => output.removed(job),
            Some(Some(_)) if wait => going.push(job),
            Some(Some(_)) => output.going(job),
            None => {}
        }
    }
    for job in going {
        if tally.count(until(job, Goal::Gone, limit, client, output).await, output).is_some() {
            output.removed(job);
        }
    }
    Ok(tally.code)
}

async fn version(client: &Client, output: &Output) {
    let daemon = client.health().await.ok();
    let ready = client.readiness().await.ok();
    output.version(daemon.as_ref(), ready.as_ref());
}
