//! Declared jobs: what applying them would do, and doing it. Bodies are read, checked and answered
//! away from the threads that serve.

use super::App;
use super::document::Refuses;
use super::offload::Room;
use super::problem::Refused;
use super::read;
use crate::caller::CalledBy;
use crate::convert::declared;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use hearth_api::Plan;
use hearth_api::document::Declare;
use hearth_engine::{ApplyFile, Deletions, DiffBase, FileLoad, LoadPlan, PlanFile, Preconditions};
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// `POST /plan`.
#[utoipa::path(post, path = "/plan", operation_id = "planJobs", summary = "Say what applying these jobs would do, and change nothing.",
    request_body(content = Declare, content_type = "application/json"),
    responses((status = 200, description = "What would be done.", body = Plan), Refuses<400>, Refuses<403>, Refuses<408>, Refuses<413>, Refuses<415>, Refuses<422>, Refuses<503>))]
pub(super) async fn plan(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Refused> {
    let (load, _held) = load(&app, &headers, body).await?;
    let plan = app.engine.request(caller, Preconditions::NONE, PlanFile(load)).await?;
    Ok(written(plan).await)
}

/// `POST /apply`.
#[utoipa::path(post, path = "/apply", operation_id = "applyJobs", summary = "Apply a declaration: the jobs as they are declared, and of the source's earlier jobs no others.",
    request_body(content = Declare, content_type = "application/json"),
    responses((status = 200, description = "What was done.", body = Plan), Refuses<400>, Refuses<403>, Refuses<408>, Refuses<413>, Refuses<415>, Refuses<422>, Refuses<503>, Refuses<507>))]
pub(super) async fn apply(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Refused> {
    let (load, _held) = load(&app, &headers, body).await?;
    let source = load.path.clone();
    let plan = app.engine.request(caller, Preconditions::NONE, ApplyFile(load)).await?;
    if let Some(source) = source {
        app.watched.applied(&source);
    }
    Ok(written(plan).await)
}

/// What is declared, and what it holds until it is answered.
async fn load(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<(FileLoad, (Room, impl Send + use<>)), Refused> {
    let bytes_max = read::announced(headers, read::DECLARED)?;
    let room = app.offload.room(bytes_max).await?;
    let bytes = read::whole(body, read::DECLARED).await?;
    let declared = app
        .offload
        .work(move |gone| declared::declared(&bytes, gone).map_err(Refused::from))
        .await??;
    let lookup = app.engine.lookup().await;
    let entries = declared::resolved(&*app.host, declared.jobs).await;
    let deletions = if declared.allow_delete { Deletions::All } else { Deletions::Few };
    let load = FileLoad { path: declared.source, entries, deletions, against: DiffBase::Jobs };
    Ok((load, (room, lookup)))
}

/// A plan as JSON. It is as large as its request and the jobs that it changes, so it is written on a
/// thread of its own.
async fn written(plan: LoadPlan) -> impl IntoResponse {
    let write = move || serde_json::to_vec(&declared::plan(&plan));
    let body = spawn_blocking(write).await.ok().and_then(Result::ok);
    let body = body.expect("a plan holds only what JSON can say");
    ([(header::CONTENT_TYPE, "application/json")], body)
}
