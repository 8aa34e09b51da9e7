//! `hearth status`: how the daemon and what it keeps stand, gathered from a few answers of its API.

use crate::exit;
use crate::output::{Line, Output, Tone, Word, age, or_dash, shortened};
use hearth_api::{
    Client, ClientError, DesiredFile, DesiredFileStatus, Endpoint, Event, EventKind, Job,
    JobStatus, Pool, Readiness,
};
use serde::{Serialize, Serializer};
use std::fmt::Display;

/// How many of the newest events are searched for problems.
const EVENTS_SEARCHED: usize = 1000;
/// How many problems fit on a screen.
const PROBLEMS_SHOWN: usize = 5;

/// How all of it stands.
#[derive(Debug, Serialize)]
struct Report {
    /// Where the daemon is.
    url: String,
    /// Its version.
    version: String,
    /// What runs the microVMs; null where the daemon is not ready.
    ready: Option<Readiness>,
    /// Why it is not ready.
    not_ready: Option<String>,
    /// Jobs by status; those that none has are left out.
    #[serde(serialize_with = "as_map")]
    jobs: Vec<(JobStatus, usize)>,
    /// The pools that there are or should be.
    pools: Vec<Pool>,
    /// How the desired-state file stands.
    desired_file: Option<DesiredFile>,
    /// What was found on the host and left alone.
    unidentified: Vec<String>,
    /// The last errors, oldest first.
    problems: Vec<Event>,
}

