//! Connections from the host: an accept loop per port, bounded, one thread a connection. The
//! protocols themselves are in `control`, `logs` and `channel`.

use rustix::net::{Shutdown, sockopt};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Stack of a connection's thread, in bytes: address space, of which little is touched.
pub(crate) const STACK_BYTES: usize = 256 * 1024;
/// Pause after a failed accept (out of descriptors or memory), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a write may wait for a host that does not read.
pub(crate) const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long the close of a connection waits for the host to have taken everything.
const LINGER: Duration = Duration::from_secs(1);

/// Where connections come from.
pub(crate) trait Listener: Send + 'static {
    /// Waits for the next connection.
    fn accept(&self) -> std::io::Result<OwnedFd>;
}

impl Listener for vsock::VsockListener {
    fn accept(&self) -> std::io::Result<OwnedFd> {
        let (stream, _) = vsock::VsockListener::accept(self)?;
        stream.as_fd().try_clone_to_owned()
    }
}

/// A stream socket, vsock or other.
pub(crate) struct Conn(File);

impl Conn {
    /// Takes the socket. Writes get a time limit, reads none.
    pub(crate) fn new(socket: OwnedFd) -> Conn {
        let conn = Conn(File::from(socket));
        let _ = sockopt::set_socket_timeout(&conn.0, sockopt::Timeout::Send, Some(WRITE_LIMIT));
        conn
    }

    /// Bounds the wait of each read; `None` for no bound.
    pub(crate) fn set_read_limit(&self, limit: Option<Duration>) {
        let _ = sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, limit);
    }

    /// Reads one line, without its newline, byte by byte: what follows it is left unread.
    ///
    /// # Errors
    /// That of reading; `InvalidData` where there is no newline within `bytes_max`.
    pub(crate) fn read_line(&self, bytes_max: usize) -> std::io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            match (&self.0).read(&mut byte)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                _ if byte[0] == b'\n' => return Ok(line),
                _ if line.len() == bytes_max => return Err(std::io::ErrorKind::InvalidData.into()),
                _ => line.push(byte[0]),
            }
        }
    }

    /// Ends one direction or both. It wakes the reader.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = rustix::net::shutdown(&self.0, how);
    }

    /// Whether the peer has said that it will take nothing more. Firecracker says so as soon as
    /// the host has ended its side.
    pub(crate) fn is_refused(&self) -> bool {
        rustix::net::send(&self.0, &[], rustix::net::SendFlags::NOSIGNAL).is_err()
    }

    /// Closes, and waits a bounded time for the peer to have taken what was written: a reboot
    /// that comes too soon would take it along.
    pub(crate) fn finish(self) {
        let _ = sockopt::set_socket_linger(&self.0, Some(LINGER));
    }
}

impl Read for &Conn {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (&self.0).read(buffer)
    }
}

impl Write for &Conn {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How many connections of a port are open.
pub(crate) struct Connections {
    used: Mutex<usize>,
    changed: Condvar,
    max: usize,
}

impl Connections {
    fn new(max: usize) -> Connections {
        Connections { used: Mutex::new(0), changed: Condvar::new(), max }
    }

    /// Waits until no connection is open, or the deadline is over.
    pub(crate) fn wait_idle(&self, deadline: Instant) {
        let mut used = self.lock();
        while *used > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(used, left);
            used = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the [`Connections`], given back when it is dropped.
struct ConnectionPermit(Arc<Connections>);

impl ConnectionPermit {
    fn take(connections: &Arc<Connections>) -> Option<ConnectionPermit> {
        let mut used = connections.lock();
        if *used == connections.max {
            return None;
        }
        *used += 1;
        Some(ConnectionPermit(Arc::clone(connections)))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.changed.notify_all();
    }
}

/// Serves a listener on threads of its own: `handle` runs once a connection, at most `max` at a
/// time. One more is closed at once.
///
/// # Errors
/// That of starting the accepting thread.
pub(crate) fn serve(
    listener: impl Listener,
    max: usize,
    handle: impl Fn(Conn) + Send + Sync + 'static,
) -> std::io::Result<Arc<Connections>> {
    let connections = Arc::new(Connections::new(max));
    let serving = Arc::clone(&connections);
    let handle = Arc::new(handle);
    let accept = move || {
        loop {
            let Ok(socket) = listener.accept() else {
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            let Some(permit) = ConnectionPermit::take(&serving) else { continue };
            let handle = Arc::clone(&handle);
            // A thread that can't be started drops the connection with its permit.
            let _ = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
                handle(Conn::new(socket));
                drop(permit);
            });
        }
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(accept)?;
    Ok(connections)
}

#[cfg(test)]
impl Listener for std::os::unix::net::UnixListener {
    fn accept(&self) -> std::io::Result<OwnedFd> {
        Ok(std::os::unix::net::UnixListener::accept(self)?.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn connection_over_the_limit_is_closed_and_freed_ones_reused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).expect("bind");
        let connections = serve(listener, 1, |conn| {
            let line = conn.read_line(10).unwrap_or_default();
            let _ = (&conn).write_all(&line);
        });
        let connections = connections.expect("serve");
        let mut first = UnixStream::connect(&path).expect("connect");
        while *connections.lock() == 0 {
            std::thread::yield_now();
        }
        let mut answer = String::new();
        let mut second = UnixStream::connect(&path).expect("connect");
        assert_eq!(second.read_to_string(&mut answer).expect("closed"), 0);
        first.write_all(b"hello\n").expect("write");
        first.read_to_string(&mut answer).expect("answer");
        assert_eq!(answer, "hello");
        connections.wait_idle(Instant::now() + Duration::from_secs(60));
        let mut third = UnixStream::connect(&path).expect("connect");
        third.write_all(b"again\n").expect("write");
        assert_eq!(third.read_to_string(&mut answer).expect("answer"), 5);
    }

    #[test]
    fn a_line_without_its_newline_is_refused_at_the_bound() {
        let (mut host, guest) = UnixStream::pair().expect("pair");
        host.write_all(b"12345\nrest").expect("write");
        let conn = Conn::new(guest.into());
        assert_eq!(conn.read_line(5).expect("line"), b"12345");
        assert_eq!(conn.read_line(3).expect_err("long").kind(), std::io::ErrorKind::InvalidData);
    }
}
