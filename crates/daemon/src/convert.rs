//! Between the wire and the model. Every bad field of a body is named at once.

use crate::core::AskError;
use hearth_api::{
    DesiredFile, Event, FieldProblem, Job, JobStatus, Problem, Stats, Summary, WarmVm,
};
use hearth_engine::{JobView, Refusal, StatsView, WarmView, json};
use hearth_model::{FieldError, JobId, Path, Segment, Spec, Tenant, Value, fields};
use hearth_planner::Status;

/// The fields of a POST.
pub(crate) const CREATE_FIELDS: &[&str] = &["job_id", "vm_id", "tenant", "spec"];

/// A POST that makes sense.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) job: Option<JobId>,
    pub(crate) tenant: Option<Tenant>,
    pub(crate) spec: Spec,
}

/// Reads the body of `POST /vms`.
pub(crate) fn create(body: &serde_json::Value) -> Result<Create, Box<Problem>> {
    let tree = json::from_json(body);
    let Value::Map(entries) = &tree else {
        return Err(unfit(vec![field("", format!("expected an object, found {}", tree.kind()))]));
    };
    let mut errors = Vec::new();
    for (key, _) in entries.iter().filter(|(key, _)| !CREATE_FIELDS.contains(&key.as_str())) {
        let help = match fields::suggest(key, CREATE_FIELDS) {
            Some(name) => format!("did you mean `{name}`?"),
            None if fields::SPEC_FIELDS.contains(&key.as_str()) => {
                format!("`{key}` belongs into `spec`")
            }
            None => format!("known fields are {}", CREATE_FIELDS.join(", ")),
        };
        let pointer = Path(vec![Segment::Key(key.clone())]).pointer();
        let detail = format!("unknown field `{key}`");
        errors.push(FieldProblem { pointer, detail, help: Some(help) });
    }
    let job_id = name(&tree, "job_id", JobId::parse, &mut errors);
    let vm_id = name(&tree, "vm_id", JobId::parse, &mut errors);
    let tenant = name(&tree, "tenant", Tenant::parse, &mut errors);
    if let (Some(job_id), Some(vm_id)) = (&job_id, &vm_id)
        && job_id != vm_id
    {
        let detail = format!("`vm_id` is another name for `job_id`, which is \"{job_id}\" here");
        let help = Some("leave it out".to_owned());
        errors.push(FieldProblem { pointer: "/vm_id".to_owned(), detail, help });
    }
    let spec = match tree.get("spec") {
        None | Some(Value::Null) => {
            errors.push(field("/spec", "missing field `spec`"));
            None
        }
        Some(spec) => Spec::read(spec)
            .map_err(|found| errors.extend(found.into_iter().map(|error| in_spec(&error))))
            .ok(),
    };
    match spec {
        Some(spec) if errors.is_empty() => Ok(Create { job: job_id.or(vm_id), tenant, spec }),
        _ => Err(unfit(errors)),
    }
}

fn name<T>(
    tree: &Value,
    key: &str,
    parse: impl Fn(&str) -> Result<T, hearth_model::IdError>,
    errors: &mut Vec<FieldProblem>,
) -> Option<T> {
    let outcome = match tree.get(key)? {
        Value::Null => return None,
        Value::String(text) => parse(text).map_err(|error| error.detail),
        other => Err(format!("expected a string, found {}", other.kind())),
    };
    outcome.map_err(|detail| errors.push(field(&format!("/{key}"), detail))).ok()
}

fn field(pointer: &str, detail: impl Into<String>) -> FieldProblem {
    FieldProblem { pointer: pointer.to_owned(), detail: detail.into(), help: None }
}

fn in_spec(error: &FieldError) -> FieldProblem {
    FieldProblem {
        pointer: format!("/spec{}", error.path.pointer()),
        detail: error.detail.clone(),
        help: error.help.clone(),
    }
}

fn unfit(errors: Vec<FieldProblem>) -> Box<Problem> {
    let count = errors.len();
    let noun = if count == 1 { "a problem" } else { "problems" };
    Box::new(Problem {
        kind: "urn:hearth:problem:invalid-body".to_owned(),
        title: "Invalid body".to_owned(),
        status: 422,
        detail: match count {
            1 => format!("the body has {noun}; nothing was changed"),
            _ => format!("the body has {count} {noun}; nothing was changed"),
        },
        help: None,
        generation: None,
        errors,
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
        spec: json::to_json(&view.spec.write()),
    }
}

/// Everything as it travels.
pub(crate) fn stats(view: &StatsView, desired_file: Option<DesiredFile>) -> Stats {
    let warm_pool: Vec<WarmVm> = view.warm_pool.iter().map(warm).collect();
    Stats {
        summary: Summary {
            total_jobs: view.jobs.len(),
            total_warm: warm_pool.iter().filter(|vm| vm.status == "warm").count(),
        },
        jobs: view.jobs.iter().map(job).collect(),
        warm_pool,
        unidentified: view.unidentified.clone(),
        desired_file,
    }
}

fn warm(view: &WarmView) -> WarmVm {
    WarmVm {
        spec_hash: view.hash.to_string(),
        vm_id: view.instance.warm_id(),
        status: view.status.to_owned(),
        reason: view.reason.clone(),
        spec: json::to_json(&view.spec.write()),
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
