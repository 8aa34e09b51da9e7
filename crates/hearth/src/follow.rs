//! Shows a job's output as it comes, and waits for its end.

use crate::exit;
use crate::output::Output;
use crate::wait::Limit;
use hearth_api::{
    Client, ClientError, FollowedEvents, FollowedLog, Job, JobStatus, LogQuery, LogStream, News,
};
use std::pin::{Pin, pin};

/// Shows a part of a log.
///
/// # Errors
/// Where the connection breaks.
pub(crate) async fn show(mut lines: LogStream, output: &Output) -> anyhow::Result<()> {
    while let Some(line) = lines.next().await? {
        output.log_line(&line);
        if output.is_over() {
            break;
        }
    }
    Ok(())
}

/// Shows a log until its job has ended, or its reader is gone.
///
/// # Errors
/// Where the daemon stays away.
pub(crate) async fn follow(mut lines: FollowedLog, output: &Output) -> Result<(), ClientError> {
    let mut gone = pin!(output.reader_gone());
    while let Some(line) = before(&mut gone, lines.next(), output).await.transpose()?.flatten() {
        output.log_line(&line);
    }
    Ok(())
}

/// Shows events as they happen, until their reader is gone.
///
/// # Errors
/// Where the daemon stays away.
pub(crate) async fn events(mut events: FollowedEvents, output: &Output) -> Result<(), ClientError> {
    let mut gone = pin!(output.reader_gone());
    while let Some(news) = before(&mut gone, events.next(), output).await.transpose()? {
        match news {
            News::Happened(event) => output.event(&event),
            News::Lost(sentence) => output.lost(&sentence),
        }
    }
    Ok(())
}

/// What comes before the reader is gone; `None` once nothing more can be shown.
async fn before<T>(
    gone: &mut Pin<&mut impl Future<Output = ()>>,
    next: impl Future<Output = T>,
    output: &Output,
) -> Option<T> {
    if output.is_over() {
        return None;
    }
    tokio::select! {
        // What is dropped is not missed: the command ends.
        biased;
        () = gone => None,
        next = next => Some(next),
    }
}

/// Shows the output of a job until it has ended, and returns how it ended. Continues if the daemon is
/// restarted meanwhile.
///
/// # Errors
/// Where the limit is reached, the daemon stays away, or the job is deleted.
pub(crate) async fn to_the_end(
    job: &Job,
    limit: Limit,
    client: &Client,
    output: &Output,
) -> anyhow::Result<Job> {
    let id = &job.job_id;
    let ended = async {
        let mut lines = client.follow_logs(id, &LogQuery::default()).await?;
        // To the end, whether or not somebody reads it: the exit code is a result as well.
        while let Some(line) = lines.next().await? {
            output.log_line(&line);
        }
        client.job(id).await
    };
    let Some(left) = limit.left() else { return Ok(ended.await?) };
    match tokio::time::timeout(left, ended).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            let then = if job.spec["auto_remove"] == true { " and is then deleted" } else { "" };
            let message = format!("job {id} continues{then}; `hearth stop {id}` ends it");
            Err(limit.reached(message).into())
        }
    }
}

/// The exit code for a job that has ended.
pub(crate) fn code_of(job: &Job, output: &Output) -> u8 {
    match (job.status, job.exit_code) {
        (JobStatus::Completed, code) => code.unwrap_or(exit::DONE),
        (JobStatus::Failed, Some(code)) if code != 0 => code,
        _ => {
            output.ended_without_code(job);
            exit::NO_CODE
        }
    }
}
