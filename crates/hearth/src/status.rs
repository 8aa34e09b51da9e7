//! `hearth status`: how the daemon and what it keeps stand, gathered from a few answers of its API.

use crate::exit;
use crate::output::Output;
use hearth_api::{
    Client, ClientError, DesiredFile, Endpoint, Event, EventKind, Job, JobStatus, Pool, Readiness,
};
use serde::{Serialize, Serializer};

/// How many of the newest events are searched for problems.
const EVENTS_SEARCHED: usize = 1000;
/// How many problems fit on a screen.
const PROBLEMS_SHOWN: usize = 5;

/// How all of it stands.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Where the daemon is.
    pub(crate) url: String,
    /// Its version.
    pub(crate) version: String,
    /// What runs the microVMs; null where the daemon is not ready.
    pub(crate) ready: Option<Readiness>,
    /// Why it is not ready.
    pub(crate) not_ready: Option<String>,
    /// Jobs by status; those that none has are left out.
    #[serde(serialize_with = "as_map")]
    pub(crate) jobs: Vec<(JobStatus, usize)>,
    /// The pools that there are or should be.
    pub(crate) pools: Vec<Pool>,
    /// How the desired-state file stands.
    pub(crate) desired_file: Option<DesiredFile>,
    /// What was found on the host and left alone.
    pub(crate) unidentified: Vec<String>,
    /// The last errors, oldest first.
    pub(crate) problems: Vec<Event>,
}

fn as_map<S: Serializer>(jobs: &[(JobStatus, usize)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(jobs.iter().map(|(status, count)| (status.as_str(), count)))
}

/// Shows how all of it stands. The exit code is 1 where the daemon is not ready.
///
/// # Errors
/// Where the daemon can't be asked.
pub(crate) async fn show(
    endpoint: &Endpoint,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let report = gather(endpoint, client).await?;
    output.status(&report);
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
