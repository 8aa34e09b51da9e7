//! The HTTP API. Handlers turn requests into questions to the engine and answers into JSON; they
//! decide nothing. Every error is a problem detail, those of the framework included.

mod declare;
mod document;
mod events;
mod guard;
mod images;
mod jobs;
mod logs;
mod offload;
mod ports;
mod preconditions;
mod problem;
mod read;
mod server;
mod socket;
mod state;

pub(crate) use guard::Guard;
pub(crate) use offload::Offload;
pub(crate) use problem::Refused;
pub(crate) use server::serve;

use crate::core::EngineHandle;
use crate::desired::WatchedSource;
use crate::limits;
use crate::stop::Stop;
use axum::Router;
use axum::extract::Request;
use axum::http::Response;
use hearth_api::DesiredFile;
use hearth_host::Host;
use hearth_model::KeepImages;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::Predicate;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What handlers need.
pub(crate) struct App {
    pub(crate) engine: EngineHandle,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) guard: Guard,
    /// Whether the host was ever seen.
    pub(crate) seen: watch::Receiver<bool>,
    /// How the desired-state file stands; `None` until it was looked at.
    pub(crate) desired: watch::Receiver<Option<DesiredFile>>,
    /// Told of applies of the desired-state file.
    pub(crate) watched: Arc<WatchedSource>,
    /// True once the daemon ends: followers of logs go.
    pub(crate) stop: Stop,
    pub(crate) tunnels: ports::Tunnels,
    /// Room for followers of logs and events.
    pub(crate) streams: Arc<Semaphore>,
    /// How long unused copies of images are kept.
    pub(crate) keep_images: KeepImages,
    /// Room for large bodies.
    pub(crate) offload: Offload,
}

/// The room that a follower takes among those that are bounded.
type StreamPermit = OwnedSemaphorePermit;

impl App {
    /// Room for one more follower.
    fn follow(&self) -> Result<StreamPermit, Refused> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("{} logs and events are followed already", limits::STREAMS_MAX);
            Refused::new(503, "unavailable", "Unavailable", detail)
        })
    }
}

/// What is worth compressing: answers whose length is known, which streams' is not, so that no
/// line waits in a compressor.
#[derive(Clone, Copy, Debug)]
struct Large;

impl Predicate for Large {
    fn should_compress<B: http_body::Body>(&self, response: &Response<B>) -> bool {
        let bytes = response.body().size_hint().exact();
        bytes.is_some_and(|bytes| bytes >= limits::COMPRESSED_BYTES_MIN)
    }
}

pub(crate) use ports::Tunnels;

/// Every route, with what the document says of it.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(document::Whole::openapi())
        .routes(routes!(jobs::list, jobs::create))
        .routes(routes!(jobs::show, jobs::delete))
        .routes(routes!(jobs::stop))
        .routes(routes!(jobs::start))
        .routes(routes!(jobs::restart))
        .routes(routes!(declare::plan))
        .routes(routes!(declare::apply))
        .routes(routes!(logs::logs))
        .routes(routes!(events::events_of_job))
        .routes(routes!(ports::connect))
        .routes(routes!(events::events))
        .routes(routes!(images::list))
        .routes(routes!(images::prune))
        .routes(routes!(state::stats))
        .routes(routes!(state::healthz))
        .routes(routes!(state::readyz))
        .routes(routes!(state::openapi))
}

/// What answers every request.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(no_such_page)
        .method_not_allowed_fallback(no_such_method)
        .layer(CompressionLayer::new().gzip(true).compress_when(Large))
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::check))
        .with_state(app)
}

/// The routes that need no name of a job.
const ROUTES: &str =
    "/vms, /plan, /apply, /events, /images, /stats, /healthz, /readyz and /openapi.json";

async fn no_such_page(request: Request) -> Refused {
    let path = request.uri().path();
    let shorter = path.trim_end_matches('/');
    let help = match shorter.is_empty() || shorter == path {
        true => format!("the routes are {ROUTES}"),
        false => format!("call {shorter}, without a slash at the end"),
    };
    let detail = format!("no such route: {path}");
    Refused::new(404, "no-such-page", "No such route", detail).help(help)
}

async fn no_such_method(request: Request) -> Refused {
    let (method, path) = (request.method(), request.uri().path());
    let detail = format!("{method} does nothing on {path}");
    Refused::new(405, "no-such-method", "Method not allowed", detail)
}
