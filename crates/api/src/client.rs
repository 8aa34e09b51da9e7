//! The typed client: one fresh connection a request, since a daemon is never far away.
//!
//! A change is sent with an `Idempotency-Key`, so that it can be and is repeated where the daemon
//! broke off or could not serve: it happens once. Nothing else is repeated.

use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::lines::Lines;
use crate::problem::Problem;
use crate::wire::{
    CreateVm, Declared, Deleted, Health, Images, Job, JobStatus, Page, Plan, Pruned, Readiness,
    Stats,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, IF_MATCH, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Longest wait for a connection: the daemon is on this machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for the head of an answer: the daemon's own deadline is shorter.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Largest answer that is read whole: `/stats` of 10,000 jobs fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a change is repeated that got no answer: a restart of the daemon takes less.
const REPEAT_MAX: Duration = Duration::from_secs(30);
/// The time between two tries.
const REPEAT_EVERY: Duration = Duration::from_millis(500);
/// Jobs on one page: the most that the daemon gives.
const PAGE_ITEMS: usize = 1000;

/// Asks one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    /// Changes are for this generation only.
    generation: Option<u64>,
}

impl Client {
    /// A client of the daemon at `endpoint`. Connects to nothing yet.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Client {
        Client { endpoint, generation: None }
    }

    /// The same client for changes to a job at this generation: at another one they are refused
    /// with 412, and the refusal says which it is.
    #[must_use]
    pub fn at_generation(&self, generation: u64) -> Client {
        Client { generation: Some(generation), ..self.clone() }
    }

    /// `POST /vms`. The status says how it was accepted: 200, 201 or 202.
    ///
    /// Repeated where the daemon broke off or could not serve just now, for half a minute at most;
    /// the job is made once.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn create(&self, body: &CreateVm) -> Result<(u16, Job), ClientError> {
        let operation = match &body.job_id {
            Some(job) => format!("create job {job}"),
            None => "create a job".to_owned(),
        };
        let bytes = serde_json::to_vec(body).unwrap_or_default();
        self.change(&operation, "/vms", bytes).await
    }

    /// `POST /plan`: what [`Client::apply`] would do now.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn plan(&self, declared: &Declared) -> Result<Plan, ClientError> {
        self.declare("plan the declared jobs", "/plan", declared).await
    }

    /// `POST /apply`: makes the declared jobs so. Asking again is harmless: what is so stays.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn apply(&self, declared: &Declared) -> Result<Plan, ClientError> {
        self.declare("apply the declared jobs", "/apply", declared).await
    }

    async fn declare(
        &self,
        operation: &str,
        path: &str,
        declared: &Declared,
    ) -> Result<Plan, ClientError> {
        let body = serde_json::to_vec(declared).unwrap_or_default();
        self.ask(operation.to_owned(), Method::POST, path, body).await.map(|(_, plan)| plan)
    }

    /// `GET /vms`, all pages of the jobs that the filter lets through.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, ClientError> {
        let mut jobs = Vec::new();
        let filter = filter.written();
        let mut path = format!("/vms?limit={PAGE_ITEMS}{filter}");
        loop {
            let page: Page<Job> = self.get("list the jobs", &path).await?;
            jobs.extend(page.items);
            let Some(cursor) = page.next else { return Ok(jobs) };
            path = format!("/vms?limit={PAGE_ITEMS}{filter}&after={}", escape(&cursor));
        }
    }

    /// `GET /vms/{job_id}`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn job(&self, job: &str) -> Result<Job, ClientError> {
        self.get(&format!("show job {job}"), &path_of(job, "")).await
    }

    /// `DELETE /vms/{job_id}`: `None` when it is gone, else what is still stopping.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn delete(&self, job: &str) -> Result<Option<Deleted>, ClientError> {
        let operation = format!("delete job {job}");
        let path = path_of(job, "");
        let response =
            self.send(&operation, self.request(Method::DELETE, &path, Vec::new())).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        read(&operation, response).await.map(|(_, deleted)| Some(deleted))
    }

    /// `POST /vms/{job_id}/stop`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn stop(&self, job: &str) -> Result<Job, ClientError> {
        let path = path_of(job, "/stop");
        self.change(&format!("stop job {job}"), &path, Vec::new()).await.map(|(_, job)| job)
    }

    /// `POST /vms/{job_id}/start`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn start(&self, job: &str) -> Result<Job, ClientError> {
        let path = path_of(job, "/start");
        self.change(&format!("start job {job}"), &path, Vec::new()).await.map(|(_, job)| job)
    }

    /// `POST /vms/{job_id}/restart`: a new generation of the same spec.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn restart(&self, job: &str) -> Result<Job, ClientError> {
        let path = path_of(job, "/restart");
        self.change(&format!("restart job {job}"), &path, Vec::new()).await.map(|(_, job)| job)
    }

    /// `GET /images`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn images(&self) -> Result<Images, ClientError> {
        self.get("list the images", "/images").await
    }

    /// `POST /images/prune`: removes unused copies of images. Repeating it is harmless.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn prune_images(&self, which: Prune) -> Result<Pruned, ClientError> {
        let Prune { all, dry_run } = which;
        let path = format!("/images/prune?all={all}&dry_run={dry_run}");
        let operation = "remove unused images".to_owned();
        self.ask(operation, Method::POST, &path, Vec::new()).await.map(|(_, pruned)| pruned)
    }

    /// `GET /stats`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.get("read the stats", "/stats").await
    }

    /// `GET /healthz`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get("ask for the daemon's health", "/healthz").await
    }

    /// `GET /readyz`.
    ///
    /// # Errors
    /// Every [`ClientError`]; a daemon that is not ready refuses with 503.
    pub async fn readiness(&self) -> Result<Readiness, ClientError> {
        self.get("ask whether the daemon is ready", "/readyz").await
    }

    /// `GET /vms/{job_id}/ports/{port}`, upgraded: a stream to a TCP port of the guest's loopback.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn connect_port(&self, job: &str, port: u16) -> Result<Tunnel, ClientError> {
        let operation = format!("connect to port {port} of job {job}");
        let path = path_of(job, &format!("/ports/{port}"));
        let mut request = self.request(Method::GET, &path, Vec::new());
        let headers = request.headers_mut();
        headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, hyper::header::HeaderValue::from_static("tcp"));
        let response = self.send(&operation, request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(operation, response).await);
        }
        match hyper::upgrade::on(response).await {
            Ok(upgraded) => Ok(TokioIo::new(upgraded)),
            Err(error) => Err(ClientError::Broken { operation, source: error.into() }),
        }
    }

    /// The lines of an answer of this type, as they come.
    pub(crate) async fn lines(
        &self,
        operation: String,
        path: &str,
        accept: &'static str,
    ) -> Result<Lines, ClientError> {
        let mut request = self.request(Method::GET, path, Vec::new());
        request.headers_mut().insert(ACCEPT, hyper::header::HeaderValue::from_static(accept));
        let response = self.send(&operation, request).await?;
        if !response.status().is_success() {
            return Err(refusal(operation, response).await);
        }
        Ok(Lines::new(operation, response.into_body()))
    }

    /// A change to a job under a key of its own, repeated until it is answered.
    async fn change(
        &self,
        operation: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Job), ClientError> {
        let mut request = self.request(Method::POST, path, body);
        if let Ok(key) = Uuid::new_v4().to_string().parse() {
            request.headers_mut().insert("idempotency-key", key);
        }
        let begin = Instant::now();
        let mut reached = false;
        loop {
            let answered = match self.send(operation, request.clone()).await {
                Ok(response) => read(operation, response).await,
                Err(error) => Err(error),
            };
            let error = match answered {
                Ok((status, job)) => return Ok((status.as_u16(), job)),
                Err(error) => error,
            };
            // A daemon that never was there is not waited for.
            reached |= !matches!(error, ClientError::Connect { .. });
            if !reached || !error.may_pass() || begin.elapsed() >= REPEAT_MAX {
                return Err(error);
            }
            sleep(REPEAT_EVERY).await;
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        operation: &str,
        path: &str,
    ) -> Result<T, ClientError> {
        self.ask(operation.to_owned(), Method::GET, path, Vec::new()).await.map(|(_, value)| value)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        operation: String,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, T), ClientError> {
        let response = self.send(&operation, self.request(method, path, body)).await?;
        read(&operation, response).await
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
        let (has_body, changes) = (!body.is_empty(), method != Method::GET);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        // Every path is made of constants and of names that were escaped.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = self.endpoint.authority().parse() {
            headers.insert(HOST, host);
        }
        if let Some(generation) = self.generation.filter(|_| changes) {
            headers.insert(IF_MATCH, hyper::header::HeaderValue::from(generation));
        }
        if has_body {
            let json = hyper::header::HeaderValue::from_static("application/json");
            headers.insert(CONTENT_TYPE, json);
        }
        request
    }

    async fn send(
        &self,
        operation: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let exchange = async {
            match &self.endpoint {
                Endpoint::Tcp { host, port } => {
                    let address = (host.trim_matches(['[', ']']), *port);
                    let stream = self.connected(TcpStream::connect(address)).await?;
                    // Without it the last short write of a tunnel waits for the peer's ACK.
                    let _ = stream.set_nodelay(true);
                    exchange(operation, stream, request).await
                }
                Endpoint::Unix(path) => {
                    let stream = self.connected(UnixStream::connect(path)).await?;
                    exchange(operation, stream, request).await
                }
            }
        };
        tokio::time::timeout(ANSWER_DEADLINE, exchange).await.unwrap_or_else(|_| {
            let seconds = ANSWER_DEADLINE.as_secs();
            Err(ClientError::Deadline { operation: operation.to_owned(), seconds })
        })
    }

    async fn connected<S>(
        &self,
        connecting: impl Future<Output = io::Result<S>>,
    ) -> Result<S, ClientError> {
        let outcome = tokio::time::timeout(CONNECT_DEADLINE, connecting).await;
        let outcome = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        outcome.map_err(|source| ClientError::Connect { endpoint: self.endpoint.clone(), source })
    }
}

