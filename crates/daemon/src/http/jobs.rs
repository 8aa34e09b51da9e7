//! Jobs: create or replace, list, show, stop, start, delete.

use super::App;
use super::document::{self, Conditional, Keyed, Listed, OfJob, Refuses, Selecting, Shown};
use super::preconditions::{IDEMPOTENCY_REPEATED, PreconditionHeaders};
use super::problem::Refused;
use super::read::{self, JobPath, Params};
use crate::caller::CalledBy;
use crate::{convert, executor, limits};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hearth_api::document::Create;
use hearth_api::{Deleted, Job, JobStatus, Page};
use hearth_engine::{
    Accepted, Ask, Changed, Delete, JobPage, JobView, List, Preconditions, Restart, Start, Stop,
    Upsert,
};
use hearth_model::selector::Condition;
use hearth_model::{Caller, Declaration, JobId, Selector};
use hearth_planner::Status;
use std::sync::Arc;
use utoipa::IntoParams;

/// `POST /vms`: 201 with a warm instance, 202 without, 200 where it runs already.
#[utoipa::path(post, path = "/vms", operation_id = "createJob", summary = "Make a job, or replace its spec.",
    params(Keyed, Conditional),
    request_body(content = Create, content_type = "application/json", example = json!({
        "job_id": "web-app-2",
        "tenant": "production",
        "spec": {
            "rootfs": "rootfs-web.ext4",
            "kernel": "vmlinux",
            "cmd": ["/app/bin/server"],
            "env": {"MIX_ENV": "prod"},
            "resources": {"vcpu": 2, "mem_mb": 512},
            "lifecycle": "service",
            "warm_pool": {"min": 1, "max": 3}
        }
    })),
    responses(document::Changed<200>, document::Changed<201>, document::Changed<202>, Refuses<400>, Refuses<403>, Refuses<404>, Refuses<408>, Refuses<409>, Refuses<412>, Refuses<413>, Refuses<415>, Refuses<422>, Refuses<503>, Refuses<507>))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    conditions: PreconditionHeaders,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let body = read::json(&headers, body, read::CREATE).await?;
    let (Declaration { job_id: job, tenant, spec }, body) = convert::create(&body)?;
    if job.is_none() && conditions.names_generation() {
        let detail = "If-Match names a generation, and the body no job";
        return Err(
            Refused::new(412, "other-generation", "Other generation", detail).help("give a job_id")
        );
    }
    let _lookup = app.engine.lookup().await;
    let resolution = executor::resolve(&*app.host, &spec).await;
    let upsert = Upsert { job, tenant, spec: Arc::new(spec), resolution };
    change(&app, caller, conditions.preconditions(Some(&body)), upsert).await
}

/// Which page of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct ListPage {
    /// At most this many.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only jobs behind this one: the `next` of the page before.
    #[param(value_type = String, required = false, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    after: Option<String>,
    /// Only jobs with this status, or with one of several, with commas between.
    #[param(value_type = Vec<JobStatus>, required = false, style = Form, explode = false,
        min_items = 1)]
    status: Option<String>,
}

/// The parameters of [`ListPage`]; the others are the conditions of a [`Selector`].
const PAGE_PARAMETERS: [&str; 3] = ["limit", "after", "status"];

/// Reads the query of a list.
fn list_of(query: &[(String, String)]) -> Result<List, Refused> {
    let mut list = List { limit: limits::PAGE_ITEMS, ..List::default() };
    for (at, (name, value)) in query.iter().enumerate() {
        let repeatable = |condition: &Condition| condition.name == name && condition.is_repeatable;
        if query[..at].iter().any(|(earlier, _)| earlier == name)
            && !Selector::CONDITIONS.iter().any(repeatable)
        {
            return Err(read::bad_query(name, &format!("duplicate field `{name}`")));
        }
        match name.as_str() {
            "limit" => {
                let limit = value.parse().map_err(|_| read::bad_query(name, NOT_A_NUMBER))?;
                list.limit = read::count(name, limit, 1..=limits::PAGE_ITEMS)?;
            }
            "after" => {
                let after = JobId::parse(value);
                list.after = Some(after.map_err(|error| read::bad_query(name, &error.detail))?);
            }
            "status" => {
                let status = |word| read::one_of(name, word, Status::ALL, Status::as_str);
                list.statuses = value.split(',').map(status).collect::<Result<_, _>>()?;
            }
            _ => match list.selector.add(name, value) {
                Some(added) => added.map_err(|detail| read::bad_query(name, &detail))?,
                None => return Err(unknown(name)),
            },
        }
    }
    Ok(list)
}

const NOT_A_NUMBER: &str = "expected a number";

fn unknown(name: &str) -> Refused {
    let conditions = Selector::CONDITIONS.iter().map(|condition| condition.name);
    let known = PAGE_PARAMETERS.into_iter().chain(conditions);
    let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    let detail = format!("unknown field `{name}`, expected one of {}", known.join(", "));
    read::bad_query(name, &detail)
}

/// `GET /vms`: jobs by id, in pages.
#[utoipa::path(get, path = "/vms", operation_id = "listJobs", summary = "Jobs by id, in pages.",
    params(ListPage, Selecting),
    responses(Listed, Refuses<400>, Refuses<403>, Refuses<503>))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<Vec<(String, String)>>,
) -> Result<Json<Page<Job>>, Refused> {
    let JobPage { jobs, more } = app.engine.view().page(&list_of(&query)?);
    let items: Vec<Job> = jobs.iter().map(|view| convert::job(view)).collect();
    let next = items.last().filter(|_| more).map(|last| last.job_id.clone());
    Ok(Json(Page { items, next }))
}

