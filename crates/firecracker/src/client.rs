//! The client of Firecracker's API: one short connection a call, one call at a time.
//!
//! Firecracker serves its API from one thread, in order, and drops the eleventh connection; a
//! fresh connection costs 84 µs. So no connection is kept and calls queue here, not there.
//! It never retries.

use crate::directory::Directory;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

/// Largest body that Firecracker takes, in bytes (its `--http-api-max-payload-size`).
pub const BODY_BYTES_MAX: usize = 51_200;
/// How long a configuration call may take on a host with KVM of its own.
pub const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// How long `InstanceStart` may take: it creates the VM and loads the kernel.
pub const START_DEADLINE: Duration = Duration::from_secs(10);

/// Largest answer that is read, in bytes; real ones are below 1 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What `GET /` answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct InstanceInfo {
    /// The id that the process was given.
    pub id: String,
    /// How far the microVM is.
    pub state: MicroVmState,
    /// Firecracker's version.
    pub vmm_version: String,
}

/// How far a microVM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum MicroVmState {
    /// It takes configuration; no guest exists.
    #[serde(rename = "Not started")]
    NotStarted,
    /// The guest runs.
    Running,
    /// The guest's vCPUs are held.
    Paused,
}

/// `PUT /machine-config`.
#[derive(Clone, Debug, Serialize)]
pub struct MachineConfig {
    /// Virtual CPUs, 1 to 32.
    pub vcpu_count: u8,
    /// Memory, in MiB.
    pub mem_size_mib: u32,
}

/// `PUT /boot-source`. Paths are relative to the working directory of the process.
#[derive(Clone, Debug, Serialize)]
pub struct BootSource {
    /// The kernel, an ELF image.
    pub kernel_image_path: String,
    /// The initramfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd_path: Option<String>,
    /// The kernel's command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_args: Option<String>,
}

/// `PUT /drives/{drive_id}`.
#[derive(Clone, Debug, Serialize)]
pub struct Drive {
    /// Letters, digits and underscores; the order of the calls is the guest's `vda`, `vdb`, ….
    pub drive_id: String,
    /// The file behind it.
    pub path_on_host: String,
    /// Whether Firecracker adds `root=` for it to the command line.
    pub is_root_device: bool,
    /// Whether the guest may only read it.
    pub is_read_only: bool,
    /// How much the guest may transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// Limits of a device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RateLimiter {
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// In operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// What may be used in a time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TokenBucket {
    /// How much.
    pub size: u64,
    /// In how many milliseconds.
    pub refill_time: u64,
}

impl TokenBucket {
    /// So much in a second.
    #[must_use]
    pub fn per_second(size: u64) -> TokenBucket {
        TokenBucket { size, refill_time: 1000 }
    }
}

/// `PUT /vsock`.
#[derive(Clone, Debug, Serialize)]
pub struct Vsock {
    /// The guest's context id, 3 or more.
    pub guest_cid: u32,
    /// Where the host's socket is made.
    pub uds_path: String,
}

