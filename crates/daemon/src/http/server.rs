//! Accepts connections, a bounded number at once, and serves HTTP/1.1 on each that is admitted.

use super::problem::Refused;
use super::socket::Socket;
use super::state::HEALTH_PATH;
use crate::admission::{Admission, Policy};
use crate::caller;
use crate::limits;
use crate::listen::{Accepted, Listener};
use crate::stop::Stop;
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hearth_host::Duplex;
use hearth_host::linux::peer::PeerError;
use hearth_model::Caller;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long accepting pauses after it failed, for instance for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is said at most that connections are turned away, or callers.
const TELL_EVERY: Duration = Duration::from_secs(10);

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What a connection holds until it has ended, or found another place.
type Place = Option<OwnedSemaphorePermit>;

/// What all connections share.
struct Server {
    router: Router,
    /// Answers where there is no room.
    full: Router,
    policy: Policy,
    /// Most connections that are served.
    max: usize,
    connections: Arc<Semaphore>,
    /// For callers whom the user database has to be asked about.
    undecided: Arc<Semaphore>,
    /// For callers who are not admitted.
    strangers: Arc<Semaphore>,
    said_full: Seldom,
    said_refused: Seldom,
    stop: Stop,
}

/// Serves until `stop` turns true, and then what is open for a little while.
pub(crate) async fn serve(listener: Listener, router: Router, policy: Policy, mut stop: Stop) {
    let max = connections_max();
    let spares = Arc::new(Semaphore::new(limits::TURNED_AWAY_MAX.min(max / 8).max(1)));
    let server = Arc::new(Server {
        router,
        full: full(),
        policy,
        max,
        connections: Arc::new(Semaphore::new(max)),
        undecided: Arc::new(Semaphore::new(limits::STRANGERS_MAX)),
        strangers: Arc::new(Semaphore::new(limits::STRANGERS_MAX)),
        said_full: Seldom::default(),
        said_refused: Seldom::default(),
        stop: stop.clone(),
    });
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            // An accepted client can at least be told that there is no room.
            let spare = spares.clone().acquire_owned().await.ok();
            (spare, listener.accept().await)
        };
        tokio::select! {
            // Every arm is cancel safe.
            biased;
            () = stop.asked() => break,
            Some(_) = connections.join_next() => {}
            (spare, accepted) = next => match accepted {
                Ok(accepted) => {
                    connections.spawn(server.clone().attend(accepted, spare));
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

impl Server {
    /// One connection to its end. Those that can't be admitted take no room from those that can.
    async fn attend(self: Arc<Server>, accepted: Accepted, spare: Place) {
        let Accepted { stream, peer } = accepted;
        let caller = peer.as_ref().map_or(Caller::Unknown, caller::of);
        let (admission, place) = match (self.policy.decide(&peer), &peer) {
            (Admission::Undecided, Ok(peer)) => {
                let Ok(place) = self.undecided.clone().try_acquire_owned() else { return };
                drop(spare);
                (self.policy.look_up(peer).await, Some(place))
            }
            (decided, _) => (decided, spare),
        };
        match admission {
            Admission::Admitted => self.admit(stream, caller, place).await,
            Admission::Refused(refusal) => {
                // Checks of whether a port is open close at once; they are no callers.
                let called = !matches!(peer, Err(PeerError::Closed));
                if called && self.said_refused.is_due() {
                    tracing::warn!(%caller, why = refusal.detail(), "a caller is not admitted");
                }
                self.refuse(stream, caller, refusal, place).await;
            }
            Admission::Undecided => {}
        }
    }

    async fn admit(&self, stream: Box<dyn Duplex>, caller: Caller, place: Place) {
        if let Ok(_permit) = self.connections.clone().try_acquire_owned() {
            drop(place);
            let gate = Gate { router: self.router.clone(), caller, refusal: None };
            return converse(stream, gate, self.stop.clone()).await;
        }
        if self.said_full.is_due() {
            tracing::warn!(max = self.max, "no room for another connection: it is turned away");
        }
        let gate = Gate { router: self.full.clone(), caller, refusal: None };
        let turned_away = converse(stream, gate, self.stop.clone());
        let _ = timeout(limits::TURN_AWAY_DEADLINE, turned_away).await;
    }

    async fn refuse(
        &self,
        stream: Box<dyn Duplex>,
        caller: Caller,
        refusal: Refused,
        place: Place,
    ) {
        let Ok(_stranger) = self.strangers.clone().try_acquire_owned() else { return };
        drop(place);
        let gate = Gate { router: self.router.clone(), caller, refusal: Some(refusal) };
        let refused = converse(stream, gate, self.stop.clone());
        let _ = timeout(limits::TURN_AWAY_DEADLINE, refused).await;
    }
}

/// Says when something that happens often may be logged again.
#[derive(Default)]
struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() > TELL_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

/// What every request of a connection passes first: it gets its caller, or is refused whatever it is.
#[derive(Clone)]
struct Gate {
    router: Router,
    caller: Caller,
    /// For everything but the page that says whether the daemon lives.
    refusal: Option<Refused>,
}

impl Gate {
    fn answer(
        &self,
        mut request: hyper::Request<Incoming>,
    ) -> impl Future<Output = Result<Response, Infallible>> + use<> {
        let answer = match &self.refusal {
            Some(refusal) if request.uri().path() != HEALTH_PATH => {
                let (method, path) = (request.method(), request.uri().path());
                let status = refusal.status().as_u16();
                tracing::debug!(%method, path, caller = %self.caller, status, "request");
                // Its body is not read.
                Err(refusal.clone())
            }
            _ => {
                request.extensions_mut().insert(self.caller);
                Ok(TowerToHyperService::new(self.router.clone()).call(request))
            }
        };
        let closes = self.refusal.is_some();
        async move {
            let mut response = match answer {
                Ok(answer) => answer.await?,
                Err(refusal) => refusal.into_response(),
            };
            if closes {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            Ok(response)
        }
    }
}

/// What answers where there is no room for another connection.
fn full() -> Router {
    Router::new().fallback(async |request: Request| {
        // Who still sends would lose the answer at the close.
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        let refused = Refused::for_now(
            "connections",
            "Too many connections",
            "there is no room for another connection",
        )
        .help("close those that are not used, or try again");
        ([(header::CONNECTION, CLOSE)], refused)
    })
}

/// How many connections there may be: half of the descriptors are for the database and the microVMs.
fn connections_max() -> usize {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = descriptors.and_then(|count| usize::try_from(count / 2).ok());
    limits::CONNECTIONS_MAX.min(half.unwrap_or(usize::MAX))
}

async fn converse(stream: Box<dyn Duplex>, gate: Gate, mut stop: Stop) {
    let socket = Socket::new(stream, gate.refusal.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_DEADLINE)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service_fn(move |request| gate.answer(request)))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        // The connection continues below if the daemon ends first.
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