/// `GET /vms/{job_id}`.
#[utoipa::path(get, path = "/vms/{job_id}", operation_id = "getJob", summary = "One job.",
    params(OfJob),
    responses(Shown, Refuses<403>, Refuses<404>, Refuses<503>))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    JobPath(job): JobPath,
) -> Result<impl IntoResponse, Refused> {
    Ok(shown(&*app.engine.job(&job)?))
}

/// `DELETE /vms/{job_id}`: 204 when it is gone, 202 while it stops.
#[utoipa::path(delete, path = "/vms/{job_id}", operation_id = "deleteJob", summary = "Delete a job and end its microVM.",
    params(OfJob, Conditional),
    responses((status = 202, description = "It is being stopped.", body = Deleted,
        headers(("Location" = String, description = "The job."))),
        (status = 204, description = "It is gone."), Refuses<400>, Refuses<403>, Refuses<404>, Refuses<412>, Refuses<503>, Refuses<507>))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    JobPath(job): JobPath,
    conditions: PreconditionHeaders,
) -> Result<Response, Refused> {
    let (preconditions, delete) = (conditions.preconditions(None), Delete { job: job.clone() });
    let hearth_engine::Deleted { gone } = app.engine.request(caller, preconditions, delete).await?;
    // It may be gone already.
    let Some(view) = (if gone { None } else { app.engine.job(&job).ok() }) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let vm_id = view.instance.as_ref().map(hearth_model::InstanceId::vm_id);
    let going = Deleted { job_id: job.to_string(), vm_id, status: JobStatus::Stopping };
    let location = [(header::LOCATION, location(&job))];
    Ok((StatusCode::ACCEPTED, location, Json(going)).into_response())
}

/// `POST /vms/{job_id}/stop`: 200 when it stands still, 202 while it stops.
#[utoipa::path(post, path = "/vms/{job_id}/stop", operation_id = "stopJob", summary = "End its microVM, keep the job. Cancels a `job` that runs: it ends as stopped.",
    params(OfJob, Keyed, Conditional),
    responses(document::Changed<200>, document::Changed<202>, Refuses<400>, Refuses<403>, Refuses<404>, Refuses<412>, Refuses<422>, Refuses<503>, Refuses<507>))]
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    JobPath(job): JobPath,
    conditions: PreconditionHeaders,
) -> Result<Response, Refused> {
    change(&app, caller, conditions.preconditions(None), Stop { job }).await
}

/// `POST /vms/{job_id}/start`: 200 when it runs, 202 while it starts.
#[utoipa::path(post, path = "/vms/{job_id}/start", operation_id = "startJob", summary = "Start a stopped job, or run a finished one again.",
    params(OfJob, Keyed, Conditional),
    responses(document::Changed<200>, document::Changed<202>, Refuses<400>, Refuses<403>, Refuses<404>, Refuses<412>, Refuses<422>, Refuses<503>, Refuses<507>))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    JobPath(job): JobPath,
    conditions: PreconditionHeaders,
) -> Result<Response, Refused> {
    change(&app, caller, conditions.preconditions(None), Start { job }).await
}

/// `POST /vms/{job_id}/restart`: 202, a new generation of the same spec is on its way.
#[utoipa::path(post, path = "/vms/{job_id}/restart", operation_id = "restartJob", summary = "Run it again, as a new generation of the same spec: a service beside its old microVM, a daemon or a job after it; a finished or stopped one runs again.",
    params(OfJob, Keyed, Conditional),
    responses(document::Changed<202>, Refuses<400>, Refuses<403>, Refuses<404>, Refuses<412>, Refuses<422>, Refuses<503>, Refuses<507>))]
pub(super) async fn restart(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    JobPath(job): JobPath,
    conditions: PreconditionHeaders,
) -> Result<Response, Refused> {
    let spec = app.engine.job(&job)?.spec.clone();
    let _lookup = app.engine.lookup().await;
    let resolution = executor::resolve(&*app.host, &spec).await;
    let restart = Restart { job, spec, resolution };
    change(&app, caller, conditions.preconditions(None), restart).await
}

/// Asks for a change and answers how it was accepted.
async fn change(
    app: &App,
    caller: Caller,
    preconditions: Preconditions,
    change: impl Ask<Reply = Changed>,
) -> Result<Response, Refused> {
    let Changed { accepted, job: view, repeated } =
        app.engine.request(caller, preconditions, change).await?;
    let status = match accepted {
        Accepted::Claimed => StatusCode::CREATED,
        Accepted::Pending => StatusCode::ACCEPTED,
        Accepted::Done => StatusCode::OK,
    };
    let location = [(header::LOCATION, location(&view.job))];
    let repeated = repeated.then_some([(IDEMPOTENCY_REPEATED, "true")]);
    Ok((status, location, repeated, shown(&view)).into_response())
}

/// The job, with its generation as its tag for `If-Match`.
fn shown(view: &JobView) -> impl IntoResponse + use<> {
    ([(header::ETAG, format!("\"{}\"", view.generation))], Json(convert::job(view)))
}

fn location(job: &JobId) -> String {
    format!("/vms/{job}")
}
