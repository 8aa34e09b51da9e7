//! Shows a job's output as it comes, and waits for its end.

use crate::commands::LOOK_EVERY;
use crate::output::Output;
use hearth_api::{Client, Job, JobStatus, LogStream};
use std::time::Duration;

/// A job failed without an exit code of its own: it could not be started, was killed, or ran out
/// of time or memory. The code that container tools use for it.
const EXIT_NO_CODE: u8 = 125;
/// How long a daemon may be away while a job is waited for: a restart takes less.
const DAEMON_AWAY_MAX: Duration = Duration::from_secs(60);

/// Shows a log until it ends.
///
/// # Errors
/// Where the connection breaks.
pub(crate) async fn show(mut lines: LogStream, output: &Output) -> anyhow::Result<()> {
    while let Some(line) = lines.next().await? {
        output.log_line(&line);
    }
    Ok(())
}

/// Shows the output of a job until it has ended, and returns its exit code. Goes on where the
/// daemon is restarted meanwhile.
///
/// # Errors
/// Where the daemon stays away, or the job is deleted.
pub(crate) async fn to_the_end(job: &Job, client: &Client, output: &Output) -> anyhow::Result<u8> {
    let mut shown = 0_usize;
    let mut away_since: Option<std::time::Instant> = None;
    loop {
        match attempt(&job.job_id, &mut shown, client, output).await {
            Ok(Some(ended)) => return Ok(code(&ended, output)),
            Ok(None) => away_since = None,
            Err(error) if error.problem().is_some_and(|problem| problem.status < 500) => {
                return Err(error.into());
            }
            Err(error) => {
                let since = *away_since.get_or_insert_with(std::time::Instant::now);
                if since.elapsed() > DAEMON_AWAY_MAX {
                    return Err(error.into());
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One connection's worth of following: the job, where it has ended.
async fn attempt(
    job: &str,
    shown: &mut usize,
    client: &Client,
    output: &Output,
) -> Result<Option<Job>, hearth_api::ClientError> {
    let mut lines = client.follow_logs(job, None).await?;
    let mut skip = *shown;
    while let Some(line) = lines.next().await? {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        output.log_line(&line);
        *shown += 1;
    }
    let job = client.job(job).await?;
    Ok(Some(job).filter(|job| job.status.is_final()))
}

fn code(job: &Job, output: &Output) -> u8 {
    match (job.status, job.exit_code) {
        (JobStatus::Completed, code) => code.unwrap_or(0),
        (JobStatus::Failed, Some(code)) if code != 0 => code,
        _ => {
            output.ended_without_code(job);
            EXIT_NO_CODE
        }
    }
}
