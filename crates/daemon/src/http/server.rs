//! Accepts connections, a bounded number at once, and serves HTTP/1.1 on each.

use super::problem::Refused;
use super::socket::Socket;
use crate::limits;
use crate::listen::Listener;
use crate::stop::Stop;
use axum::Router;
use axum::extract::Request;
use axum::http::header;
use hearth_host::Duplex;
use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long accepting pauses after it failed, for instance for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is said at most that connections are turned away.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Serves until `stop` turns true, and then what is open for a little while.
pub(crate) async fn serve(listener: Listener, router: Router, mut stop: Stop) {
    let max = connections_max();
    let slots = Arc::new(Semaphore::new(max));
    let spares = Arc::new(Semaphore::new(limits::TURNED_AWAY_MAX.min(max / 8).max(1)));
    let full = full();
    let mut told: Option<Instant> = None;
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            // Whoever is accepted can be told at least that there is no room.
            let spare = spares.clone().acquire_owned().await;
            (spare, listener.accept().await)
        };
        tokio::select! {
            // Every arm is cancel safe.
            biased;
            () = stop.asked() => break,
            Some(_) = connections.join_next() => {}
            (spare, accepted) = next => match accepted {
                Ok(stream) => {
                    let (router, full, stop) = (router.clone(), full.clone(), stop.clone());
                    let slot = slots.clone().try_acquire_owned();
                    if slot.is_err() && told.is_none_or(|at| at.elapsed() > TELL_EVERY) {
                        told = Some(Instant::now());
                        tracing::warn!(max, "no room for another connection: it is turned away");
                    }
                    connections.spawn(async move {
                        if let Ok(_slot) = slot {
                            drop(spare);
                            converse(stream, router, stop).await;
                        } else {
                            let _spare = spare;
                            let turned_away = converse(stream, full, stop);
                            let _ = timeout(limits::TURN_AWAY_DEADLINE, turned_away).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(cause = %error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(limits::DRAIN_HTTP, ended).await.is_err() {
        tracing::info!(connections = connections.len(), "requests were cut off");
    }
}

/// What answers where there is no room for another connection.
fn full() -> Router {
    Router::new().fallback(async |request: Request| {
        // Who still sends would lose the answer at the close.
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        let refused = Refused::new(
            503,
            "connections",
            "Too many connections",
            "there is no room for another connection",
        )
        .help("close those that are not used, or try again");
        ([(header::CONNECTION, "close")], refused)
    })
}

/// How many connections there may be: half of the descriptors are for the database and the microVMs.
fn connections_max() -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = descriptors.and_then(|count| usize::try_from(count / 2).ok());
    limits::CONNECTIONS_MAX.min(half.unwrap_or(usize::MAX))
}

async fn converse(stream: Box<dyn Duplex>, router: Router, mut stop: Stop) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_DEADLINE)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Socket::new(stream)), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        // The connection goes on below where the daemon ends first.
        biased;
        outcome = connection.as_mut() => outcome,
        () = stop.asked() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(cause = %error, "a connection broke");
    }
}