/// A stream to a port of a guest.
pub type Tunnel = TokioIo<hyper::upgrade::Upgraded>;

async fn exchange<S>(
    operation: &str,
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ClientError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |source: hyper::Error| ClientError::Broken {
        operation: operation.to_owned(),
        source: source.into(),
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with the connection, which ends when the answer's body or the tunnel is dropped. What
    // goes wrong on it reaches the caller through the answer.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(broken)
}

async fn read<T: DeserializeOwned>(
    operation: &str,
    response: Response<Incoming>,
) -> Result<(StatusCode, T), ClientError> {
    let status = response.status();
    if !status.is_success() {
        return Err(refusal(operation.to_owned(), response).await);
    }
    let bytes = whole(operation, response).await?;
    serde_json::from_slice(&bytes).map(|value| (status, value)).map_err(|error| {
        ClientError::Foreign { operation: operation.to_owned(), source: error.into() }
    })
}

async fn refusal(operation: String, response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let bytes = match whole(&operation, response).await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => ClientError::Refused { operation, source: Box::new(problem) },
        Err(_) => {
            let source = format!("it has status {status} and no problem details").into();
            ClientError::Foreign { operation, source }
        }
    }
}

async fn whole(operation: &str, response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    match tokio::time::timeout(ANSWER_DEADLINE, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(source)) => Err(ClientError::Broken { operation: operation.to_owned(), source }),
        Err(_) => Err(ClientError::Deadline {
            operation: operation.to_owned(),
            seconds: ANSWER_DEADLINE.as_secs(),
        }),
    }
}

pub(crate) fn path_of(job: &str, rest: &str) -> String {
    format!("/vms/{}{rest}", escape(job))
}

/// Which copies of images go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// Every unused one, and not only those that are no longer kept.
    pub all: bool,
    /// None: only say which would.
    pub dry_run: bool,
}

/// Which jobs a list shows; all where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Filter by status.
    pub statuses: Vec<JobStatus>,
    /// Further conditions, all of which must hold: parameters of `GET /vms` with their values.
    pub conditions: Vec<(&'static str, String)>,
}

impl JobFilter {
    /// As further parameters of a query.
    fn written(&self) -> String {
        let words: Vec<&str> = self.statuses.iter().map(|status| status.as_str()).collect();
        let status = Some(words.join(",")).filter(|words| !words.is_empty());
        let conditions = self.conditions.iter();
        let conditions = conditions.map(|(name, value)| parameter(name, Some(value)));
        parameter("status", status.as_deref()) + &conditions.collect::<String>()
    }
}

/// A further parameter of a query, where there is one.
pub(crate) fn parameter(name: &str, value: Option<&str>) -> String {
    value.map(|value| format!("&{name}={}", escape(value))).unwrap_or_default()
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
