//! `hearth ps`: which jobs it lists, and what it shows of each.

use crate::exit;
use crate::lifecycle::Lifecycle;
use crate::output::{Output, Tone, Word, age, or_dash, shortened};
use clap::Args as ClapArgs;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use hearth_api::{Client, Job, JobFilter, JobStatus};
use jiff::Timestamp;
use serde_json::Value;

/// Which jobs are listed.
#[derive(Debug, ClapArgs)]
pub(crate) struct PsArgs {
    /// Filter by status; one or several, as in running,failed
    #[arg(short, long, value_delimiter = ',', value_parser = status_parser())]
    status: Vec<JobStatus>,
    /// Only jobs of this tenant
    #[arg(short, long)]
    tenant: Option<String>,
    /// Only jobs of this lifecycle
    #[arg(short, long, value_enum)]
    lifecycle: Option<Lifecycle>,
    /// Only jobs with this label: KEY=VALUE, or KEY for any value. Repeatable: all must match
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
}

/// Reads a status, and knows all there are.
fn status_parser() -> impl TypedValueParser<Value = JobStatus> {
    let words = JobStatus::ALL.map(JobStatus::as_str);
    PossibleValuesParser::new(words).try_map(|word| {
        JobStatus::ALL.into_iter().find(|status| status.as_str() == word).ok_or("no such status")
    })
}

impl From<PsArgs> for JobFilter {
    fn from(PsArgs { status, tenant, lifecycle, label }: PsArgs) -> JobFilter {
        let lifecycle = lifecycle.map(|lifecycle| lifecycle.as_str().to_owned());
        let tenant = tenant.map(|tenant| ("tenant", tenant)).into_iter();
        let conditions = tenant.chain(lifecycle.map(|lifecycle| ("lifecycle", lifecycle)));
        let labels = label.into_iter().map(|label| ("label", label));
        JobFilter { statuses: status, conditions: conditions.chain(labels).collect() }
    }
}

/// Lists the jobs.
///
/// # Errors
/// Where the daemon cannot be asked or refuses.
pub(crate) async fn ps(args: PsArgs, client: &Client, output: &Output) -> anyhow::Result<u8> {
    print_jobs(&client.jobs(&args.into()).await?, output);
    Ok(exit::DONE)
}

/// Shows jobs in a table.
pub(crate) fn print_jobs(jobs: &[Job], output: &Output) {
    if output.printed(jobs) {
        return;
    }
    if jobs.is_empty() {
        return output.note("there are no jobs");
    }
    let now = Timestamp::now();
    match output.is_wide() {
        true => output.rows(WIDE, jobs.iter().map(|job| wide(job, now))),
        false => output.rows(NARROW, jobs.iter().map(|job| narrow(job, now))),
    }
}

/// The columns of the table.
const NARROW: [&str; 7] = ["JOB", "TENANT", "LIFECYCLE", "STATUS", "AGE", "VM", "REASON"];

/// A job in these columns.
fn narrow(job: &Job, now: Timestamp) -> [Word; 7] {
    [
        job.job_id.as_str().into(),
        job.tenant.as_str().into(),
        text_of(job, "lifecycle").into(),
        Word::toned(status(job), Tone::of_status(job.status)),
        age(&job.since, now).into(),
        or_dash(job.vm_id.as_deref()).into(),
        shortened(job.reason.as_deref().unwrap_or_default()).into(),
    ]
}

/// The columns of the wide table.
const WIDE: [&str; 14] = [
    "JOB",
    "TENANT",
    "LIFECYCLE",
    "STATUS",
    "AGE",
    "VM",
    "GEN",
    "SINCE",
    "ROOTFS",
    "KERNEL",
    "VCPU",
    "MEM",
    "LABELS",
    "REASON",
];

/// A job in these columns.
fn wide(job: &Job, now: Timestamp) -> [Word; 14] {
    let number = |value: &Value| value.as_u64().map_or("-".to_owned(), |n| n.to_string());
    [
        job.job_id.as_str().into(),
        job.tenant.as_str().into(),
        text_of(job, "lifecycle").into(),
        Word::toned(status(job), Tone::of_status(job.status)),
        age(&job.since, now).into(),
        or_dash(job.vm_id.as_deref()).into(),
        job.generation.to_string().into(),
        job.since.as_str().into(),
        text_of(job, "rootfs").into(),
        text_of(job, "kernel").into(),
        number(&job.spec["resources"]["vcpu"]).into(),
        number(&job.spec["resources"]["mem_mb"]).into(),
        labels(job).into(),
        job.reason.as_deref().unwrap_or_default().into(),
    ]
}

/// The status of a job, with the exit code of a failed one.
pub(crate) fn status(job: &Job) -> String {
    match (job.status.is_final(), job.exit_code) {
        (true, Some(code)) if code != 0 => format!("{} ({code})", job.status),
        _ => job.status.to_string(),
    }
}

fn labels(job: &Job) -> String {
    let labels = job.spec["labels"].as_object().into_iter().flatten();
    let label = |(key, value): (&String, &Value)| match value.as_str() {
        None | Some("") => key.clone(),
        Some(value) => format!("{key}={value}"),
    };
    or_dash(
        Some(labels.map(label).collect::<Vec<_>>().join(",").as_str())
            .filter(|all| !all.is_empty()),
    )
}

fn text_of(job: &Job, field: &str) -> String {
    or_dash(job.spec[field].as_str())
}
