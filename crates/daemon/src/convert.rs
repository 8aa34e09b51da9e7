//! Between the wire and the model. Every bad field of a body is named at once.

pub(crate) mod declared;

use crate::core::AskError;
use hearth_api::{DesiredFile, Event, FieldProblem, Job, JobStatus, Problem, Summary, WarmVm};
use hearth_engine::{JobView, Refusal, StatsView, WarmView, json};
use hearth_model::{Declaration, FieldError, FieldErrors, Path, Segment, Target, Value};
use hearth_planner::Status;
use serde::{Serialize, Serializer};

/// Reads the body of `POST /vms`.
pub(crate) fn create(tree: &Value) -> Result<Declaration, Box<Problem>> {
    if !matches!(tree, Value::Map(_)) {
        return Err(unfit(only(&[], not_an_object(tree))));
    }
    Declaration::read(tree).map_err(unfit)
}

fn not_an_object(tree: &Value) -> String {
    format!("expected an object, found {}", tree.kind())
}

/// One problem, at a place.
fn only(place: &[Segment], detail: impl Into<String>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    errors.push(wrong(place, detail));
    errors
}

fn wrong(place: &[Segment], detail: impl Into<String>) -> FieldError {
    let (path, detail) = (Path(place.to_vec()), detail.into());
    FieldError { path, target: Target::Value, detail, help: None }
}

/// The fields of a body that are wrong: a bounded number of them, and how many more.
fn unfit(errors: FieldErrors) -> Box<Problem> {
    let (count, errors_omitted) = (errors.count(), errors.omitted());
    let noun = if count == 1 { "a problem".to_owned() } else { format!("{count} problems") };
    let detail = match errors_omitted {
        0 => format!("the body has {noun}; nothing was changed"),
        _ => format!(
            "the body has {noun}, of which the first {} are listed; nothing was changed",
            count - errors_omitted
        ),
    };
    let problem = |error: FieldError| FieldProblem {
        pointer: error.path.pointer(),
        detail: error.detail,
        help: error.help,
    };
    Box::new(Problem {
        errors: errors.into_iter().map(problem).collect(),
        errors_omitted,
        ..self::problem(422, "invalid-body", "Invalid body", detail)
    })
}

/// A problem without fields.
pub(crate) fn problem(status: u16, slug: &str, title: &str, detail: impl Into<String>) -> Problem {
    Problem {
        kind: format!("urn:hearth:problem:{slug}"),
        title: title.to_owned(),
        status,
        detail: detail.into(),
        help: None,
        generation: None,
        errors: Vec::new(),
        errors_omitted: 0,
    }
}

/// What the engine refused, as it travels.
pub(crate) fn refused(error: &AskError) -> Problem {
    let detail = error.to_string();
    match error {
        AskError::Refused(Refusal::NotFound(_)) => problem(404, "not-found", "No such job", detail),
        AskError::Refused(Refusal::GoneSince(_)) => {
            problem(404, "gone-since", "Deleted since", detail)
        }
        AskError::Refused(Refusal::KeyOfAnother { .. }) => {
            problem(422, "key-reused", "Key of another request", detail)
        }
        AskError::Refused(Refusal::OtherGeneration { current, .. }) => Problem {
            generation: current.map(|generation| generation.0),
            ..problem(412, "other-generation", "Other generation", detail)
        },
        AskError::Refused(Refusal::OtherTenant(_)) => {
            problem(409, "other-tenant", "Job of another tenant", detail)
        }
        AskError::Refused(Refusal::Store { disk_full: true, .. }) => {
            problem(507, "disk-full", "Disk full", detail)
        }
        AskError::Refused(Refusal::Store { .. }) => {
            problem(503, "database", "Database unavailable", detail)
        }
        AskError::Refused(Refusal::Lost { .. }) => {
            problem(503, "database-lost", "Database lost", detail)
        }
        AskError::Busy | AskError::Slow | AskError::Ending => {
            problem(503, "unavailable", "Unavailable", detail)
        }
    }
}

/// A job as it travels.
pub(crate) fn job(view: &JobView) -> Job {
    Job {
        job_id: view.job.to_string(),
        vm_id: view.instance.as_ref().map(hearth_model::InstanceId::vm_id),
        tenant: view.tenant.to_string(),
        status: status(view.status),
        reason: view.reason.clone(),
        since: view.since.clone(),
        generation: view.generation.0,
        exit_code: view.exit_code,
        spec: json::spec_to_json(&view.spec),
    }
}

/// [`hearth_api::Stats`] as it is written: one job after the other, so that ten thousand of them do
/// not stand in memory beside what they are made of.
#[derive(Serialize)]
struct Everything<'a> {
    summary: Summary,
    #[serde(serialize_with = "each_job")]
    jobs: &'a [JobView],
    #[serde(serialize_with = "each_warm")]
    warm_pool: &'a [WarmView],
    unidentified: &'a [String],
    desired_file: Option<DesiredFile>,
}

fn each_job<S: Serializer>(jobs: &[JobView], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(jobs.iter().map(job))
}

fn each_warm<S: Serializer>(pool: &[WarmView], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pool.iter().map(warm))
}

/// Everything as it travels: the JSON of [`hearth_api::Stats`].
pub(crate) fn stats(view: &StatsView, desired_file: Option<DesiredFile>) -> Vec<u8> {
    let everything = Everything {
        summary: Summary {
            total_jobs: view.jobs.len(),
            total_warm: view.warm_pool.iter().filter(|vm| vm.status == "warm").count(),
        },
        jobs: &view.jobs,
        warm_pool: &view.warm_pool,
        unidentified: &view.unidentified,
        desired_file,
    };
    serde_json::to_vec(&everything).expect("it holds only what JSON can say")
}

fn warm(view: &WarmView) -> WarmVm {
    WarmVm {
        spec_hash: view.hash.to_string(),
        vm_id: view.instance.warm_id(),
        tenant: view.tenant.as_ref().map(ToString::to_string),
        status: view.status.to_owned(),
        reason: view.reason.clone(),
        spec: json::spec_to_json(&view.spec),
    }
}

/// An event as it travels.
pub(crate) fn event(event: &hearth_engine::Event) -> Event {
    Event {
        id: event.id,
        at: event.at.clone(),
        job_id: event.job.as_ref().map(ToString::to_string),
        instance: event.instance.as_ref().map(ToString::to_string),
        generation: event.generation.map(|generation| generation.0),
        kind: event.kind.to_string(),
        message: event.message.clone(),
    }
}

pub(crate) fn status(status: Status) -> JobStatus {
    match status {
        Status::Pending => JobStatus::Pending,
        Status::Starting => JobStatus::Starting,
        Status::Running => JobStatus::Running,
        Status::Stopping => JobStatus::Stopping,
        Status::Stopped => JobStatus::Stopped,
        Status::Completed => JobStatus::Completed,
        Status::Failed => JobStatus::Failed,
    }
}
