//! The output of a guest's command on its way into the log: frames become lines.
//!
//! It goes on where the log's last line left off, so a restart of the daemon loses nothing that
//! the guest's ring still holds. What the ring lost is said in the log.

use super::control::{CONNECT_DEADLINE, RECONNECT_PAUSE};
use super::instance::Instance;
use super::logs::{LINE_BYTES_MAX, LogWriter, Source};
use super::{Shared, lock, logs};
use crate::LogQuery;
use hearth_firecracker::{names, vsock};
use hearth_guest::{LOG_FRAME_HEADER_BYTES, LOG_PORT, LogCursor, LogFrameHeader, Stream};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Bytes of output that are taken in one [`RATE_WINDOW`]; a guest that writes faster waits in its
/// own ring, and loses there.
const RATE_BYTES_MAX: usize = 4 * 1024 * 1024;
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// Lines of a log that are compared with the tail on a status drive, which has under 4 KiB.
const COMPARED_LINES: usize = 4096;
/// Where a log and a tail meet in this many bytes, they meet.
const OVERLAP_BYTES_MIN: usize = 16;

/// Cuts output into lines and writes them.
#[derive(Debug)]
pub(super) struct Output {
    writer: LogWriter,
    /// Begun lines of stdout and stderr, with the guest's offset of the first byte.
    begun: [Begun; 2],
    /// The guest's offset behind the last byte that was taken.
    offset: u64,
}

#[derive(Debug, Default)]
struct Begun {
    from: u64,
    text: Vec<u8>,
}

impl Output {
    pub(super) fn open(path: &Path) -> io::Result<Output> {
        let writer = LogWriter::open(path)?;
        let offset = writer.offset();
        Ok(Output { writer, begun: Default::default(), offset })
    }

    /// The first offset that is lacking.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes output that begins at `offset`. After a failure it stands where the log ends, so that what
    /// was not written is asked for again.
    pub(super) fn take(&mut self, stream: Stream, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let taken = self.try_take(stream, offset, bytes);
        if taken.is_err() {
            self.begun = Default::default();
            self.offset = self.writer.offset();
        }
        taken
    }

    fn try_take(&mut self, stream: Stream, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset > self.offset {
            let lost = offset - self.offset;
            self.flush()?;
            let text = format!("{lost} bytes of output were lost");
            self.writer.line(Source::Hearth, offset, text.as_bytes())?;
        }
        let (source, at) = match stream {
            Stream::Stdout => (Source::Stdout, 0),
            Stream::Stderr => (Source::Stderr, 1),
        };
        let mut position = offset;
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let begun = &mut self.begun[at];
            if begun.text.is_empty() {
                begun.from = position;
            }
            position += piece.len() as u64;
            begun.text.extend_from_slice(piece);
            if begun.text.ends_with(b"\n") {
                begun.text.pop();
            } else if begun.text.len() < LINE_BYTES_MAX {
                continue;
            }
            let text = std::mem::take(&mut self.begun[at].text);
            // What the other stream has begun is not durable yet, so it is read again.
            let other = &self.begun[1 - at];
            let behind = if other.text.is_empty() { position } else { other.from };
            self.writer.line(source, behind, &text)?;
        }
        self.offset = position;
        Ok(())
    }

    /// Writes what has been begun as lines.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        for (at, source) in [(0, Source::Stdout), (1, Source::Stderr)] {
            let text = std::mem::take(&mut self.begun[at].text);
            if !text.is_empty() {
                self.writer.line(source, self.offset, &text)?;
            }
        }
        Ok(())
    }

    /// Adds what is on the status drive and not in the log.
    pub(super) fn complete(&mut self, path: &Path, tail: &str) -> io::Result<()> {
        self.flush()?;
        let query = LogQuery { after: 0, tail: Some(COMPARED_LINES) };
        let page = logs::read(path, query).map_err(io::Error::other)?;
        let mut logged = String::new();
        for line in page.lines.iter().filter(|line| line.stream != "hearth") {
            logged.push_str(&line.text);
            logged.push('\n');
        }
        let tail = tail.replace("\r\n", "\n");
        let missing = missing(&logged, &tail);
        if missing.len() == tail.len() && !logged.is_empty() && !tail.is_empty() {
            self.writer.line(Source::Hearth, self.offset, b"some output may be lost here")?;
        }
        for line in missing.lines() {
            self.writer.line(Source::Stdout, self.offset, line.as_bytes())?;
        }
        Ok(())
    }
}

/// The end of `tail` that `logged`, a text of whole lines, does not end with.
fn missing<'a>(logged: &str, tail: &'a str) -> &'a str {
    // A line without its end was logged as a whole line.
    let open = logged.strip_suffix('\n').unwrap_or(logged);
    let is_seen = |head: &str| {
        // A few equal bytes are chance; so many, or all there are, are not.
        let enough = head.len() >= OVERLAP_BYTES_MIN || head.len() >= open.len();
        enough && !head.is_empty() && (logged.ends_with(head) || open.ends_with(head))
    };
    let mut cuts = tail.char_indices().map(|(at, _)| at).chain([tail.len()]).rev();
    let seen = cuts.find(|&at| is_seen(&tail[..at])).unwrap_or(0);
    tail[seen..].trim_start_matches('\n')
}

