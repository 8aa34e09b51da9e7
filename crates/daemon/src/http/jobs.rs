//! Jobs: create or replace, list, show, stop, start, delete.

use super::App;
use super::problem::Refused;
use super::read::{self, JobPath, Params};
use crate::{convert, executor, limits};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hearth_api::{Deleted, Job, JobStatus, Page};
use hearth_engine::{Accepted, JobView, Reply, Request, Upsert};
use hearth_model::JobId;
use serde::Deserialize;
use std::sync::Arc;

/// `POST /vms`: 201 with a warm instance, 202 without, 200 where it runs already.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let body = read::json(&headers, body).await?;
    let convert::Create { job, tenant, spec } = convert::create(&body)?;
    let resolution = executor::resolve(&*app.host, &spec).await;
    let upsert = Upsert { job, tenant, spec: Arc::new(spec), resolution };
    match app.intake.ask(Request::Upsert(upsert)).await? {
        Reply::Upserted(accepted, view) => {
            let status = match accepted {
                Accepted::Claimed => StatusCode::CREATED,
                Accepted::Pending => StatusCode::ACCEPTED,
                Accepted::Unchanged => StatusCode::OK,
            };
            Ok((status, [(header::LOCATION, location(&view.job))], shown(&view)).into_response())
        }
        _ => Err(Refused::confused()),
    }
}

/// Which part of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListParams {
    /// At most this many.
    limit: Option<usize>,
    /// Only jobs behind this one: the `next` of the page before.
    after: Option<String>,
}

/// `GET /vms`: jobs by id, in pages.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(ListParams { limit, after }): Params<ListParams>,
) -> Result<Json<Page<Job>>, Refused> {
    let limit = limit.unwrap_or(limits::PAGE_ITEMS).clamp(1, limits::PAGE_ITEMS);
    let Reply::Jobs(views) = app.intake.ask(Request::List).await? else {
        return Err(Refused::confused());
    };
    let behind = |view: &&JobView| after.as_deref().is_none_or(|after| view.job.as_str() > after);
    let mut rest = views.iter().filter(behind);
    let items: Vec<Job> = rest.by_ref().take(limit).map(convert::job).collect();
    let next = rest.next().and(items.last()).map(|last| last.job_id.clone());
    Ok(Json(Page { items, next }))
}

/// `GET /vms/{job_id}`.
pub(super) async fn show(
    State(app): State<Arc<App>>,
    JobPath(job): JobPath,
) -> Result<Json<Job>, Refused> {
    Ok(shown(&view(&app, &job).await?))
}

/// `DELETE /vms/{job_id}`: 204 when it is gone, 202 while it stops.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    JobPath(job): JobPath,
) -> Result<Response, Refused> {
    let Reply::Deleted { gone } = app.intake.ask(Request::Delete { job: job.clone() }).await?
    else {
        return Err(Refused::confused());
    };
    // It may be gone by now.
    let Some(view) = (if gone { None } else { view(&app, &job).await.ok() }) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let vm_id = view.instance.as_ref().map(hearth_model::InstanceId::vm_id);
    let going = Deleted { job_id: job.to_string(), vm_id, status: JobStatus::Stopping };
    let location = [(header::LOCATION, location(&job))];
    Ok((StatusCode::ACCEPTED, location, Json(going)).into_response())
}

/// `POST /vms/{job_id}/stop`: 200 when it stands still, 202 while it stops.
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    JobPath(job): JobPath,
) -> Result<Response, Refused> {
    change(&app, Request::Stop { job }).await
}

/// `POST /vms/{job_id}/start`: 200 when it runs, 202 while it starts.
pub(super) async fn start(
    State(app): State<Arc<App>>,
    JobPath(job): JobPath,
) -> Result<Response, Refused> {
    change(&app, Request::Start { job }).await
}

async fn change(app: &App, request: Request) -> Result<Response, Refused> {
    let Reply::Job(view) = app.intake.ask(request).await? else {
        return Err(Refused::confused());
    };
    let Json(job) = shown(&view);
    let settled = job.status.is_final() || job.status == JobStatus::Running;
    let status = if settled { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, [(header::LOCATION, location(&view.job))], Json(job)).into_response())
}

/// The engine's view of a job.
pub(super) async fn view(app: &App, job: &JobId) -> Result<JobView, Refused> {
    match app.intake.ask(Request::Get { job: job.clone() }).await? {
        Reply::Job(view) => Ok(view),
        _ => Err(Refused::confused()),
    }
}

fn shown(view: &JobView) -> Json<Job> {
    Json(convert::job(view))
}

fn location(job: &JobId) -> String {
    format!("/vms/{job}")
}