fn as_map<S: Serializer>(jobs: &[(JobStatus, usize)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(jobs.iter().map(|(status, count)| (status.as_str(), count)))
}

/// Shows how all of it stands. The exit code is 1 where the daemon is not ready.
///
/// # Errors
/// Where the daemon can't be asked.
pub(crate) async fn status(
    endpoint: &Endpoint,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let report = gather(endpoint, client).await?;
    print_status(&report, output);
    Ok(if report.ready.is_some() { exit::DONE } else { exit::ERROR })
}

async fn gather(endpoint: &Endpoint, client: &Client) -> Result<Report, ClientError> {
    let health = client.health().await?;
    let (ready, not_ready) = match client.readiness().await {
        Ok(ready) => (Some(ready), None),
        Err(error) => match error.problem() {
            Some(problem) => (None, Some(problem.detail.clone())),
            None => return Err(error),
        },
    };
    let stats = client.stats().await?;
    let mut problems = client.events(None, EVENTS_SEARCHED).await?;
    problems.retain(|event| event.kind == EventKind::Error);
    problems.drain(..problems.len().saturating_sub(PROBLEMS_SHOWN));
    Ok(Report {
        url: endpoint.to_string(),
        version: health.version,
        ready,
        not_ready,
        jobs: by_status(&stats.jobs),
        pools: stats.pools,
        desired_file: stats.desired_file,
        unidentified: stats.unidentified,
        problems,
    })
}

fn by_status(jobs: &[Job]) -> Vec<(JobStatus, usize)> {
    let count = |status| jobs.iter().filter(|job| job.status == status).count();
    let counts = JobStatus::ALL.map(|status| (status, count(status)));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// One screen.
fn print_status(report: &Report, output: &Output) {
    if output.printed(report) {
        return;
    }
    let daemon = format!("{} at {}", report.version, report.url);
    print_heading("daemon", daemon, Tone::Plain, output);
    if let Some(why) = &report.not_ready {
        print_heading("", format_args!("not ready: {why}"), Tone::Bad, output);
    }
    if let Some(ready) = &report.ready {
        print_heading("host", &ready.host, Tone::Plain, output);
        for warning in &ready.warnings {
            print_heading("", warning, Tone::Busy, output);
        }
    }
    if let Some(file) = &report.desired_file {
        print_desired_file(file, output);
    }
    print_headed("jobs", &counts(&report.jobs, output), output);
    for sentence in &report.unidentified {
        print_heading("", sentence, Tone::Busy, output);
    }
    print_heading("pools", pools_in_all(&report.pools), Tone::Plain, output);
    if !report.pools.is_empty() {
        output.line("");
        output.rows(
            ["SPEC", "TENANT", "JOBS", "WARM", "TARGET", "STARTING", "HITS", "MISSES", "ROOTFS"],
            report.pools.iter().map(pool_words),
        );
    }
    if !report.problems.is_empty() {
        output.line("");
        let cut = |text: &str| match output.is_wide() {
            true => text.to_owned(),
            false => shortened(text),
        };
        output.rows(
            ["LAST PROBLEMS", "JOB", "MESSAGE"],
            report.problems.iter().map(|event| {
                [
                    event.at.as_str().into(),
                    or_dash(event.job_id.as_deref()).into(),
                    Word::toned(cut(&event.message), Tone::Bad),
                ]
            }),
        );
    }
}

fn print_heading(name: &str, text: impl Display, tone: Tone, output: &Output) {
    print_headed(name, &output.begin().toned(text, tone), output);
}

fn print_headed(name: &str, line: &Line, output: &Output) {
    let tone = if name.is_empty() { Tone::Plain } else { Tone::Strong };
    output.print(&output.begin().toned(format_args!("{name:<8}"), tone).text(" ").line(line));
}

fn counts(jobs: &[(JobStatus, usize)], output: &Output) -> Line {
    if jobs.is_empty() {
        return output.begin().text("none");
    }
    let total: usize = jobs.iter().map(|(_, count)| count).sum();
    let mut line = output.begin().text(format_args!("{total}: "));
    for (at, (status, count)) in jobs.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let tone = Tone::of_status(*status);
        line = line.text(comma).toned(format_args!("{count} {status}"), tone);
    }
    line
}

fn print_desired_file(file: &DesiredFile, output: &Output) {
    let tone = match file.status {
        DesiredFileStatus::Loaded => Tone::Good,
        DesiredFileStatus::Absent => Tone::Plain,
        DesiredFileStatus::Failed | DesiredFileStatus::Held => Tone::Bad,
    };
    let since = age(&file.since, jiff::Timestamp::now());
    let line = output.begin().text(format_args!("{}: ", file.path));
    let line = line.toned(file.status.as_str(), tone).text(format_args!(" for {since}"));
    print_headed("file", &line, output);
    if file.loaded_at.is_some() {
        let noun = if file.entries == 1 { "entry" } else { "entries" };
        let counts = format!(
            "last load: {} {noun}, {} applied, {} deleted, {} refused, {} held",
            file.entries,
            file.applied,
            file.deleted,
            file.refused.len() + file.refused_omitted,
            file.held.len()
        );
        print_heading("", counts, Tone::Plain, output);
    }
    for entry in &file.refused {
        print_heading("", format_args!("{}: {}", entry.job_id, entry.reason), Tone::Bad, output);
    }
    if file.refused_omitted > 0 {
        print_heading("", format_args!("and {} more", file.refused_omitted), Tone::Plain, output);
    }
    for text in [&file.problem, &file.help].into_iter().flatten() {
        print_heading("", text, tone, output);
    }
}

fn pools_in_all(pools: &[Pool]) -> String {
    if pools.is_empty() {
        return "none".to_owned();
    }
    let warm: usize = pools.iter().map(|pool| pool.warm).sum();
    let target: u64 = pools.iter().map(|pool| u64::from(pool.target)).sum();
    format!("{warm} of {target} warm")
}

fn pool_words(pool: &Pool) -> [Word; 9] {
    let full = u32::try_from(pool.warm).is_ok_and(|warm| warm >= pool.target);
    let tone = if full { Tone::Good } else { Tone::Busy };
    [
        pool.spec_hash.as_str().into(),
        or_dash(pool.tenant.as_deref()).into(),
        pool.jobs.to_string().into(),
        Word::toned(pool.warm.to_string(), tone),
        pool.target.to_string().into(),
        pool.starting.to_string().into(),
        pool.hits.to_string().into(),
        pool.misses.to_string().into(),
        or_dash(pool.rootfs.as_deref()).into(),
    ]
}
