//! Connections from the host to a port of the guest, through Firecracker's Unix socket
//! (its docs/vsock.md): `CONNECT port\n` out, `OK host-port\n` back, then bytes.
//! It never reads past that line, so nothing that the guest says first is lost.

use rustix::net::RecvFlags;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Longest acknowledgement line, in bytes: `OK ` and a u32.
const ACKNOWLEDGEMENT_BYTES_MAX: usize = 16;
/// First pause between two attempts; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Firecracker's socket does not exist or refuses: the process is gone or has no vsock.
    #[error("cannot connect to the vsock socket")]
    Socket(#[source] io::Error),
    /// The guest never took the connection: nothing listens on the port, or it is not up yet.
    #[error("nothing in the guest took a connection to port {port} within {after:?}")]
    Deadline {
        /// The guest's port.
        port: u32,
        /// How long it was tried.
        after: Duration,
    },
}

/// Connects to `port` of the guest behind the socket `uds`, trying again until `deadline` has
/// passed while the guest does not take it: before its listener is up Firecracker closes the
/// connection at once, and so it often does with the first one after a resume, even after an `OK`.
/// That late end of file may also come after this returns; a protocol in which the guest speaks
/// first should then simply connect again. Cancel-safe: a connection in the making is dropped.
///
/// # Errors
/// [`ConnectError`]
pub async fn connect(
    uds: &Path,
    port: u32,
    deadline: Duration,
) -> Result<UnixStream, ConnectError> {
    let end = Instant::now() + deadline;
    let mut pause = PAUSE_MIN;
    loop {
        let stream = UnixStream::connect(uds).await.map_err(ConnectError::Socket)?;
        match tokio::time::timeout_at(end, handshake(stream, port)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(_)) if Instant::now() + pause < end => {}
            Ok(Err(_)) | Err(_) => return Err(ConnectError::Deadline { port, after: deadline }),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn handshake(mut stream: UnixStream, port: u32) -> io::Result<UnixStream> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut line = Vec::with_capacity(ACKNOWLEDGEMENT_BYTES_MAX);
    while line.last() != Some(&b'\n') {
        if line.len() == ACKNOWLEDGEMENT_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(stream.read_u8().await?);
    }
    if !line.starts_with(b"OK ") || ended(&stream) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    Ok(stream)
}

/// Whether the end of file has come already. Takes no byte.
fn ended(stream: &UnixStream) -> bool {
    let mut byte = [0_u8; 1];
    matches!(
        rustix::net::recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT),
        Ok((_, 0))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixListener;

    #[tokio::test]
    async fn it_tries_again_until_the_guest_listens_and_loses_no_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let guest = std::thread::spawn(move || {
            // No listener yet: closed without an answer. Then OK and closed, as after a resume.
            drop(listener.accept().unwrap());
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(stream);
            reader.read_line(&mut line).unwrap();
            reader.get_ref().write_all(b"OK 9\n").unwrap();
            drop(reader);
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 11];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"CONNECT 52\n");
            stream.write_all(b"OK 1073741824\nfirst words").unwrap();
        });
        let mut stream = connect(&path, 52, Duration::from_secs(10)).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        // The early end of file may be seen here or, having come late, be handed on.
        if said.is_empty() {
            stream = connect(&path, 52, Duration::from_secs(10)).await.unwrap();
            stream.read_to_string(&mut said).await.unwrap();
        }
        assert_eq!(said, "first words");
        guest.join().unwrap();
    }

    #[tokio::test]
    async fn a_guest_that_never_listens_ends_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let refuse = async {
            loop {
                drop(listener.accept().await);
            }
        };
        let error = tokio::select! {
            biased;
            connected = connect(&path, 1, Duration::from_millis(40)) => connected.unwrap_err(),
            () = refuse => unreachable!("it loops"),
        };
        assert!(matches!(error, ConnectError::Deadline { port: 1, .. }), "{error}");
    }

    #[tokio::test]
    async fn an_absent_socket_is_told_apart_from_a_silent_guest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let error = connect(&path, 1, Duration::from_secs(10)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Socket(_)), "{error}");
    }
}