/// Follows the output of a guest. Ends only when `is_gone` says that the process is, and what it
/// had sent has been read.
pub(super) async fn follow(
    shared: &Shared,
    instance: &Instance,
    output: &Mutex<Output>,
    is_gone: impl Fn() -> bool,
) {
    loop {
        let uds = instance.directory.socket(names::VSOCK_SOCKET);
        let deadline = CONNECT_DEADLINE * shared.factor();
        if let Ok(stream) = vsock::connect(&uds, LOG_PORT, deadline).await
            && let Err(error) = read_frames(stream, output).await
        {
            tracing::debug!(instance = %instance.id, %error, "the log stream broke");
        }
        if is_gone() {
            return;
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

pub(super) async fn read_frames(mut stream: UnixStream, output: &Mutex<Output>) -> io::Result<()> {
    let cursor = LogCursor { from: lock(output).offset() };
    let mut line = serde_json::to_vec(&cursor)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut payload = Vec::new();
    let (mut window, mut taken) = (Instant::now(), 0);
    loop {
        let mut header = [0; LOG_FRAME_HEADER_BYTES];
        match stream.read_exact(&mut header).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        };
        let header =
            LogFrameHeader::decode(&header).ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
        payload.resize(header.len as usize, 0);
        stream.read_exact(&mut payload).await?;
        lock(output).take(header.stream, header.offset, &payload)?;
        taken += payload.len();
        if taken > RATE_BYTES_MAX {
            tokio::time::sleep_until(window + RATE_WINDOW).await;
            (window, taken) = (Instant::now(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let page = logs::read(path, LogQuery::default()).unwrap();
        page.lines.iter().map(|line| format!("{}: {}", line.stream, line.text)).collect()
    }

    fn output() -> (tempfile::TempDir, std::path::PathBuf, Output) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let output = Output::open(&path).unwrap();
        (dir, path, output)
    }

    #[test]
    fn pieces_of_two_streams_become_whole_lines() {
        let (_dir, path, mut output) = output();
        output.take(Stream::Stdout, 0, b"one\ntw").unwrap();
        output.take(Stream::Stderr, 6, b"oops\n").unwrap();
        output.take(Stream::Stdout, 11, b"o\nend").unwrap();
        output.flush().unwrap();
        assert_eq!(lines(&path), ["stdout: one", "stderr: oops", "stdout: two", "stdout: end"]);
    }

    #[test]
    fn a_restart_reads_begun_lines_again_and_says_what_was_lost() {
        let (_dir, path, mut output) = output();
        output.take(Stream::Stdout, 0, b"one\ntw").unwrap();
        drop(output);
        let mut output = Output::open(&path).unwrap();
        assert_eq!(output.offset(), 4);
        output.take(Stream::Stdout, 100, b"later\n").unwrap();
        assert_eq!(
            lines(&path),
            ["stdout: one", "hearth: 96 bytes of output were lost", "stdout: later"]
        );
    }

    #[test]
    fn what_could_not_be_written_is_read_again_and_nothing_else() {
        let (dir, path, mut output) = output();
        let said: String = (0..8000).map(|number| format!("{number:0>128}\n")).collect();
        let begun = "what was begun";
        // Too much for one file: the next is made in the middle of it, unless something is in its place.
        let obstacle = dir.path().join("x.log.new");
        std::fs::create_dir(&obstacle).unwrap();
        output.take(Stream::Stderr, 0, begun.as_bytes()).unwrap();
        let all = format!("{begun}{said}");
        let rest = |output: &Output| all.as_bytes()[output.offset() as usize..].to_vec();
        let (stdout, from) = (rest(&output), output.offset());
        output.take(Stream::Stdout, from, &stdout).unwrap_err();
        assert_eq!(output.offset(), 0, "the line that was begun before is not durable");
        std::fs::remove_dir(&obstacle).unwrap();
        output.take(Stream::Stderr, 0, begun.as_bytes()).unwrap();
        let (stdout, from) = (rest(&output), output.offset());
        output.take(Stream::Stdout, from, &stdout).unwrap();
        output.flush().unwrap();
        let lines = lines(&path);
        assert_eq!(lines.last().unwrap(), "stderr: what was begun");
        let before_last = &lines[lines.len() - 2];
        assert_eq!(*before_last, format!("stdout: {:0>128}", 7999));
        assert!(lines.iter().all(|line| !line.contains("lost")));
    }

    #[test]
    fn the_tail_of_the_status_drive_adds_what_is_missing_and_nothing_twice() {
        let (_dir, path, mut output) = output();
        output.take(Stream::Stdout, 0, b"one\ntwo\nthr").unwrap();
        output.complete(&path, "one\ntwo\nthree\nfour").unwrap();
        assert_eq!(
            lines(&path),
            ["stdout: one", "stdout: two", "stdout: thr", "stdout: ee", "stdout: four"]
        );
        let cut = "two, and what was said before\nthr";
        assert_eq!(missing("one, two, and what was said before\nthr\n", cut), "");
        assert_eq!(missing("one, two, and what was said", cut), " before\nthr");
    }

    #[test]
    fn a_tail_that_meets_nothing_says_so() {
        let (_dir, path, mut output) = output();
        output.take(Stream::Stdout, 0, b"one\n").unwrap();
        output.complete(&path, "eight\nnine\n").unwrap();
        let expected = [
            "stdout: one",
            "hearth: some output may be lost here",
            "stdout: eight",
            "stdout: nine",
        ];
        assert_eq!(lines(&path), expected);
    }
}
