//! Forwarding: one connection from the host to one TCP port of the guest's loopback. It looks at
//! no byte of what it carries.
//!
//! What the host sends up to its end reaches the app, which then sees the end. When the app ends
//! its side, the connection is closed: Firecracker's vsock tells its Unix socket of no half-close
//! (and ends both directions where the host half-closes), so a host that wants the answer keeps
//! its own side open until the answer ends.

use crate::ready;
use crate::serve::{Conn, STACK_BYTES};
use rustix::net::Shutdown;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Most forwarded connections at a time.
pub(crate) const FORWARDS_MAX: usize = 64;
/// Longest port line, in bytes.
const PORT_BYTES_MAX: usize = 8;
/// How long the host may take to say the port.
const PORT_LIMIT: Duration = Duration::from_secs(10);
/// Time limit of connecting to the app.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that one direction holds.
const BUFFER_BYTES: usize = 16 * 1024;

/// Serves one connection.
pub(crate) fn serve(conn: Conn) {
    conn.set_read_limit(Some(PORT_LIMIT));
    let app = match open(&conn) {
        Ok(app) => app,
        Err(reason) => {
            let _ = (&conn).write_all(format!("ERR {reason}\n").as_bytes());
            return conn.finish();
        }
    };
    conn.set_read_limit(None);
    if (&conn).write_all(b"OK\n").is_err() {
        return;
    }
    std::thread::scope(|scope| {
        let to_app = || {
            let ended = copy(&conn, &app);
            // The app may still be answering: both directions end only where nobody would hear.
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

fn open(conn: &Conn) -> Result<TcpStream, String> {
    let line = conn.read_line(PORT_BYTES_MAX).map_err(|_| "no port was named".to_owned())?;
    let port = std::str::from_utf8(&line).ok().and_then(|port| port.trim().parse::<u16>().ok());
    let port = port.filter(|&port| port != 0).ok_or_else(|| "not a port".to_owned())?;
    let app = ready::connect(port, CONNECT_LIMIT)
        .map_err(|error| format!("cannot connect to port {port} of the guest: {error}"))?;
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
                // A peer that reads slowly is no error: its own end tells when to stop.
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
    fn the_apps_end_closes_the_connection_while_the_host_still_holds_its_side() {
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
    }
}
