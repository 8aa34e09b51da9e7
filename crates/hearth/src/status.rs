//! `hearth status`: how the daemon and what it keeps stand, gathered from a few answers of its API.

use crate::exit;
use crate::output::Output;
use hearth_api::{
    Client, ClientError, DesiredFile, Endpoint, Event, Job, JobStatus, Readiness, Stats, WarmVm,
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How many of the newest events are searched for problems.
const EVENTS_SEARCHED: usize = 1000;
/// How many problems fit on a screen.
const PROBLEMS_SHOWN: usize = 5;
/// Fields of a spec that say nothing of what a microVM is made of, so that jobs which differ in
/// them share a pool.
const POLICIES: [&str; 6] =
    ["warm_pool", "retries", "timeout_s", "auto_remove", "stop_signal", "stop_timeout_s"];

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

/// Warm microVMs of one make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Pool {
    /// What they are made of; null while there is none.
    pub(crate) spec_hash: Option<String>,
    /// Their root filesystem.
    pub(crate) rootfs: Option<String>,
    /// How many can be claimed now.
    pub(crate) warm: usize,
    /// How many are on their way.
    pub(crate) starting: usize,
    /// How many there should be.
    pub(crate) target: u64,
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
    problems.retain(|event| event.kind == "error");
    problems.drain(..problems.len().saturating_sub(PROBLEMS_SHOWN));
    Ok(Report {
        url: endpoint.to_string(),
        version: health.version,
        ready,
        not_ready,
        jobs: by_status(&stats.jobs),
        pools: pools(&stats),
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

/// What is known of one pool's make.
#[derive(Default)]
struct Make<'a> {
    warm: Vec<&'a WarmVm>,
    /// The largest minimum of the jobs, by pool tenant.
    minima: BTreeMap<&'a str, u64>,
}

/// The pools, by what they are made of. The API shows pools by their instances alone; one that has
/// none yet is known from the jobs that want it.
fn pools(stats: &Stats) -> Vec<Pool> {
    let mut makes: BTreeMap<String, (Option<String>, Make<'_>)> = BTreeMap::new();
    for job in &stats.jobs {
        let min = job.spec["warm_pool"]["min"].as_u64().unwrap_or(0);
        let wanted =
            !matches!(job.status, JobStatus::Stopping | JobStatus::Stopped | JobStatus::Failed);
        if min > 0 && wanted {
            // A tenant that was only defaulted is the job's own name; such jobs share a pool.
            let tenant = if job.tenant == job.job_id { "" } else { job.tenant.as_str() };
            let (_, make) = makes.entry(make_of(&job.spec)).or_insert_with(|| new(&job.spec));
            let largest = make.minima.entry(tenant).or_default();
            *largest = min.max(*largest);
        }
    }
    for warm in &stats.warm_pool {
        let (_, make) = makes.entry(make_of(&warm.spec)).or_insert_with(|| new(&warm.spec));
        make.warm.push(warm);
    }
    let pool = |(rootfs, make): (Option<String>, Make<'_>)| {
        let count = |status: &str| make.warm.iter().filter(|warm| warm.status == status).count();
        Pool {
            spec_hash: make.warm.first().map(|warm| warm.spec_hash.clone()),
            rootfs,
            warm: count("warm"),
            starting: count("starting"),
            target: make.minima.values().sum(),
        }
    };
    makes.into_values().map(pool).collect()
}

fn new<'a>(spec: &Value) -> (Option<String>, Make<'a>) {
    (spec["rootfs"].as_str().map(str::to_owned), Make::default())
}

/// What decides the inside of a microVM, as a key.
fn make_of(spec: &Value) -> String {
    let fields = spec.as_object().into_iter().flatten();
    let made: Map<String, Value> = fields
        .filter(|(field, _)| !POLICIES.contains(&field.as_str()))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    Value::Object(made).to_string()
}

#[cfg(test)]
mod tests {
    use super::{Pool, pools};
    use hearth_api::Stats;
    use serde_json::{Value, json};

    fn job(id: &str, tenant: &str, status: &str, spec: &Value) -> Value {
        json!({"job_id": id, "vm_id": null, "tenant": tenant, "status": status, "reason": null,
            "since": "", "generation": 1, "exit_code": null, "spec": spec})
    }

    fn stats(jobs: &[Value], warm_pool: &[Value]) -> Stats {
        serde_json::from_value(json!({"summary": {"total_jobs": 0, "total_warm": 0}, "jobs": jobs,
            "warm_pool": warm_pool, "unidentified": [], "desired_file": null}))
        .expect("stats")
    }

    fn pool(hash: Option<&str>, warm: usize, starting: usize, target: u64) -> Pool {
        let spec_hash = hash.map(str::to_owned);
        Pool { spec_hash, rootfs: Some("r".into()), warm, starting, target }
    }

    #[test]
    fn a_pool_is_known_by_its_jobs_before_it_has_instances() {
        let spec = json!({"rootfs": "r", "warm_pool": {"min": 2}});
        let jobs = [job("a", "a", "pending", &spec), job("b", "b", "stopped", &spec)];
        assert_eq!(pools(&stats(&jobs, &[])), [pool(None, 0, 0, 2)]);
    }

    #[test]
    fn jobs_share_a_pool_unless_their_tenants_were_given() {
        let of = |min: u64, retries: u64| json!({"rootfs": "r", "retries": retries, "warm_pool": {"min": min}});
        let jobs = [
            job("a", "a", "running", &of(2, 0)),
            job("b", "b", "running", &of(3, 1)),
            job("c", "acme", "running", &of(1, 0)),
        ];
        let warm = |status: &str| {
            json!({"spec_hash": "H", "vm_id": "warm-1", "status": status, "reason": null,
                "spec": of(2, 0)})
        };
        let stats = stats(&jobs, &[warm("warm"), warm("starting"), warm("warm")]);
        assert_eq!(pools(&stats), [pool(Some("H"), 2, 1, 4)]);
    }
}
