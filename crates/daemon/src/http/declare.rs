//! Declared jobs: what applying them would do, and doing it.

use super::App;
use super::document::Refuses;
use super::problem::Refused;
use super::read;
use crate::convert::declared::{self, DeclaredJob};
use crate::executor;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use hearth_api::Plan;
use hearth_api::document::Declare;
use hearth_engine::{Against, Deletions, FileEntry, FileLoad, Reply, Request};
use std::sync::Arc;

/// `POST /plan`.
#[utoipa::path(post, path = "/plan", operation_id = "planJobs", summary = "Say what applying these jobs would do, and change nothing.",
    request_body(content = Declare, content_type = "application/json"),
    responses((status = 200, description = "What would be done.", body = Plan), Refuses<400>, Refuses<403>, Refuses<408>, Refuses<413>, Refuses<415>, Refuses<422>, Refuses<503>))]
pub(super) async fn plan(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Plan>, Refused> {
    match app.intake.ask(Request::PlanFile(load(&app, &headers, body).await?)).await? {
        Reply::Planned(plan) => Ok(Json(declared::plan(&plan))),
        _ => Err(Refused::confused()),
    }
}

/// `POST /apply`.
#[utoipa::path(post, path = "/apply", operation_id = "applyJobs", summary = "Make it so: the jobs as they are declared, and of the source's earlier jobs no others.",
    request_body(content = Declare, content_type = "application/json"),
    responses((status = 200, description = "What was done.", body = Plan), Refuses<400>, Refuses<403>, Refuses<408>, Refuses<413>, Refuses<415>, Refuses<422>, Refuses<503>, Refuses<507>))]
pub(super) async fn apply(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Plan>, Refused> {
    let load = load(&app, &headers, body).await?;
    let source = load.path.clone();
    let Reply::Applied(plan) = app.intake.ask(Request::ApplyFile(load)).await? else {
        return Err(Refused::confused());
    };
    if let Some(source) = source {
        app.watched.applied(&source);
    }
    Ok(Json(declared::plan(&plan)))
}

async fn load(app: &App, headers: &HeaderMap, body: Body) -> Result<FileLoad, Refused> {
    let body = read::json(headers, body, read::DECLARED).await?;
    let declared = declared::declared(&body)?;
    let specs = declared.jobs.iter().map(|declared| &*declared.spec);
    let resolutions = executor::resolve_all(&*app.host, specs).await;
    let entry = |(DeclaredJob { job, tenant, spec }, resolution)| FileEntry {
        job,
        tenant,
        spec,
        resolution,
    };
    let entries = declared.jobs.into_iter().zip(resolutions).map(entry).collect();
    let deletions = if declared.allow_delete { Deletions::All } else { Deletions::Few };
    Ok(FileLoad { path: declared.source, entries, deletions, against: Against::Jobs })
}
