//! Shows a job's output as it comes, and waits for its end.

use crate::output::Output;
use hearth_api::{Client, FollowedLog, Job, JobStatus, LogQuery, LogStream};

/// A job failed without an exit code of its own: it could not be started, was killed, or ran out
/// of time or memory. The code that container tools use for it.
const EXIT_NO_CODE: u8 = 125;
/// Shows a part of a log.
///
/// # Errors
/// Where the connection breaks.
pub(crate) async fn show(mut lines: LogStream, output: &Output) -> anyhow::Result<()> {
    while let Some(line) = lines.next().await? {
        output.log_line(&line);
    }
    Ok(())
}

/// Shows a log until its job has ended.
///
/// # Errors
/// Where the daemon stays away.
pub(crate) async fn follow(mut lines: FollowedLog, output: &Output) -> anyhow::Result<()> {
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
    follow(client.follow_logs(&job.job_id, &LogQuery::default()).await?, output).await?;
    Ok(code(&client.job(&job.job_id).await?, output))
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
