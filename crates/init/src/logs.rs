//! The log stream: frames of the ring from the reader's cursor on. A slow reader is waited for;
//! the command never is.

use crate::ring::Ring;
use crate::serve::{Conn, STACK_BYTES};
use hearth_guest::LogCursor;
use rustix::net::Shutdown;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most readers at a time.
pub(crate) const LOG_READERS_MAX: usize = 8;
/// Longest cursor line, in bytes.
const CURSOR_BYTES_MAX: usize = 256;
/// How long a reader may take to say its cursor.
const CURSOR_LIMIT: Duration = Duration::from_secs(10);

/// Serves one reader until it goes, or until it has everything and no more will come.
pub(crate) fn serve(conn: Conn, ring: &Ring) {
    conn.set_read_limit(Some(CURSOR_LIMIT));
    let line = conn.read_line(CURSOR_BYTES_MAX).unwrap_or_default();
    let Ok(LogCursor { from }) = serde_json::from_slice(&line) else { return };
    conn.set_read_limit(None);
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = || {
            // A reader says nothing after its cursor: only its end is waited for.
            let mut rest = [0; 64];
            while matches!((&conn).read(&mut rest), Ok(read) if read > 0) {}
            gone.store(true, Ordering::Release);
            ring.wake();
        };
        let watcher =
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, watch);
        if watcher.is_ok() {
            write_frames(&conn, ring, from, &gone);
        }
        conn.shutdown(Shutdown::Read);
    });
    conn.finish();
}

fn write_frames(conn: &Conn, ring: &Ring, from: u64, gone: &AtomicBool) {
    let mut cursor = from;
    while let Some((header, payload)) = ring.next(cursor, gone) {
        let mut frame = header.encode().to_vec();
        frame.extend_from_slice(&payload);
        if write_patiently(conn, &frame, gone).is_err() {
            return;
        }
        cursor = header.offset + payload.len() as u64;
    }
}

/// Writes it all, however long the reader takes: while it does, only its own place is held.
fn write_patiently(mut conn: &Conn, bytes: &[u8], gone: &AtomicBool) -> std::io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        match conn.write(left) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error)
                if error.kind() == std::io::ErrorKind::WouldBlock
                    && !gone.load(Ordering::Acquire) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_guest::{LOG_FRAME_HEADER_BYTES, LogFrameHeader, Stream};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::thread::JoinHandle;

    fn connect(ring: &Arc<Ring>, from: u64) -> (UnixStream, JoinHandle<()>) {
        let (mut host, guest) = UnixStream::pair().expect("pair");
        let cursor = serde_json::to_string(&LogCursor { from }).expect("JSON");
        host.write_all(format!("{cursor}\n").as_bytes()).expect("write");
        let ring = Arc::clone(ring);
        let serving = std::thread::spawn(move || serve(Conn::new(guest.into()), &ring));
        (host, serving)
    }

    fn frame(host: &mut UnixStream) -> Option<(LogFrameHeader, Vec<u8>)> {
        let mut header = [0; LOG_FRAME_HEADER_BYTES];
        host.read_exact(&mut header).ok()?;
        let header = LogFrameHeader::decode(&header).expect("a header");
        let mut payload = vec![0; header.len as usize];
        host.read_exact(&mut payload).expect("payload");
        Some((header, payload))
    }

    #[test]
    fn reader_follows_the_output_and_a_later_one_gets_the_rest() {
        let ring = Arc::new(Ring::new(1000));
        let (mut first, serving) = connect(&ring, 0);
        ring.push(Stream::Stdout, b"one\n");
        assert_eq!(frame(&mut first).expect("frame").1, b"one\n");
        drop(first);
        serving.join().expect("let go without any output");
        ring.push(Stream::Stderr, b"two\n");
        let (mut second, serving) = connect(&ring, 4);
        let (header, payload) = frame(&mut second).expect("frame");
        assert_eq!((header.offset, header.stream), (4, Stream::Stderr));
        assert_eq!(payload, b"two\n");
        ring.close();
        assert!(frame(&mut second).is_none());
        serving.join().expect("served");
    }

    #[test]
    fn a_reader_without_a_cursor_gets_nothing() {
        let ring = Arc::new(Ring::new(1000));
        ring.push(Stream::Stdout, b"secret");
        let (mut host, guest) = UnixStream::pair().expect("pair");
        host.write_all(b"hello\n").expect("write");
        serve(Conn::new(guest.into()), &ring);
        assert!(frame(&mut host).is_none());
    }
}