/// `PUT /actions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action_type")]
pub enum Action {
    /// Boots the guest.
    InstanceStart,
    /// Presses Ctrl-Alt-Del. Says nothing of what the guest makes of it.
    SendCtrlAltDel,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nothing listens on the socket.
    #[error("cannot connect to Firecracker's API for {operation}")]
    Connect {
        /// Method and path.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer in time. Whether the call took effect is unknown.
    #[error("no answer to {operation} within {after:?}")]
    Deadline {
        /// Method and path.
        operation: String,
        /// How long it was given.
        after: Duration,
    },
    /// The connection broke before the answer was whole. Whether the call took effect is unknown.
    #[error("the connection to Firecracker broke during {operation}")]
    Broken {
        /// Method and path.
        operation: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Firecracker refused.
    #[error("Firecracker refused {operation} with {status}: {fault_message}")]
    Rejected {
        /// Method and path.
        operation: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        fault_message: String,
    },
    /// The body is larger than Firecracker takes; it was not sent.
    #[error("the body of {operation} has {bytes} bytes and Firecracker takes {BODY_BYTES_MAX}")]
    TooLarge {
        /// Method and path.
        operation: String,
        /// Bytes of the body.
        bytes: usize,
    },
    /// The body or the answer is not what was agreed.
    #[error("cannot read or write the JSON of {operation}")]
    Json {
        /// Method and path.
        operation: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ApiError {
    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Deadline { .. } | Self::Broken { .. } => true,
            // 503 is what an eleventh connection gets.
            Self::Rejected { status, .. } => *status >= 500,
            Self::TooLarge { .. } | Self::Json { .. } => false,
        }
    }
}

/// The API of one Firecracker.
#[derive(Debug)]
pub struct Client {
    directory: Arc<Directory>,
    socket: String,
    /// One permit: calls are serialised.
    turn: Semaphore,
    factor: f32,
}

impl Client {
    /// A client of the socket `socket` in `directory`. Deadlines are multiplied by `factor`, 1.0
    /// where the VMM is not emulated. Connects to nothing yet.
    #[must_use]
    pub fn new(directory: Arc<Directory>, socket: &str, factor: f32) -> Client {
        Client { directory, socket: socket.to_owned(), turn: Semaphore::new(1), factor }
    }

    /// `GET /`.
    ///
    /// # Errors
    /// [`ApiError`], as for each call below. None of them is cancel-safe in the sense that a
    /// cancelled call may have taken effect.
    pub async fn describe(&self) -> Result<InstanceInfo, ApiError> {
        let answer = self.call(&Method::GET, "/", None, CALL_DEADLINE).await?;
        serde_json::from_slice(&answer)
            .map_err(|source| ApiError::Json { operation: "GET /".to_owned(), source })
    }

    /// Whether it answers anything: `GET /`. Not asked while another call is under way, which says
    /// as much. Cancel safe.
    pub async fn answers(&self) -> bool {
        let Ok(_turn) = self.turn.try_acquire() else { return true };
        let exchange = self.exchange("GET /", &Method::GET, "/", None);
        let answer = tokio::time::timeout(CALL_DEADLINE.mul_f32(self.factor), exchange).await;
        matches!(answer, Ok(Ok(_) | Err(ApiError::Rejected { .. })))
    }

    /// `PUT /machine-config`.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn machine_config(&self, config: &MachineConfig) -> Result<(), ApiError> {
        self.put("/machine-config", config, CALL_DEADLINE).await
    }

    /// `PUT /boot-source`.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn boot_source(&self, source: &BootSource) -> Result<(), ApiError> {
        self.put("/boot-source", source, CALL_DEADLINE).await
    }

