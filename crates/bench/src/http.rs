//! One kept-alive connection, so that what is measured is the daemon and not the dialling.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A POST that declares a job.
pub(crate) fn declaration(job: &str) -> Value {
    json!({"job_id": job, "tenant": "bench", "spec": {
        "rootfs": "rootfs-web.ext4", "kernel": "vmlinux", "cmd": ["/app/bin/server"],
        "env": {"MIX_ENV": "prod", "DATABASE_URL": "postgresql://localhost/myapp"},
        "resources": {"vcpu": 1, "mem_mb": 1}, "lifecycle": "service"}})
}

pub(crate) struct Connection {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address).await.context("cannot connect to the daemon")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { address, sender })
    }

    /// Sends a request and reads its answer to the end.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes)> {
        let mut request =
            Request::builder().method(method).uri(path).header("host", self.address.to_string());
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// As [`Connection::send`], where the answer must be of this status.
    pub(crate) async fn expect(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        expected: StatusCode,
    ) -> Result<Bytes> {
        let (status, answer) = self.send(method, path, body).await?;
        let said = String::from_utf8_lossy(&answer);
        ensure!(status == expected, "{path} answered {status} instead of {expected}: {said}");
        Ok(answer)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
        let answer = self.expect(Method::GET, path, None, StatusCode::OK).await?;
        serde_json::from_slice(&answer).with_context(|| format!("{path} answered no JSON"))
    }
}
