//! What happened: in pages, or as live server-sent events.
//!
//! A follower holds nothing but its place. It takes what is new from a bounded buffer that all
//! followers share; one that falls behind, or comes back, reads on in the database.

use super::document::{OfJob, Refuses};
use super::problem::Refused;
use super::read::{self, JobPath, Params};
use super::{App, StreamPermit};
use crate::caller::CalledBy;
use crate::{convert, limits};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hearth_api::{EVENT_STREAM, Page};
use hearth_engine::{Event, EventPage, Events, Preconditions};
use hearth_model::{Caller, JobId};
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

/// How long a client that was cut off waits before it comes back.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// At most this many.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only those behind this one, from there on; the newest if it is absent.
    #[param(value_type = u64, required = false, minimum = 0)]
    after: Option<u64>,
}

/// Where a client was that comes back.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only its shape is used")]
pub(super) struct LastEventId {
    /// For a stream: the last event that was seen.
    #[param(rename = "Last-Event-ID", value_type = u64, required = false, minimum = 0)]
    id: Option<u64>,
}

/// `GET /events`: a page, or a stream for `Accept: text/event-stream`.
#[utoipa::path(get, path = "/events", operation_id = "listEvents", summary = "What happened: a page, or with `Accept: text/event-stream` a live stream.",
    params(EventParams, LastEventId),
    responses((status = 200, description = "Events, oldest first.",
        content((Page<hearth_api::Event> = "application/json"), (String = "text/event-stream"))), Refuses<400>, Refuses<403>, Refuses<503>))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    Params(params): Params<EventParams>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(app, caller, None, params, &headers).await
}

/// `GET /vms/{job_id}/events`: those of one job, also after its end.
#[utoipa::path(get, path = "/vms/{job_id}/events", operation_id = "listJobEvents", summary = "What happened to a job, also after its end: a page, or with `Accept: text/event-stream` a stream.",
    params(OfJob, EventParams, LastEventId),
    responses((status = 200, description = "Events, oldest first.",
        content((Page<hearth_api::Event> = "application/json"), (String = "text/event-stream"))), Refuses<400>, Refuses<403>, Refuses<404>, Refuses<503>))]
pub(super) async fn events_of_job(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    JobPath(job): JobPath,
    Params(params): Params<EventParams>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    answer(app, caller, Some(job), params, &headers).await
}

async fn answer(
    app: Arc<App>,
    caller: Caller,
    job: Option<JobId>,
    params: EventParams,
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let last = last_event_id(headers)?;
    if params.after.is_some_and(|after| i64::try_from(after).is_err()) {
        return Err(read::bad_query("after", "it is larger than any event's id"));
    }
    if !read::accepts(headers, EVENT_STREAM) {
        let limit = params.limit.unwrap_or(limits::EVENTS_DEFAULT);
        let limit = read::count("limit", limit, 1..=limits::EVENTS_MAX)?;
        let page = page(&app, caller, Events { job, after: params.after, limit }).await?;
        let next = page.events.last().filter(|_| page.more).map(|last| last.id.to_string());
        let items = page.events.iter().map(convert::event).collect();
        return Ok(Json(Page { items, next }).into_response());
    }
    let limit = match params.limit {
        Some(limit) => read::count("limit", limit, 1..=limits::EVENTS_MAX)?,
        None => 0,
    };
    let permit = app.follow()?;
    // Before the first page is read, so that nothing falls between.
    let live = app.engine.events();
    let first = sse::Event::default().retry(RECONNECT_AFTER);
    let mut follower = Follower {
        app,
        caller,
        job,
        last: 0,
        behind: true,
        live,
        queue: VecDeque::from([first]),
        _permit: permit,
    };
    match last.or(params.after) {
        Some(last) => {
            follower.last = last;
            follower.catch_up().await?;
        }
        None => follower.begin(limit).await?,
    }
    let events = stream::unfold(follower, |mut follower| async move {
        follower.next().await.map(|event| (Ok::<_, Infallible>(event), follower))
    });
    let alive = KeepAlive::new().interval(limits::HEARTBEAT_EVERY);
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

async fn page(app: &App, caller: Caller, events: Events) -> Result<EventPage, Refused> {
    Ok(app.engine.request(caller, Preconditions::NONE, events).await?)
}

/// Where a client was that comes back.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    let id = id.filter(|id| i64::try_from(*id).is_ok());
    let wrong = || {
        let detail = format!("Last-Event-ID is {value:?}, which is not the id of an event");
        Refused::new(400, "bad-header", "Bad header", detail)
    };
    id.map(Some).ok_or_else(wrong)
}

/// Where a stream stands.
struct Follower {
    app: Arc<App>,
    caller: Caller,
    job: Option<JobId>,
    /// The last event that was sent, or would have been had it been of this job.
    last: u64,
    /// Whether there may be events in the database that `live` does not have.
    behind: bool,
    live: broadcast::Receiver<Arc<Event>>,
    /// A page at most.
    queue: VecDeque<sse::Event>,
    _permit: StreamPermit,
}

impl Follower {
    /// The next event; `None` when the daemon ends or the database can't be read.
    async fn next(&mut self) -> Option<sse::Event> {
        let mut stop = self.app.stop.clone();
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if self.behind {
                self.catch_up().await.ok()?;
                continue;
            }
            let received = tokio::select! {
                // Both arms are cancel safe.
                biased;
                () = stop.asked() => return None,
                received = self.live.recv() => received,
            };
            match received {
                Ok(event) if event.id > self.last => {
                    self.last = event.id;
                    if self.job.is_none() || self.job == event.job {
                        self.queue.push_back(written(&event));
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Begins with the newest events.
    async fn begin(&mut self, limit: usize) -> Result<(), Refused> {
        let events = Events { job: self.job.clone(), after: None, limit };
        let page = page(&self.app, self.caller, events).await?;
        self.queue.extend(page.events.iter().map(written));
        self.last = page.newest;
        self.behind = false;
        Ok(())
    }

    /// Reads a page behind the last event from the database.
    async fn catch_up(&mut self) -> Result<(), Refused> {
        let (job, limit) = (self.job.clone(), limits::EVENTS_MAX);
        let events = Events { job, after: Some(self.last), limit };
        let page = page(&self.app, self.caller, events).await?;
        let dropped = self.last != 0 && self.last + 1 < page.oldest;
        if dropped || self.last > page.newest {
            self.queue.push_back(lost(self.last, &page));
        }
        self.queue.extend(page.events.iter().map(written));
        self.behind = page.more;
        self.last = match page.events.last() {
            Some(last) if page.more => last.id,
            _ => page.newest,
        };
        Ok(())
    }
}

fn written(event: &Event) -> sse::Event {
    let data = serde_json::to_string(&convert::event(event)).unwrap_or_default();
    sse::Event::default().id(event.id.to_string()).data(data)
}

/// What a client is told that has missed events for good.
fn lost(last: u64, page: &EventPage) -> sse::Event {
    let EventPage { oldest, newest, .. } = page;
    let message = format!("events behind {last} are lost; {oldest} to {newest} are kept");
    let data = serde_json::json!({ "after": last, "oldest": oldest, "newest": newest, "message": message });
    sse::Event::default().event("lost").data(data.to_string())
}
