//! What only the fuzz targets reach. It exists only under `--cfg fuzzing`.

use crate::core;
use crate::desired::{DesiredPath, WatchedSource};
use crate::http::{self, App, Guard, Offload, Tunnels};
use crate::stop::Stop;
use crate::{Listen, limits};
use axum::Router;
use hearth_engine::Engine;
use hearth_host::Host;
use hearth_model::KeepImages;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, watch};

/// The API as it is served, over an engine whose work is not carried out: every job stays on its
/// way. Lives as long as what is returned.
///
/// # Panics
/// Where no thread can be started.
#[must_use]
pub fn api(engine: Engine, host: Arc<dyn Host>, listen: &Listen) -> (Router, impl Sized) {
    let (work, inbox) = mpsc::unbounded_channel();
    let (engine, end) = core::spawn(engine, host.clone(), work).expect("a thread is started");
    let (stop, stopping) = Stop::channel();
    let app = App {
        engine,
        host,
        guard: Guard::new(listen),
        seen: watch::channel(true).1,
        desired: watch::channel(None).1,
        watched: Arc::new(WatchedSource::new(&DesiredPath::Default)),
        stop: stopping,
        tunnels: Tunnels::default(),
        streams: Arc::new(Semaphore::new(limits::STREAMS_MAX)),
        offload: Offload::default(),
        keep_images: KeepImages::NONE,
    };
    (http::router(Arc::new(app)), (inbox, end, stop))
}
