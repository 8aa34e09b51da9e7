//! Lines of a job's log: once, or followed until the job has ended, over restarts of the daemon.

use crate::client::{Client, parameter, path_of};
use crate::error::ClientError;
use crate::lines::{AWAY_LOOK_EVERY, AWAY_MAX, Lines};
use crate::wire::{LogLine, LogRecord, NDJSON};
use std::collections::BTreeMap;
use tokio::time::{Instant, sleep};

/// Which part of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only this many of the last lines.
    pub tail: Option<usize>,
    /// Only lines that came since: an RFC 3339 time, or how long ago, such as `10m`.
    pub since: Option<String>,
    /// Only lines behind these, by microVM: the [`cursor`](LogLine::cursor) of the last one that
    /// was read of each. What is older than the oldest of these microVMs counts as read.
    pub after: BTreeMap<String, u64>,
}

impl LogQuery {
    /// As further parameters of a query.
    fn written(&self) -> String {
        let tail = self.tail.map(|lines| lines.to_string());
        let places: Vec<String> =
            self.after.iter().map(|(vm_id, cursor)| format!("{vm_id}:{cursor}")).collect();
        let after = Some(places.join(",")).filter(|places| !places.is_empty());
        parameter("tail", tail.as_deref())
            + &parameter("since", self.since.as_deref())
            + &parameter("after", after.as_deref())
    }
}

/// The lines of a log as they come, without its heartbeats.
#[derive(Debug)]
pub struct LogStream(Lines);

impl LogStream {
    /// The next line; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// Where the connection breaks or the line is not one of Hearth's.
    pub async fn next(&mut self) -> Result<Option<LogLine>, ClientError> {
        while let Some(line) = self.0.next().await? {
            let record = serde_json::from_slice(&line).map_err(|error| self.0.foreign(error))?;
            if let LogRecord::Line(line) = record {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }
}

/// The lines of a log as they come, until the job has ended.
///
/// If the daemon ends, the job does not: the reader waits for the next daemon, a minute at most, and
/// continues after the last line that it has, so that none is lost or seen twice.
#[derive(Debug)]
pub struct FollowedLog {
    client: Client,
    job: String,
    query: LogQuery,
    stream: LogStream,
    /// The job had ended before the stream was opened: its end is the log's.
    ended: bool,
}

impl Client {
    /// `GET /vms/{job_id}/logs`: the part that `query` asks for.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn logs(&self, job: &str, query: &LogQuery) -> Result<LogStream, ClientError> {
        self.log_lines(job, query, "follow=false").await
    }

    /// The same, and then every new line until the job has ended, over restarts of the daemon.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn follow_logs(
        &self,
        job: &str,
        query: &LogQuery,
    ) -> Result<FollowedLog, ClientError> {
        let stream = self.log_lines(job, query, "follow=true").await?;
        let (client, job, query) = (self.clone(), job.to_owned(), query.clone());
        Ok(FollowedLog { client, job, query, stream, ended: false })
    }

    async fn log_lines(
        &self,
        job: &str,
        query: &LogQuery,
        follow: &str,
    ) -> Result<LogStream, ClientError> {
        let operation = format!("read the log of job {job}");
        let path = path_of(job, &format!("/logs?{follow}{}", query.written()));
        self.lines(operation, &path, NDJSON).await.map(LogStream)
    }
}

impl FollowedLog {
    /// The next line; `None` once the job has ended or is gone. Not cancel safe while a daemon is
    /// away; no line is lost by it.
    ///
    /// # Errors
    /// Where the daemon stays away, or refuses.
    pub async fn next(&mut self) -> Result<Option<LogLine>, ClientError> {
        loop {
            match self.stream.next().await {
                Ok(Some(line)) => {
                    self.query.after.insert(line.vm_id.clone(), line.cursor);
                    return Ok(Some(line));
                }
                Ok(None) if self.ended => return Ok(None),
                Ok(None) | Err(ClientError::Broken { .. }) => {}
                Err(error) => return Err(error),
            }
            if !self.reopen().await? {
                return Ok(None);
            }
        }
    }

    /// Continues after the last line, with the current daemon or the next one. Returns whether
    /// there still is such a job.
    async fn reopen(&mut self) -> Result<bool, ClientError> {
        let begin = Instant::now();
        if !self.query.after.is_empty() {
            // What these chose is read already.
            self.query.tail = None;
            self.query.since = None;
        }
        loop {
            match self.try_reopen().await {
                Ok(()) => return Ok(true),
                Err(error) if error.status() == Some(404) => return Ok(false),
                Err(error) if !error.may_pass() || begin.elapsed() >= AWAY_MAX => {
                    return Err(error);
                }
                Err(_) => sleep(AWAY_LOOK_EVERY).await,
            }
        }
    }

    async fn try_reopen(&mut self) -> Result<(), ClientError> {
        let ended = self.client.job(&self.job).await?.status.is_final();
        self.stream = self.client.log_lines(&self.job, &self.query, "follow=true").await?;
        self.ended = ended;
        Ok(())
    }
}
