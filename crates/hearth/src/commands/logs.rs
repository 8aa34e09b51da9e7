//! `hearth logs`: a job's output as it comes; also for `hearth run --wait`, which waits for its end.

mod text;

use crate::exit;
use crate::output::{Output, Stream};
use crate::wait::Limit;
use clap::Args as ClapArgs;
use hearth_api::{Client, ClientError, FollowedLog, Job, LogLine, LogQuery, LogStream};
use std::io::{self, IsTerminal};
use std::pin::pin;
use text::LogText;

/// The command line of `hearth logs`.
#[derive(Debug, ClapArgs)]
pub(crate) struct LogsArgs {
    /// Its id
    job: String,
    /// Continue with new lines until the job has ended
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
    /// Only output since a time such as 2026-01-31T12:00:00Z, or how long ago, as in 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// Shows a job's output.
///
/// # Errors
/// Where the daemon refuses or stays away.
pub(crate) async fn logs(args: LogsArgs, client: &Client, output: &Output) -> anyhow::Result<u8> {
    let query = LogQuery { tail: args.tail, since: args.since, ..LogQuery::default() };
    match args.follow {
        true => follow(client.follow_logs(&args.job, &query).await?, output).await?,
        false => show(client.logs(&args.job, &query).await?, output).await?,
    }
    Ok(exit::DONE)
}

/// Shows a part of a log.
///
/// # Errors
/// Where the connection breaks.
async fn show(mut lines: LogStream, output: &Output) -> anyhow::Result<()> {
    let mut log = LogPrinter::new(output);
    while let Some(line) = lines.next().await? {
        log.print(&line);
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
async fn follow(mut lines: FollowedLog, output: &Output) -> Result<(), ClientError> {
    let mut log = LogPrinter::new(output);
    let mut gone = pin!(output.reader_gone());
    while let Some(line) = output.before(&mut gone, lines.next()).await.transpose()?.flatten() {
        log.print(&line);
    }
    Ok(())
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
        let mut log = LogPrinter::new(output);
        let mut lines = client.follow_logs(id, &LogQuery::default()).await?;
        // To the end, whether or not somebody reads it: the exit code is a result as well.
        while let Some(line) = lines.next().await? {
            log.print(&line);
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

/// Prints records of a log.
struct LogPrinter<'a> {
    output: &'a Output,
    /// Lines that are begun.
    text: LogText,
}

impl LogPrinter<'_> {
    fn new(output: &Output) -> LogPrinter<'_> {
        LogPrinter { output, text: LogText::default() }
    }

    /// A record of a job's output: its stderr to stderr.
    fn print(&mut self, log: &LogLine) {
        if self.output.printed(log) {
            return;
        }
        let terminals = [io::stdout().is_terminal(), io::stderr().is_terminal()];
        let text = self.text.next(log, terminals);
        let stream = if log.stream == "stdout" { Stream::Stdout } else { Stream::Stderr };
        self.output.write(stream, text.as_bytes());
    }
}
