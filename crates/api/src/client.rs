//! The typed client: one fresh connection a request, since a daemon is never far away.
//!
//! It never retries: whoever calls knows whether asking twice is harmless.

use crate::endpoint::Endpoint;
use crate::problem::Problem;
use crate::wire::{CreateVm, Deleted, Event, Health, Job, LogLine, NDJSON, Page, Readiness, Stats};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Longest wait for a connection: the daemon is on this machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for the head of an answer: the daemon's own deadline is shorter.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Largest answer that is read whole: `/stats` of 10,000 jobs fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest line of a log stream; the daemon cuts at less.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Asks one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there, or may not be talked to.
    #[error("cannot reach the daemon at {endpoint}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("cannot {operation}: the connection to the daemon broke")]
    Broken {
        /// What was being done.
        operation: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There was no answer in time.
    #[error("cannot {operation}: the daemon did not answer within {seconds} s")]
    Deadline {
        /// What was being done.
        operation: String,
        /// How long it was waited, in seconds.
        seconds: u64,
    },
    /// The daemon refused.
    #[error("cannot {operation}")]
    Refused {
        /// What was being done.
        operation: String,
        /// What the daemon said.
        source: Box<Problem>,
    },
    /// The answer was not Hearth's.
    #[error("cannot {operation}: the answer is not one of Hearth's")]
    Foreign {
        /// What was being done.
        operation: String,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClientError {
    /// What the daemon said, where it refused.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Refused { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Client {
    /// A client of the daemon at `endpoint`. Connects to nothing yet.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Client {
        Client { endpoint }
    }

    /// `POST /vms`. The status says how it was accepted: 200, 201 or 202.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn create(&self, body: &CreateVm) -> Result<(u16, Job), ClientError> {
        let operation = match &body.job_id {
            Some(job) => format!("create job {job}"),
            None => "create a job".to_owned(),
        };
        let bytes = serde_json::to_vec(body).unwrap_or_default();
        let (status, job) = self.ask(operation, Method::POST, "/vms", bytes).await?;
        Ok((status.as_u16(), job))
    }

    /// `GET /vms`, all pages.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn jobs(&self) -> Result<Vec<Job>, ClientError> {
        let mut jobs = Vec::new();
        let mut path = "/vms".to_owned();
        loop {
            let page: Page<Job> = self.get("list the jobs", &path).await?;
            jobs.extend(page.items);
            match page.next {
                Some(cursor) => path = format!("/vms?after={}", escape(&cursor)),
                None => return Ok(jobs),
            }
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
        self.ask(format!("stop job {job}"), Method::POST, &path, Vec::new()).await.map(|(_, j)| j)
    }

    /// `POST /vms/{job_id}/start`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn start(&self, job: &str) -> Result<Job, ClientError> {
        let path = path_of(job, "/start");
        self.ask(format!("start job {job}"), Method::POST, &path, Vec::new()).await.map(|(_, j)| j)
    }

    /// `GET /stats`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn stats(&self) -> Result<Stats, ClientError> {
        self.get("read the stats", "/stats").await
    }

    /// `GET /events`, or those of one job; the newest `limit`, oldest first.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn events(&self, job: Option<&str>, limit: usize) -> Result<Vec<Event>, ClientError> {
        let (operation, path) = match job {
            Some(job) => (format!("read the events of job {job}"), path_of(job, "/events")),
            None => ("read the events".to_owned(), "/events".to_owned()),
        };
        let page: Page<Event> = self.get(&operation, &format!("{path}?limit={limit}")).await?;
        Ok(page.items)
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

    /// `GET /vms/{job_id}/logs`, whole or its last `tail` lines.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn logs(&self, job: &str, tail: Option<usize>) -> Result<LogStream, ClientError> {
        self.log_stream(job, "follow=false", tail).await
    }

    /// The same, and then every new line until the job has ended.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn follow_logs(
        &self,
        job: &str,
        tail: Option<usize>,
    ) -> Result<LogStream, ClientError> {
        self.log_stream(job, "follow=true", tail).await
    }

    async fn log_stream(
        &self,
        job: &str,
        follow: &str,
        tail: Option<usize>,
    ) -> Result<LogStream, ClientError> {
        let operation = format!("read the log of job {job}");
        let tail = tail.map(|lines| format!("&tail={lines}")).unwrap_or_default();
        let path = path_of(job, &format!("/logs?{follow}{tail}"));
        let mut request = self.request(Method::GET, &path, Vec::new());
        request.headers_mut().insert(ACCEPT, hyper::header::HeaderValue::from_static(NDJSON));
        let response = self.send(&operation, request).await?;
        if !response.status().is_success() {
            return Err(refusal(operation, response).await);
        }
        Ok(LogStream { operation, body: response.into_body(), buffer: BytesMut::new() })
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

    async fn get<T: DeserializeOwned>(
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
        let has_body = !body.is_empty();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        // Every path is made of constants and of names that were escaped.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = self.endpoint.authority().parse() {
            headers.insert(HOST, host);
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

/// The lines of a log as they come.
#[derive(Debug)]
pub struct LogStream {
    operation: String,
    body: Incoming,
    buffer: BytesMut,
}

impl LogStream {
    /// The next line; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// Where the connection breaks or the line is not one of Hearth's.
    pub async fn next(&mut self) -> Result<Option<LogLine>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return serde_json::from_slice(&line).map(Some).map_err(|e| self.foreign(e));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(self.foreign("a line has no end"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.buffer.extend_from_slice(bytes);
                    }
                }
                Some(Err(error)) => {
                    let operation = self.operation.clone();
                    return Err(ClientError::Broken { operation, source: error.into() });
                }
            }
        }
    }

    fn foreign(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Foreign { operation: self.operation.clone(), source: source.into() }
    }
}

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

fn path_of(job: &str, rest: &str) -> String {
    format!("/vms/{}{rest}", escape(job))
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