    /// `PUT /drives/{drive_id}`.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn drive(&self, drive: &Drive) -> Result<(), ApiError> {
        self.put(&format!("/drives/{}", drive.drive_id), drive, CALL_DEADLINE).await
    }

    /// `PUT /vsock`.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn vsock(&self, vsock: &Vsock) -> Result<(), ApiError> {
        self.put("/vsock", vsock, CALL_DEADLINE).await
    }

    /// `PUT /entropy`: gives the guest a virtio-rng.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn entropy(&self) -> Result<(), ApiError> {
        self.put("/entropy", &serde_json::json!({}), CALL_DEADLINE).await
    }

    /// `PUT /actions`.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn action(&self, action: Action) -> Result<(), ApiError> {
        let deadline = match action {
            Action::InstanceStart => START_DEADLINE,
            Action::SendCtrlAltDel => CALL_DEADLINE,
        };
        self.put("/actions", &action, deadline).await
    }

    async fn put(
        &self,
        path: &str,
        body: &impl Serialize,
        deadline: Duration,
    ) -> Result<(), ApiError> {
        let operation = || format!("PUT {path}");
        let body = serde_json::to_vec(body)
            .map_err(|source| ApiError::Json { operation: operation(), source })?;
        if body.len() > BODY_BYTES_MAX {
            return Err(ApiError::TooLarge { operation: operation(), bytes: body.len() });
        }
        self.call(&Method::PUT, path, Some(body), deadline).await.map(drop)
    }

    async fn call(
        &self,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
        deadline: Duration,
    ) -> Result<Bytes, ApiError> {
        let operation = format!("{method} {path}");
        let after = deadline.mul_f32(self.factor);
        let exchange = async {
            // The semaphore is never closed; were it, calls would merely not queue.
            let _turn = self.turn.acquire().await.ok();
            self.exchange(&operation, method, path, body).await
        };
        match tokio::time::timeout(after, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::Deadline { operation, after }),
        }
    }

    async fn exchange(
        &self,
        operation: &str,
        method: &Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, ApiError> {
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| ApiError::Broken {
            operation: operation.to_owned(),
            source,
        };
        let stream = UnixStream::connect(self.directory.socket(&self.socket))
            .await
            .map_err(|source| ApiError::Connect { operation: operation.to_owned(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(error.into()))?;
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| broken(error.into()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|e| broken(e.into()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            Ok((status, body.collect().await.map_err(broken)?.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        // Both arms are dropped together with the connection, so neither need be cancel-safe.
        let (status, body) = tokio::select! {
            biased;
            answer = &mut answer => answer?,
            // The connection may end before the answer is read from its buffer.
            _ = connection => answer.await?,
        };
        if status.is_success() {
            return Ok(body);
        }
        Err(rejected(operation, status, &body))
    }
}

fn rejected(operation: &str, status: StatusCode, body: &[u8]) -> ApiError {
    #[derive(Deserialize)]
    struct Fault {
        fault_message: String,
    }
    let fault_message = serde_json::from_slice::<Fault>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |fault| fault.fault_message);
    ApiError::Rejected { operation: operation.to_owned(), status: status.as_u16(), fault_message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// A client, and a server that takes one connection, answers `answer` and returns the request.
    fn served(
        answer: &'static str,
        factor: f32,
    ) -> (tempfile::TempDir, Client, std::thread::JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("api.sock")).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            if answer.is_empty() {
                // Hold the connection open without an answer until the client gives up.
                let _ = stream.read(&mut request);
            }
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let directory = Arc::new(Directory::open(dir.path()).unwrap());
        (dir, Client::new(directory, "api.sock", factor), server)
    }

    #[tokio::test]
    async fn a_call_sends_its_json_and_takes_no_content_for_success() {
        let (_dir, client, server) = served("HTTP/1.1 204 \r\nServer: x\r\n\r\n", 1.0);
        client.action(Action::InstanceStart).await.unwrap();
        let request = server.join().unwrap();
        assert!(request.starts_with("PUT /actions HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("{\"action_type\":\"InstanceStart\"}"), "{request}");
    }

    #[tokio::test]
    async fn a_refusal_carries_firecrackers_words_and_is_not_transient() {
        let (_dir, client, server) =
            served("HTTP/1.1 400 \r\nContent-Length: 25\r\n\r\n{\"fault_message\":\"no go\"}", 1.0);
        let error = client.entropy().await.unwrap_err();
        assert_eq!(error.to_string(), "Firecracker refused PUT /entropy with 400: no go");
        assert!(!error.is_transient());
        server.join().unwrap();
    }

    #[tokio::test]
    async fn what_the_server_could_not_do_it_may_do_later() {
        let (_dir, client, server) = served(
            "HTTP/1.1 503\r\nConnection: close\r\nContent-Length: 40\r\n\r\n\
             { \"error\": \"Too many open connections\" }",
            1.0,
        );
        let error = client.entropy().await.unwrap_err();
        assert!(matches!(error, ApiError::Rejected { status: 503, .. }), "{error}");
        assert!(error.is_transient());
        server.join().unwrap();
    }

    #[tokio::test]
    async fn a_call_without_an_answer_ends_at_its_deadline() {
        let (_dir, client, server) = served("", 0.02);
        let error = client.describe().await.unwrap_err();
        assert!(matches!(error, ApiError::Deadline { .. }), "{error}");
        assert!(error.is_transient());
        drop(client);
        server.join().unwrap();
    }

    #[tokio::test]
    async fn an_absent_socket_is_transient() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(dir.path()).unwrap());
        let error = Client::new(directory, "api.sock", 1.0).describe().await.unwrap_err();
        assert!(matches!(error, ApiError::Connect { .. }) && error.is_transient(), "{error}");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(dir.path()).unwrap());
        let client = Client::new(directory, "api.sock", 1.0);
        let source = BootSource {
            kernel_image_path: "kernel".to_owned(),
            initrd_path: None,
            boot_args: Some("x".repeat(BODY_BYTES_MAX)),
        };
        let error = client.boot_source(&source).await.unwrap_err();
        assert!(matches!(error, ApiError::TooLarge { .. }), "{error}");
    }
}
