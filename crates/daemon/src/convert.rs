//! Between the wire and the model. Every bad field of a body is named at once.

pub(crate) mod declared;

use crate::clock;
use crate::core::AskError;
use hearth_api::{
    CallerKind, DesiredFile, Event, Exit, ExitKind, FieldProblem, Job, JobStatus, KilledProcess,
    Pool, Problem, Summary, WarmVm,
};
use hearth_desired_file::{BodyError, Diagnostic};
use hearth_engine::{EventKind, JobExit, JobView, PoolView, Refusal, View, WarmView};
use hearth_model::{Caller, Declaration, End, KnownBy, OomKill};
use hearth_planner::Status;
use hearth_store::json::{self, Tree};
use serde::{Serialize, Serializer};

/// Reads the body of `POST /vms`. The tree is what a repeat of the request is compared by.
pub(crate) fn create(body: &[u8]) -> Result<(Declaration, Tree), Box<Problem>> {
    let (declaration, tree) = hearth_desired_file::read_declaration(body).map_err(unfit)?;
    Ok((declaration, Tree(tree)))
}

/// Why a body is refused.
fn unfit(error: BodyError) -> Box<Problem> {
    Box::new(match error {
        BodyError::NotJson(at) => {
            let Diagnostic { message, line, column, .. } = *at;
            let detail = format!("the body is not JSON: {message} at line {line} column {column}");
            let help = at.help.unwrap_or_else(|| "nothing was changed".to_owned());
            Problem { help: Some(help), ..problem(400, "not-json", "Not JSON", detail) }
        }
        BodyError::Fields { problems, omitted } => {
            let listed = problems.len();
            let detail = match (listed, omitted) {
                (1, 0) => "the body has a problem; nothing was changed".to_owned(),
                (_, 0) => format!("the body has {listed} problems; nothing was changed"),
                _ => format!(
                    "the body has {} problems, of which the first {listed} are listed; nothing was \
                     changed",
                    listed + omitted
                ),
            };
            let field = |problem: hearth_desired_file::FieldProblem| FieldProblem {
                pointer: problem.pointer,
                detail: problem.detail,
                help: problem.help,
            };
            Problem {
                errors: problems.into_iter().map(field).collect(),
                errors_omitted: omitted,
                ..problem(422, "invalid-body", "Invalid body", detail)
            }
        }
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

/// A problem that may pass: 503, which is answered with `Retry-After`. No other one tells a client to try again.
pub(crate) fn for_now(slug: &str, title: &str, detail: impl Into<String>, help: &str) -> Problem {
    Problem { help: Some(help.to_owned()), ..problem(503, slug, title, detail) }
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
        AskError::Refused(Refusal::Store { disk_full: true, .. }) => Problem {
            help: Some("free space on the disk of the state directory".to_owned()),
            ..problem(507, "disk-full", "Disk full", detail)
        },
        AskError::Refused(Refusal::Store { .. }) => {
            for_now("database", "Database unavailable", detail, "try again")
        }
        AskError::Refused(Refusal::Lost { .. }) => {
            problem(503, "database-lost", "Database lost", detail)
        }
        AskError::Busy => for_now("unavailable", "Unavailable", detail, "try again"),
        AskError::Slow => for_now("unavailable", "Unavailable", detail, "look again"),
        AskError::Ending => {
            for_now("unavailable", "Unavailable", detail, "try again once it is back")
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
        reason: view.reason_at(clock::mono()),
        since: view.since.clone().unwrap_or_else(|| clock::now().wall),
        generation: view.generation.0,
        exit_code: view.exit_code,
        exit: view.exit.as_ref().map(exit),
        confined: view.unconfined.then_some(false),
        spec: json::spec_to_json(&view.spec),
    }
}

/// [`hearth_api::Stats`] as it is written: one job after the other, so that ten thousand of them do
/// not stand in memory beside what they are made of.
#[derive(Serialize)]
struct Everything<'a> {
    summary: Summary,
    #[serde(serialize_with = "each_job")]
    jobs: &'a View,
    pools: Vec<Pool>,
    #[serde(serialize_with = "each_warm")]
    warm_pool: &'a View,
    unidentified: &'a [String],
    desired_file: Option<DesiredFile>,
}

fn each_job<S: Serializer>(view: &View, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(view.jobs().map(job))
}

fn each_warm<S: Serializer>(view: &View, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(view.warm_pool().map(warm))
}

/// Everything as it travels: the JSON of [`hearth_api::Stats`].
pub(crate) fn stats(view: &View, desired_file: Option<DesiredFile>) -> Vec<u8> {
    let everything = Everything {
        summary: Summary {
            total_jobs: view.jobs_count(),
            total_warm: view.warm_pool().filter(|vm| vm.status == "warm").count(),
        },
        jobs: view,
        pools: view.pools().map(pool).collect(),
        warm_pool: view,
        unidentified: view.unidentified(),
        desired_file,
    };
    serde_json::to_vec(&everything).expect("it holds only what JSON can say")
}

fn pool(view: &PoolView) -> Pool {
    Pool {
        tenant: view.tenant.as_ref().map(ToString::to_string),
        spec_hash: view.hash.to_string(),
        rootfs: view.rootfs.clone(),
        jobs: view.jobs,
        target: view.target,
        warm: view.warm,
        starting: view.starting,
        hits: view.claims.hits,
        misses: view.claims.misses,
    }
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
    let mut told = Event {
        id: event.id,
        at: event.at.clone(),
        job_id: event.job.as_ref().map(ToString::to_string),
        instance: event.instance.as_ref().map(ToString::to_string),
        generation: event.generation.map(|generation| generation.0),
        caller: event.caller.map(caller),
        kind: hearth_api::EventKind::Unknown,
        message: event.message.clone(),
        exit: None,
        killed: Vec::new(),
        killed_count: None,
        status: None,
        reason: None,
    };
    told.kind = match &event.kind {
        EventKind::Accepted => hearth_api::EventKind::Accepted,
        EventKind::Adopted => hearth_api::EventKind::Adopted,
        EventKind::Claimed => hearth_api::EventKind::Claimed,
        EventKind::Creating => hearth_api::EventKind::Creating,
        EventKind::Deleted => hearth_api::EventKind::Deleted,
        EventKind::Error => hearth_api::EventKind::Error,
        EventKind::Exited(how) => {
            told.exit = how.as_ref().map(exit);
            hearth_api::EventKind::Exited
        }
        EventKind::Loaded => hearth_api::EventKind::Loaded,
        EventKind::OomKill { killed, count } => {
            let process = |kill: &OomKill| KilledProcess { pid: kill.pid, name: kill.name.clone() };
            told.killed = killed.iter().map(process).collect();
            told.killed_count = *count;
            hearth_api::EventKind::OomKill
        }
        EventKind::Status { status: now, reason } => {
            told.status = now.map(status);
            told.reason.clone_from(reason);
            hearth_api::EventKind::Status
        }
        EventKind::Stopping { reason } => {
            told.reason.clone_from(reason);
            hearth_api::EventKind::Stopping
        }
        EventKind::Unknown => hearth_api::EventKind::Unknown,
    };
    told
}

/// A caller as it travels.
fn caller(caller: Caller) -> hearth_api::Caller {
    let other = |kind| hearth_api::Caller { kind, uid: None, known_by: None };
    match caller {
        Caller::User { uid, known_by } => hearth_api::Caller {
            kind: CallerKind::User,
            uid: Some(uid),
            known_by: Some(match known_by {
                KnownBy::PeerCredentials => hearth_api::KnownBy::PeerCredentials,
                KnownBy::SocketOwner => hearth_api::KnownBy::SocketOwner,
            }),
        },
        Caller::DesiredFile => other(CallerKind::DesiredFile),
        Caller::Hearth => other(CallerKind::Hearth),
        Caller::Unknown => other(CallerKind::Unknown),
    }
}

/// How a command exited, as it travels.
fn exit(exit: &JobExit) -> Exit {
    let (kind, code, signal) = match &exit.end {
        End::Code(code) => (ExitKind::Exited, Some(*code), None),
        End::Signal(signal) => (ExitKind::Signaled, None, Some(*signal)),
        End::OutOfMemory => (ExitKind::OomKilled, None, None),
        End::OverLimit(_) => (ExitKind::OverLimit, None, None),
        End::NotStarted(_) | End::SetUp(_) | End::NotCreated(_) | End::NeverStarted => {
            (ExitKind::NeverStarted, None, None)
        }
        End::Panic(_) | End::Vmm(_) | End::Unknown => (ExitKind::Unknown, None, None),
    };
    let kind = if exit.timed_out { ExitKind::TimedOut } else { kind };
    Exit { kind, code, signal }
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

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_model::JobId;

    #[test]
    fn only_a_refusal_that_may_pass_asks_to_try_again() {
        let job = || JobId::parse("web").expect("a name");
        let store = |disk_full| Refusal::Store { detail: "x".to_owned(), disk_full };
        let (key, detail) = ("k".to_owned(), "x".to_owned());
        for (error, status, help) in [
            (AskError::Busy, 503, Some("try again")),
            (AskError::Slow, 503, Some("look again")),
            (AskError::Ending, 503, Some("try again once it is back")),
            (store(false).into(), 503, Some("try again")),
            (store(true).into(), 507, Some("free space on the disk of the state directory")),
            (Refusal::Lost { detail }.into(), 503, None),
            (Refusal::NotFound(job()).into(), 404, None),
            (Refusal::GoneSince(job()).into(), 404, None),
            (Refusal::KeyOfAnother { key, job: job() }.into(), 422, None),
            (Refusal::OtherGeneration { job: job(), current: None }.into(), 412, None),
            (Refusal::OtherTenant(job()).into(), 409, None),
        ] {
            let problem = refused(&error);
            assert_eq!((problem.status, problem.help.as_deref()), (status, help), "{error:?}");
            assert!(!problem.detail.contains("try again"), "{}", problem.detail);
        }
    }
}
