//! The notify socket: a Unix stream socket on which the app says that it is ready. Any process of
//! the guest may; what it says is the job's own business.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How long a peer may take to say its line; the next one waits for that.
const LINE_LIMIT: Duration = Duration::from_secs(1);
/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 64;

/// Listens at `path` on a thread of its own, and calls `ready` each time a peer says `ready` (or
/// `READY=1`, as other supervisors have it).
///
/// # Errors
/// That of the socket or the thread.
pub(crate) fn listen(path: &Path, ready: impl Fn() + Send + 'static) -> std::io::Result<()> {
    let listener = UnixListener::bind(path)?;
    // The app may have given up root.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    let accept = move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) if says_ready(&stream) => ready(),
                Ok(_) => {}
                Err(_) => std::thread::sleep(LINE_LIMIT),
            }
        }
    };
    std::thread::Builder::new().name("notify".to_owned()).spawn(accept)?;
    Ok(())
}

fn says_ready(stream: &UnixStream) -> bool {
    let mut line = Vec::new();
    let _ = stream.set_read_timeout(Some(LINE_LIMIT));
    let mut limited = stream.take(LINE_BYTES_MAX);
    let mut byte = [0];
    while !line.ends_with(b"\n") && limited.read(&mut byte).is_ok_and(|read| read > 0) {
        line.push(byte[0]);
    }
    matches!(line.trim_ascii(), b"ready" | b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::mpsc::channel;

    #[test]
    fn ready_is_heard_and_anything_else_is_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("notify.sock");
        let (sender, heard) = channel();
        listen(&path, move || sender.send(()).expect("send")).expect("listen");
        let say = |words: &[u8]| {
            let mut stream = UnixStream::connect(&path).expect("connect");
            stream.write_all(words).expect("write");
        };
        say(b"not ready\n");
        say(b"");
        assert!(heard.recv_timeout(Duration::from_millis(100)).is_err());
        for words in [&b"ready\n"[..], b"ready", b"READY=1\n"] {
            say(words);
            heard.recv_timeout(Duration::from_secs(30)).expect("heard");
        }
    }
}
