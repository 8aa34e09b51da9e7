//! Channels: connections from the host, each to what its first line names: a TCP port of the guest's
//! loopback. Nothing here looks at a byte of what a channel carries.
//!
//! What the host sends up to its end reaches the app, which then sees the end. When the app ends
//! its side, the connection is closed: Firecracker's vsock passes no half-close on to its Unix socket
//! (and ends both directions where the host half-closes), so a host that wants the answer keeps
//! its own side open until the answer ends.

use crate::ready;
use crate::serve::{Conn, STACK_BYTES};
use hearth_guest::{CHANNEL_LINE_BYTES_MAX, Channel, OpenError, Opened};
use rustix::net::Shutdown;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Most channels at a time.
pub(crate) const CHANNELS_MAX: usize = 64;
/// How long the host may take to name the channel.
const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of connecting to the app.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that one direction holds.
const BUFFER_BYTES: usize = 16 * 1024;

/// Serves one connection.
pub(crate) fn serve(conn: Conn) {
    conn.set_read_limit(Some(LINE_TIMEOUT));
    let app = match open(&conn) {
        Ok(app) => app,
        Err(refused) => {
            let _ = (&conn).write_all(format!("{}\n", refused.line()).as_bytes());
            return conn.finish();
        }
    };
    conn.set_read_limit(None);
    if (&conn).write_all(format!("{}\n", Opened::Yes.line()).as_bytes()).is_err() {
        return;
    }
    std::thread::scope(|scope| {
        let to_app = || {
            let ended = copy(&conn, &app);
            // The app may still be answering: both directions end only if the host no longer reads.
            let _ = app.shutdown(match ended {
                Ok(()) if !conn.is_refused() => std::net::Shutdown::Write,
                _ => std::net::Shutdown::Both,
            });
        };
        let other = std::thread::Builder::new().stack_size(STACK_BYTES);
        if other.spawn_scoped(scope, to_app).is_ok() {
            let _ = copy(&app, &conn);
        }
        conn.shutdown(Shutdown::Both);
        let _ = app.shutdown(std::net::Shutdown::Both);
    });
}

fn open(conn: &Conn) -> Result<TcpStream, Opened> {
    let line = conn.read_line(CHANNEL_LINE_BYTES_MAX);
    let line = line.map_err(|_| Opened::No("no channel was named".to_owned()))?;
    let Channel::Port(port) = Channel::parse(&line).map_err(|error| match error {
        OpenError::Unsupported => Opened::Unsupported,
        OpenError::Malformed => Opened::No("not a port".to_owned()),
    })?;
    let app = ready::connect(port, CONNECT_LIMIT).map_err(|error| {
        Opened::No(format!("cannot connect to port {port} of the guest: {error}"))
    })?;
    let _ = app.set_nodelay(true);
    Ok(app)
}

/// Copies until the end of `from`.
fn copy(mut from: impl Read, mut to: impl Write) -> std::io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut left = &buffer[..read];
        while !left.is_empty() {
            match to.write(left) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => left = &left[written..],
                // A peer that reads slowly is not an error: the end of its stream says when to stop.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::thread::JoinHandle;

    fn connect(port: &str) -> (UnixStream, JoinHandle<()>) {
        let (mut host, guest) = UnixStream::pair().expect("pair");
        host.write_all(format!("{port}\n").as_bytes()).expect("write");
        let serving = std::thread::spawn(move || serve(Conn::new(guest.into())));
        (host, serving)
    }

    fn answer(port: &str) -> String {
        let (mut host, serving) = connect(port);
        let mut answer = String::new();
        host.read_to_string(&mut answer).expect("answer");
        serving.join().expect("served");
        answer
    }

    #[test]
    fn bytes_go_both_ways_and_the_hosts_end_reaches_the_app() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let app = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).expect("up to the half-close");
            stream.write_all(&asked).expect("answer after it");
        });
        let (mut host, serving) = connect(&port.to_string());
        let sent = vec![7; 3 * BUFFER_BYTES + 1];
        host.write_all(&sent).expect("write");
        host.shutdown(std::net::Shutdown::Write).expect("shutdown");
        let mut got = Vec::new();
        host.read_to_end(&mut got).expect("read");
        assert_eq!(&got[..3], b"OK\n");
        assert_eq!(&got[3..], sent);
        app.join().expect("app");
        serving.join().expect("served");
    }

    #[test]
    fn end_of_the_app_closes_a_connection_that_the_host_keeps_open() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (mut host, serving) = connect(&port.to_string());
        let (mut stream, _) = listener.accept().expect("accept");
        stream.write_all(b"bye").expect("write");
        drop(stream);
        let mut got = String::new();
        host.read_to_string(&mut got).expect("read");
        assert_eq!(got, "OK\nbye");
        serving.join().expect("served");
    }

    #[test]
    fn what_cannot_be_reached_is_refused_with_its_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port().to_string();
        drop(listener);
        let refused = answer(&port);
        let expected = format!("ERR cannot connect to port {port} of the guest: Connection refus");
        assert!(refused.starts_with(&expected), "{refused}");
        assert_eq!(answer("http"), "ERR not a port\n");
        assert_eq!(answer("0"), "ERR not a port\n");
        assert_eq!(answer("70000"), "ERR not a port\n");
        assert_eq!(answer(""), "ERR not a port\n");
        assert_eq!(answer(r#"{"port":0}"#), "ERR not a port\n");
        assert_eq!(answer(r#"{"exec":["ls"]}"#), "UNSUPPORTED\n");
    }

    #[test]
    fn port_is_opened_by_the_line_of_any_protocol() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        for protocol in [1, 2] {
            let (mut host, serving) = connect(&Channel::Port(port).opening(protocol));
            let mut got = [0; 3];
            host.read_exact(&mut got).expect("an answer");
            assert_eq!(&got, b"OK\n");
            drop(listener.accept().expect("accept"));
            assert_eq!(host.read(&mut got).expect("read"), 0, "the end of the app is passed on");
            serving.join().expect("served");
        }
    }
}
