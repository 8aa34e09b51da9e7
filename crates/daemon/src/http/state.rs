//! What is going on: stats, health.

use super::App;
use super::document::Refuses;
use super::problem::Refused;
use crate::caller::CalledBy;
use crate::convert;
use crate::core::{AskError, EngineHandle};
use crate::limits;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use hearth_api::{Health, Readiness, Stats};
use hearth_engine::{CheckReady, Preconditions, Refusal};
use hearth_model::Caller;
use std::sync::Arc;

/// `GET /stats`.
#[utoipa::path(get, path = "/stats", operation_id = "readStats", summary = "All jobs and all warm microVMs.",

    responses((status = 200, description = "Everything.", body = Stats), Refuses<403>, Refuses<503>))]
pub(super) async fn stats(State(app): State<Arc<App>>) -> Result<impl IntoResponse, Refused> {
    let body = convert::stats(&app.engine.view(), app.desired.borrow().clone());
    Ok(([(header::CONTENT_TYPE, "application/json")], body))
}

/// The page that every local user may read.
pub(super) const HEALTH_PATH: &str = "/healthz";

/// `GET /healthz`: the process is there and answers.
#[utoipa::path(get, path = "/healthz", operation_id = "readHealth", summary = "The process is there and answers.",

    responses((status = 200, description = "It is.", body = Health), Refuses<403>))]
pub(super) async fn healthz() -> Json<Health> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(Health { status: "ok".to_owned(), version })
}

/// `GET /openapi.json`: this API, for programs.
#[utoipa::path(get, path = "/openapi.json", operation_id = "readOpenApi", summary = "This document.",

    responses((status = 200, description = "OpenAPI 3.1.", body = Object), Refuses<403>))]
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], hearth_api::OPENAPI)
}

/// `GET /readyz`: the host was seen, the desired-state file was looked at, changes are accepted.
#[utoipa::path(get, path = "/readyz", operation_id = "readReadiness", summary = "The host was seen, the desired-state file was looked at, changes are accepted.",

    responses((status = 200, description = "It is ready.", body = Readiness), Refuses<403>, Refuses<503>))]
pub(super) async fn readyz(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
) -> Result<Json<Readiness>, Refused> {
    let desired = app.desired.borrow().clone();
    let waits_for = match (*app.seen.borrow(), desired.is_some()) {
        (false, _) => Some("the host was not seen yet"),
        (true, false) => Some("the desired-state file is being loaded"),
        (true, true) => None,
    };
    if let Some(detail) = waits_for {
        return Err(not_ready(detail));
    }
    accepts_changes(&app.engine, caller).await?;
    let facts = app.host.facts();
    let file_problem = desired.and_then(|file| match (file.problem, file.help) {
        (Some(problem), Some(help)) => Some(format!("{problem}; {help}")),
        (problem, _) => problem,
    });
    Ok(Json(Readiness {
        status: "ready".to_owned(),
        host: facts.description,
        warnings: facts.warnings,
        desired_file: file_problem,
    }))
}

/// Asks the engine, since whether the database can be written has to be tried: behind the commit under way.
async fn accepts_changes(engine: &EngineHandle, caller: Caller) -> Result<(), Refused> {
    let deadline = limits::READY_DEADLINE;
    match engine.request_within(deadline, caller, Preconditions::NONE, CheckReady).await {
        Err(AskError::Refused(why @ (Refusal::Store { .. } | Refusal::Lost { .. }))) => {
            Err(not_ready(format!("changes are refused: {why}")))
        }
        Err(AskError::Slow) => {
            let seconds = deadline.as_secs();
            Err(not_ready(format!("the database has not answered for {seconds} s")))
        }
        ready => Ok(ready?),
    }
}

fn not_ready(detail: impl Into<String>) -> Refused {
    Refused::new(503, "not-ready", "Not ready", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn daemon_whose_disk_hangs_is_soon_not_ready() {
        let (engine, _inbox) = EngineHandle::open();
        let begin = Instant::now();
        let refused = accepts_changes(&engine, Caller::Hearth).await.unwrap_err();
        assert_eq!(begin.elapsed(), limits::READY_DEADLINE);
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.detail(), "the database has not answered for 5 s");
    }
}
