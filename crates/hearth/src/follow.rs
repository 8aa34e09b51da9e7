//! Shows a job's output as it comes, and waits for its end.

use crate::exit;
use crate::output::Output;
use crate::wait::Limit;
use hearth_api::{
    Client, ClientError, FollowedEvents, FollowedLog, Job, JobStatus, LogQuery, LogStream, News,
};

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
pub(crate) async fn follow(mut lines: FollowedLog, output: &Output) -> Result<(), ClientError> {
    while let Some(line) = lines.next().await? {
        output.log_line(&line);
    }
    Ok(())
}

/// Shows events as they happen. It never ends by itself.
///
/// # Errors
/// Where the daemon stays away.
pub(crate) async fn events(mut events: FollowedEvents, output: &Output) -> Result<(), ClientError> {
    loop {
        match events.next().await? {
            News::Happened(event) => output.event(&event),
            News::Lost(sentence) => output.lost(&sentence),
        }
    }
}

/// Shows the output of a job until it has ended, and returns its exit code. Goes on where the
/// daemon is restarted meanwhile.
///
/// # Errors
/// Where the limit is reached, the daemon stays away, or the job is deleted.
pub(crate) async fn to_the_end(
    job: &Job,
    limit: Limit,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let id = &job.job_id;
    let ended = async {
        follow(client.follow_logs(id, &LogQuery::default()).await?, output).await?;
        client.job(id).await
    };
    let ended = match limit.left() {
        None => ended.await?,
        Some(left) => match tokio::time::timeout(left, ended).await {
            Ok(ended) => ended?,
            Err(_) => {
                let message =
                    format!("job {id} has not ended and goes on; `hearth stop {id}` ends it");
                return Err(limit.reached(message).into());
            }
        },
    };
    Ok(code(&ended, output))
}

fn code(job: &Job, output: &Output) -> u8 {
    match (job.status, job.exit_code) {
        (JobStatus::Completed, code) => code.unwrap_or(exit::DONE),
        (JobStatus::Failed, Some(code)) if code != 0 => code,
        _ => {
            output.ended_without_code(job);
            exit::NO_CODE
        }
    }
}
