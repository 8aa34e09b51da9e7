//! Waiting for a job to stand as somebody asked.

use crate::exit::TimedOut;
use crate::lifecycle::Lifecycle;
use crate::output::Output;
use crate::span;
use anyhow::bail;
use clap::Args as ClapArgs;
use hearth_api::{Client, ClientError, Job, JobStatus};
use std::time::{Duration, Instant};

/// Whether to wait until what was asked for has happened.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct WaitArgs {
    /// Wait until the jobs run and are ready, have stopped, or are gone
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// With --wait: give up after so long, as in 30s or 5m, and exit with 124 [default: never]
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = span::span)]
    pub(crate) timeout: Option<Duration>,
}

/// How often a command that waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a daemon may be away while something is waited for: a restart takes less.
const DAEMON_AWAY_MAX: Duration = Duration::from_secs(60);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// It runs, is ready, and no older generation serves in its place. A `job` may have completed.
    Running,
    /// It does what it is for: a service or daemon runs, as above, a `job` has completed.
    Fulfilled,
    /// It has no microVM any more and is kept.
    Ended,
    /// It is deleted.
    Gone,
}

/// Whether to continue after an error: a daemon that is being restarted comes back.
#[derive(Debug, Default)]
struct Patience {
    away_since: Option<Instant>,
}

impl Patience {
    /// Tells that the daemon answered.
    fn renew(&mut self) {
        self.away_since = None;
    }

    /// Returns where the error may pass.
    ///
    /// # Errors
    /// The same error, where the daemon refused, or was away for too long.
    fn tolerate(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !error.may_pass() {
            return Err(error);
        }
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if since.elapsed() > DAEMON_AWAY_MAX { Err(error) } else { Ok(()) }
    }
}

/// How long a command may wait, counted from its making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    begin: Instant,
    waits_max: Option<Duration>,
}

impl Limit {
    /// Starts counting; `None` waits for ever.
    pub(crate) fn new(waits_max: Option<Duration>) -> Limit {
        Limit { begin: Instant::now(), waits_max }
    }

    /// What is left; `None` for ever.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.waits_max.map(|waits_max| waits_max.saturating_sub(self.begin.elapsed()))
    }

    /// The error of a limit that was reached.
    pub(crate) fn reached(&self, message: String) -> TimedOut {
        TimedOut { message, waited: self.waits_max.unwrap_or_default() }
    }
}

/// Waits until a job has this status; says on the way what it waits for. Returns the job, unless it is
/// gone.
///
/// # Errors
/// Where the goal cannot be reached any more, the limit is reached, or the daemon stays away.
pub(crate) async fn until(
    job: &str,
    goal: Goal,
    limit: Limit,
    client: &Client,
    output: &Output,
) -> anyhow::Result<Option<Job>> {
    let mut patience = Patience::default();
    let mut last = "the daemon does not answer".to_owned();
    let mut told = None;
    loop {
        match client.job(job).await {
            Ok(seen) => {
                patience.renew();
                last = stands(&seen);
                if reached(&seen, goal)? {
                    return Ok(Some(seen));
                }
                if seen.reason != told && seen.reason.is_some() {
                    output.waiting(&last);
                    told = seen.reason;
                }
            }
            Err(error) if is_absent(&error) && goal == Goal::Gone => return Ok(None),
            Err(error) => patience.tolerate(error)?,
        }
        match limit.left() {
            Some(Duration::ZERO) => return Err(limit.reached(last).into()),
            Some(left) => tokio::time::sleep(LOOK_EVERY.min(left)).await,
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Whether an error says that there is no such job.
fn is_absent(error: &ClientError) -> bool {
    error.status() == Some(404)
}

/// How a job stands, in a sentence.
fn stands(job: &Job) -> String {
    let reason = job.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("job {} is {}{reason}", job.job_id, job.status)
}

fn reached(job: &Job, goal: Goal) -> anyhow::Result<bool> {
    match (goal, job.status) {
        (Goal::Running, JobStatus::Running) => Ok(job.reason.is_none()),
        (Goal::Fulfilled, JobStatus::Running) => {
            Ok(job.reason.is_none() && job.spec["lifecycle"] != Lifecycle::Job.as_str())
        }
        (Goal::Running | Goal::Fulfilled, JobStatus::Completed) => Ok(true),
        (
            Goal::Running | Goal::Fulfilled,
            JobStatus::Failed | JobStatus::Stopping | JobStatus::Stopped,
        ) => bail!("{}", stands(job)),
        (Goal::Ended, status) => Ok(status.is_final()),
        (Goal::Running | Goal::Fulfilled | Goal::Gone, _) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::{Goal, reached};
    use hearth_api::{Job, JobStatus};

    fn job(status: JobStatus, reason: Option<&str>) -> Job {
        Job {
            job_id: "web".into(),
            vm_id: None,
            tenant: "web".into(),
            status,
            reason: reason.map(str::to_owned),
            since: String::new(),
            generation: 2,
            exit_code: None,
            exit: None,
            confined: None,
            spec: serde_json::Value::Null,
        }
    }

    #[test]
    fn a_service_whose_old_generation_serves_on_does_not_run_yet() {
        let replacing = job(JobStatus::Running, Some("replacing it with generation 2: booting"));
        assert!(!reached(&replacing, Goal::Running).expect("it may still"));
        assert!(reached(&job(JobStatus::Running, None), Goal::Running).expect("it runs"));
    }

    #[test]
    fn a_job_is_there_to_complete_and_a_service_to_run() {
        let mut once = job(JobStatus::Running, None);
        once.spec = serde_json::json!({"lifecycle": "job"});
        assert!(!reached(&once, Goal::Fulfilled).expect("it may still"));
        once.status = JobStatus::Completed;
        assert!(reached(&once, Goal::Fulfilled).expect("it completed"));
        once.status = JobStatus::Failed;
        reached(&once, Goal::Fulfilled).expect_err("it failed");
        assert!(reached(&job(JobStatus::Running, None), Goal::Fulfilled).expect("it runs"));
    }

    #[test]
    fn what_failed_is_not_waited_for() {
        let error = reached(&job(JobStatus::Failed, Some("no image r")), Goal::Running);
        assert_eq!(error.expect_err("failed").to_string(), "job web is failed: no image r");
        assert!(reached(&job(JobStatus::Failed, None), Goal::Ended).expect("it ended"));
    }
}
