//! Channels into a guest, which its init opens.

use super::Shared;
use crate::{Duplex, HostError};
use hearth_firecracker::{names, vsock};
use hearth_guest::{CHANNEL_LINE_BYTES_MAX, CHANNEL_PORT, Channel, Opened};
use hearth_model::{Boot, InstanceId};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// From the first byte to the guest's answer: the init gives the app 5 s of it.
const DEADLINE: Duration = Duration::from_secs(8);

/// Opens a channel.
pub(super) async fn open(
    shared: &Shared,
    id: &InstanceId,
    channel: Channel,
) -> Result<Box<dyn Duplex>, HostError> {
    let Channel::Port(port) = channel;
    let what = format!("cannot connect to port {port} of instance {id}");
    let refused = |why: &str| HostError::transient(format!("{what}: {why}"));
    let instance = shared.instance(id).filter(|instance| instance.is_alive());
    let instance = instance.ok_or_else(|| refused("it does not run"))?;
    if instance.boot == Boot::Raw {
        return Err(HostError::permanent(format!("{what}: a raw guest has no forwarder")));
    }
    let deadline = DEADLINE * shared.factor();
    let opened = tokio::time::timeout(deadline, async {
        let uds = instance.directory.socket(names::VSOCK_SOCKET);
        let stream = vsock::connect(&uds, CHANNEL_PORT, deadline)
            .await
            .map_err(|error| refused("its guest does not answer").because(error))?;
        ask(stream, &channel.opening(instance.protocol))
            .await
            .map_err(|error| refused("the guest hung up").because(error))
    });
    let (stream, answer) = opened.await.map_err(|late| refused("no answer").because(late))??;
    match Opened::parse(&answer) {
        Opened::Yes => Ok(Box::new(stream)),
        Opened::No(why) => Err(refused(&why)),
        Opened::Unsupported => {
            Err(HostError::permanent(format!("{what}: its init knows no such channel")))
        }
    }
}

/// Names the channel and reads the line of the answer, and not a byte more.
pub(super) async fn ask(mut stream: UnixStream, opening: &str) -> io::Result<(UnixStream, String)> {
    stream.write_all(format!("{opening}\n").as_bytes()).await?;
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            _ if line.len() == CHANNEL_LINE_BYTES_MAX => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            byte => line.push(byte),
        }
    }
    Ok((stream, String::from_utf8_lossy(&line).into_owned()))
}
