//! A connection to a TCP port on a guest's loopback, through its init.

use super::Shared;
use crate::{Duplex, HostError};
use hearth_firecracker::{names, vsock};
use hearth_guest::FORWARD_PORT;
use hearth_model::{Boot, InstanceId};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// From the first byte to the guest's answer: the init gives the app 5 s of it.
const DEADLINE: Duration = Duration::from_secs(8);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 512;

pub(super) async fn connect(
    shared: &Shared,
    id: &InstanceId,
    port: u16,
) -> Result<Box<dyn Duplex>, HostError> {
    let refused = |why: &str| {
        HostError::transient(format!("cannot connect to port {port} of instance {id}: {why}"))
    };
    let instance = shared.instance(id).filter(|instance| instance.is_alive());
    let instance = instance.ok_or_else(|| refused("it does not run"))?;
    if instance.boot == Boot::Raw {
        return Err(HostError::permanent(format!(
            "cannot connect to port {port} of instance {id}: a raw guest has no forwarder"
        )));
    }
    let deadline = DEADLINE * shared.factor();
    let opened = tokio::time::timeout(deadline, async {
        let uds = instance.directory.socket(names::VSOCK_SOCKET);
        let stream = vsock::connect(&uds, FORWARD_PORT, deadline)
            .await
            .map_err(|error| refused("its guest does not answer").because(error))?;
        ask(stream, port).await.map_err(|error| refused("the guest hung up").because(error))
    });
    let (stream, answer) = opened.await.map_err(|late| refused("no answer").because(late))??;
    match answer.as_str() {
        "OK" => Ok(Box::new(stream)),
        answer => Err(refused(answer.strip_prefix("ERR ").unwrap_or(answer))),
    }
}

/// Names the port and reads the line of the answer, and not a byte more.
pub(super) async fn ask(mut stream: UnixStream, port: u16) -> io::Result<(UnixStream, String)> {
    stream.write_all(format!("{port}\n").as_bytes()).await?;
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            _ if line.len() == ANSWER_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            byte => line.push(byte),
        }
    }
    Ok((stream, String::from_utf8_lossy(&line).into_owned()))
}
