//! The output of a guest's command on its way into the log: frames become records, a line each.
//!
//! A line that the app does not end for a moment (a prompt, a progress bar) is shown as far as it
//! is, in a partial record that the next one continues.
//!
//! It continues where the log's last record left off, so a restart of the daemon loses nothing that
//! the guest's ring still holds, and takes nothing twice. What the ring lost is said in the log.

use super::control::{CONNECT_DEADLINE, RECONNECT_PAUSE};
use super::instance::Instance;
use super::logs::{LogWriter, Position, Record, Source};
use super::{Shared, lock, logs};
use crate::log_changes::LogSignal;
use crate::{LOG_LINE_BYTES_MAX, LogQuery};
use hearth_firecracker::{names, vsock};
use hearth_guest::{LOG_FRAME_HEADER_BYTES, LOG_PORT, LogCursor, LogFrameHeader, Stream};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};

/// A line that gets no further byte for so long is shown as far as it is. Output that comes in one
/// piece is rarely interrupted for longer, and a person does not see the difference to at once.
const SHOW_AFTER: Duration = Duration::from_millis(200);
/// A line is shown as far as it is after this time at the latest, though it grows all the time.
const SHOW_AFTER_MAX: Duration = Duration::from_secs(1);
/// Bytes of output that are taken in one [`RATE_WINDOW`]; a guest that writes faster waits in its
/// own ring, and loses there.
const RATE_BYTES_MAX: usize = 4 * 1024 * 1024;
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// Lines of a log that are compared with the tail on a status drive, which has under 4 KiB.
const COMPARED_LINES: usize = 4096;
/// Where a log and a tail meet in this many bytes, they meet.
const OVERLAP_BYTES_MIN: usize = 16;

/// Where output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The pipes of a command: its bytes are kept as they are.
    Pipes,
    /// A serial port, whose driver puts a carriage return before each line feed.
    Console,
}

/// Cuts output into records and writes them.
#[derive(Debug)]
pub(super) struct Output {
    writer: LogWriter,
    origin: Origin,
    /// Begun lines of each of [`SOURCES`].
    begun: [Begun; SOURCES.len()],
    /// The guest's offset behind the last byte that was taken.
    offset: u64,
}

/// A line that is not in the log yet.
#[derive(Debug, Default)]
struct Begun {
    text: Vec<u8>,
    /// The guest's offset of its first byte.
    from: u64,
    /// The guest's offset behind the last byte of this stream that was taken.
    taken: u64,
    /// When its first byte came.
    since: Option<Instant>,
    /// When it is shown as far as it is.
    due: Option<Instant>,
}

impl Begun {
    /// Takes a piece of a line, `from` being the guest's offset of its first byte.
    fn extend(&mut self, from: u64, piece: &[u8], now: Instant) {
        if self.text.is_empty() {
            self.from = from;
        }
        self.text.extend_from_slice(piece);
        self.taken = from + piece.len() as u64;
        let since = *self.since.get_or_insert(now);
        self.due = Some((now + SHOW_AFTER).min(since + SHOW_AFTER_MAX));
    }
}

/// Where each of the guest's streams goes.
const SOURCES: [Source; 3] = [Source::Stdout, Source::Stderr, Source::Hearth];

impl Output {
    pub(super) fn open(path: &Path, origin: Origin) -> io::Result<Output> {
        let writer = LogWriter::open(path)?;
        let mut output = Output { writer, origin, begun: Default::default(), offset: 0 };
        output.return_to_log();
        Ok(output)
    }

    /// The same, and from now on those who follow the log are woken by each record.
    pub(super) fn signalling(mut self, signal: LogSignal) -> Output {
        self.writer.signal(signal);
        self
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
            self.return_to_log();
        }
        taken
    }

    /// When a begun line is to be shown.
    pub(super) fn due(&self) -> Option<Instant> {
        self.begun.iter().filter_map(|begun| begun.due).min()
    }

    /// Writes begun lines that are due by `now` as far as they are. Fails like [`Output::take`].
    pub(super) fn show(&mut self, now: Instant) -> io::Result<()> {
        for at in 0..SOURCES.len() {
            let begun = &mut self.begun[at];
            if begun.due.is_none_or(|due| due > now) {
                continue;
            }
            (begun.since, begun.due) = (None, None);
            let len = shown_len(&begun.text, self.origin);
            if len == 0 {
                continue;
            }
            if let Err(error) = self.write_part(at, len) {
                self.return_to_log();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes what has been begun as it is: no more will come.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        for at in 0..SOURCES.len() {
            let len = self.begun[at].text.len();
            if len > 0 {
                self.write_part(at, len)?;
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
            logged.push_str(if line.partial { "" } else { "\n" });
        }
        // An older Hearth dropped carriage returns at the end of a line.
        let (logged, tail) = (logged.replace("\r\n", "\n"), tail.replace("\r\n", "\n"));
        let missing = missing(&logged, &tail);
        if missing.len() == tail.len() && !logged.is_empty() && !tail.is_empty() {
            self.end_lines()?;
            self.writer.line(Source::Hearth, self.offset, b"some output may be lost here")?;
        }
        let mut sources = SOURCES.into_iter();
        let mut source = sources.find(|source| self.writer.is_open(*source));
        for piece in missing.split_inclusive('\n') {
            let text = piece.strip_suffix('\n');
            self.writer.append(Record {
                source: source.take().unwrap_or(Source::Stdout),
                partial: text.is_none(),
                text: text.unwrap_or(piece).as_bytes(),
                position: Position::at(self.offset),
            })?;
        }
        Ok(())
    }

    /// Forgets what is not in the log.
    fn return_to_log(&mut self) {
        self.offset = self.writer.offset();
        self.begun = SOURCES.map(|source| {
            let taken = self.writer.written(source);
            Begun { taken, ..Begun::default() }
        });
    }

    fn try_take(&mut self, stream: Stream, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        if offset > self.offset {
            let lost = offset - self.offset;
            self.offset = offset;
            self.end_lines()?;
            let text = format!("{lost} bytes of output were lost");
            self.writer.line(Source::Hearth, offset, text.as_bytes())?;
        }
        let at = match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
            Stream::Init => 2,
        };
        // What was in the log before the other stream's begun line comes again after a restart.
        let known = self.begun[at].taken.saturating_sub(offset).min(bytes.len() as u64);
        let mut position = offset + known;
        for piece in bytes[known as usize..].split_inclusive(|&byte| byte == b'\n') {
            self.begun[at].extend(position, piece, now);
            position += piece.len() as u64;
            self.offset = self.offset.max(position);
            let ends = piece.ends_with(b"\n");
            while self.begun[at].text.len() - usize::from(ends) > LOG_LINE_BYTES_MAX {
                let len = cut_len(&self.begun[at].text, LOG_LINE_BYTES_MAX);
                self.write_part(at, len)?;
            }
            if ends {
                self.write_line(at)?;
            }
        }
        self.offset = self.offset.max(offset + bytes.len() as u64);
        Ok(())
    }

    /// Writes a begun line that has its line feed.
    fn write_line(&mut self, at: usize) -> io::Result<()> {
        let mut text = std::mem::take(&mut self.begun[at].text);
        text.pop();
        if self.origin == Origin::Console {
            text.pop_if(|last| *last == b'\r');
        }
        (self.begun[at].since, self.begun[at].due) = (None, None);
        self.write(at, self.begun[at].taken, false, &text)
    }

    /// Writes the first `len` bytes of a begun line.
    fn write_part(&mut self, at: usize, len: usize) -> io::Result<()> {
        let begun = &mut self.begun[at];
        let rest = begun.text.split_off(len);
        let text = std::mem::replace(&mut begun.text, rest);
        begun.from += len as u64;
        let written = begun.from;
        self.write(at, written, true, &text)
    }

    /// Writes a record that ends before the guest's offset `written`.
    fn write(&mut self, at: usize, written: u64, partial: bool, text: &[u8]) -> io::Result<()> {
        // What has been begun is not durable yet, so it is read again after a restart.
        let begun = self.begun.iter().filter(|begun| !begun.text.is_empty());
        let resume = begun.map(|begun| begun.from).min().unwrap_or(self.offset);
        let position = Position { resume: resume.min(self.offset), written: written.max(resume) };
        self.writer.append(Record { source: SOURCES[at], partial, text, position })
    }

    /// Ends begun lines, and those whose last record is partial.
    fn end_lines(&mut self) -> io::Result<()> {
        for (at, source) in SOURCES.into_iter().enumerate() {
            if !self.begun[at].text.is_empty() || self.writer.is_open(source) {
                let text = std::mem::take(&mut self.begun[at].text);
                (self.begun[at].since, self.begun[at].due) = (None, None);
                self.write(at, self.offset, false, &text)?;
            }
        }
        Ok(())
    }
}

/// Length of the part of a begun line that can be shown: without the beginning of a character, and
/// on a console without what may be the first half of a line's end.
fn shown_len(text: &[u8], origin: Origin) -> usize {
    let text = match origin {
        Origin::Console => text.strip_suffix(b"\r").unwrap_or(text),
        Origin::Pipes => text,
    };
    let tail = &text[text.len().saturating_sub(UTF8_BYTES_MAX - 1)..];
    let lead = tail.iter().rposition(|byte| !is_continuation(*byte));
    let begun = lead.map_or(&[][..], |lead| &tail[lead..]);
    let is_begun = begun.first().is_some_and(|lead| begun.len() < char_len(*lead));
    if is_begun { text.len() - begun.len() } else { text.len() }
}

/// The longest prefix of `text`, at most `max` bytes, that does not end within a character.
fn cut_len(text: &[u8], max: usize) -> usize {
    let back = (0..UTF8_BYTES_MAX).find(|back| !is_continuation(text[max - back]));
    max - back.unwrap_or(0)
}

/// Longest character in UTF-8, in bytes.
const UTF8_BYTES_MAX: usize = 4;

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// Bytes of a character that begins with this one.
fn char_len(lead: u8) -> usize {
    match lead {
        0b1100_0000..=0b1101_1111 => 2,
        0b1110_0000..=0b1110_1111 => 3,
        0b1111_0000..=0b1111_0111 => 4,
        _ => 1,
    }
}

/// The end of `tail` that `logged` does not end with.
fn missing<'a>(logged: &str, tail: &'a str) -> &'a str {
    // An older Hearth logged a line without its end as a whole line.
    let open = logged.strip_suffix('\n').unwrap_or(logged);
    let is_seen = |head: &str| {
        // A few equal bytes are chance; so many, or all there are, are not.
        let enough = head.len() >= OVERLAP_BYTES_MIN || head.len() >= open.len();
        enough && !head.is_empty() && (logged.ends_with(head) || open.ends_with(head))
    };
    let mut cuts = tail.char_indices().map(|(at, _)| at).chain([tail.len()]).rev();
    let seen = cuts.find(|&at| is_seen(&tail[..at])).unwrap_or(0);
    let missing = &tail[seen..];
    let ended = seen > 0 && logged.len() > open.len() && !tail[..seen].ends_with('\n');
    missing.strip_prefix('\n').filter(|_| ended).unwrap_or(missing)
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
        match showing(output, stream.read_exact(&mut header)).await? {
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

/// Waits for more output, and shows begun lines meanwhile.
pub(super) async fn showing<T>(
    output: &Mutex<Output>,
    more: impl Future<Output = T>,
) -> io::Result<T> {
    let mut more = pin!(more);
    loop {
        let due = lock(output).due();
        let shown = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The first arm is only polled here, and never dropped half done.
            biased;
            more = &mut more => return Ok(more),
            () = shown => lock(output).show(Instant::now())?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let page = logs::read(path, LogQuery::default()).unwrap();
        let shown = |line: &crate::LogLine| {
            format!("{}: {}{}", line.stream, line.text, if line.partial { "+" } else { "" })
        };
        page.lines.iter().map(shown).collect()
    }

    /// What an app wrote to a stream, put together from its records.
    fn joined(path: &Path, stream: &str) -> String {
        let page = logs::read(path, LogQuery::default()).unwrap();
        let records = page.lines.iter().filter(|line| line.stream == stream);
        records
            .flat_map(|line| [line.text.as_str(), if line.partial { "" } else { "\n" }])
            .collect()
    }

    fn output() -> (tempfile::TempDir, std::path::PathBuf, Output) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let output = Output::open(&path, Origin::Pipes).unwrap();
        (dir, path, output)
    }

    fn later() -> Instant {
        Instant::now() + SHOW_AFTER_MAX
    }

    #[test]
    fn pieces_of_two_streams_become_whole_lines() {
        let (_dir, path, mut output) = output();
        output.take(Stream::Stdout, 0, b"one\ntw").unwrap();
        output.take(Stream::Stderr, 6, b"oops\n").unwrap();
        output.take(Stream::Stdout, 11, b"o\nend").unwrap();
        output.flush().unwrap();
        assert_eq!(lines(&path), ["stdout: one", "stderr: oops", "stdout: two", "stdout: end+"]);
    }

    #[test]
    fn restart_reads_begun_lines_again_and_nothing_twice() {
        let (_dir, path, mut output) = output();
        output.take(Stream::Stdout, 0, b"one\ntw").unwrap();
        output.take(Stream::Stderr, 6, b"oops\n").unwrap();
        output.take(Stream::Stderr, 11, b"again\nbeg").unwrap();
        drop(output);
        let mut output = Output::open(&path, Origin::Pipes).unwrap();
        assert_eq!(output.offset(), 4, "the begun line is read again");
        output.take(Stream::Stdout, 4, b"tw").unwrap();
        output.take(Stream::Stderr, 6, b"oops\nagain\nbegun\n").unwrap();
        output.take(Stream::Stdout, 23, b"o\n").unwrap();
        let expected =
            ["stdout: one", "stderr: oops", "stderr: again", "stderr: begun", "stdout: two"];
        assert_eq!(lines(&path), expected);
    }

    #[test]
    fn lost_output_is_said_and_ends_begun_lines() {
        let (_dir, path, mut output) = output();
        output.take(Stream::Stdout, 0, b"one\ntw").unwrap();
        output.take(Stream::Stderr, 6, b"oo").unwrap();
        output.show(later()).unwrap();
        drop(output);
        let mut output = Output::open(&path, Origin::Pipes).unwrap();
        assert_eq!(output.offset(), 8);
        output.take(Stream::Stdout, 104, b"later\n").unwrap();
        let expected = [
            "stdout: one",
            "stdout: tw+",
            "stderr: oo+",
            "stdout: ",
            "stderr: ",
            "hearth: 96 bytes of output were lost",
            "stdout: later",
        ];
        assert_eq!(lines(&path), expected);
    }

    #[test]
    fn lines_are_whole_up_to_the_bound_and_longer_ones_continue() {
        for (len, records) in [
            (16 * 1024 + 1, 1),
            (LOG_LINE_BYTES_MAX, 1),
            (LOG_LINE_BYTES_MAX + 1, 2),
            (2 * LOG_LINE_BYTES_MAX + 1, 3),
        ] {
            let (_dir, path, mut output) = output();
            // Characters of three bytes, so that a bound comes within one.
            let line: String = "€".repeat(len / 3) + &"x".repeat(len % 3) + "\nnext\n";
            for (at, piece) in line.as_bytes().chunks(16 * 1024).enumerate() {
                output.take(Stream::Stdout, at as u64 * 16 * 1024, piece).unwrap();
            }
            let page = logs::read(&path, LogQuery::default()).unwrap();
            assert_eq!(page.lines.len(), records + 1, "{len}");
            assert!(page.lines.iter().all(|line| line.text.len() <= LOG_LINE_BYTES_MAX));
            assert_eq!(page.line_count(), 2);
            assert_eq!(joined(&path, "stdout"), line, "{len}");
        }
    }

    #[test]
    fn begun_line_is_shown_once_it_is_due() {
        let (_dir, path, mut output) = output();
        assert_eq!(output.due(), None);
        let begin = Instant::now();
        output.take(Stream::Stdout, 0, b"Password: ").unwrap();
        let due = output.due().expect("it is begun");
        assert!(due >= begin + SHOW_AFTER);
        output.show(due - Duration::from_millis(1)).unwrap();
        assert!(lines(&path).is_empty());
        output.show(due).unwrap();
        assert_eq!(lines(&path), ["stdout: Password: +"]);
        assert_eq!(output.due(), None);
        output.take(Stream::Stdout, 10, b"x\ny").unwrap();
        output.take(Stream::Stderr, 13, b"50 %\r").unwrap();
        output.show(later()).unwrap();
        output.take(Stream::Stderr, 18, b"100 %\r\n").unwrap();
        output.flush().unwrap();
        let expected = [
            "stdout: Password: +",
            "stdout: x",
            "stdout: y+",
            "stderr: 50 %\r+",
            "stderr: 100 %\r",
        ];
        assert_eq!(lines(&path), expected);
    }

    #[test]
    fn line_that_grows_all_the_time_is_shown_too() {
        let mut begun = Begun::default();
        let begin = Instant::now();
        for tenths in 0..30 {
            begun.extend(tenths, b"x", begin + SHOW_AFTER / 2 * tenths as u32);
        }
        assert_eq!(begun.due, Some(begin + SHOW_AFTER_MAX));
    }

    #[test]
    fn begun_line_is_never_cut_within_a_character() {
        let text = "aé€😀".as_bytes();
        for len in 0..=text.len() {
            let shown = &text[..shown_len(&text[..len], Origin::Pipes)];
            assert!(std::str::from_utf8(shown).is_ok() && len - shown.len() < UTF8_BYTES_MAX);
        }
        // What is not UTF-8 is not waited for.
        for text in [&b"\xff"[..], b"a\x80", b"\x80\x80\x80\x80\x80"] {
            assert_eq!(shown_len(text, Origin::Pipes), text.len(), "{text:?}");
        }
        let (_dir, path, mut output) = output();
        output.take(Stream::Stdout, 0, &text[..text.len() - 1]).unwrap();
        output.show(later()).unwrap();
        assert_eq!(output.due(), None, "the rest of it is waited for");
        output.take(Stream::Stdout, 9, &text[text.len() - 1..]).unwrap();
        output.flush().unwrap();
        assert_eq!(lines(&path), ["stdout: aé€+", "stdout: 😀+"]);
    }

    #[test]
    fn console_lines_lose_the_return_of_their_driver_only() {
        let (_dir, path, _) = output();
        let mut output = Output::open(&path, Origin::Console).unwrap();
        let all = b"one\r\n50 %\r100 %\r\nlogin: \r";
        for (at, byte) in all.iter().enumerate() {
            output.take(Stream::Stdout, at as u64, &[*byte]).unwrap();
            output.show(later()).unwrap();
        }
        output.flush().unwrap();
        assert_eq!(joined(&path, "stdout"), "one\n50 %\r100 %\nlogin: \r");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_more_shows_what_has_been_begun() {
        let (_dir, path, output) = output();
        let output = Mutex::new(output);
        lock(&output).take(Stream::Stdout, 0, b"Password: ").unwrap();
        let more = async {
            tokio::time::sleep(SHOW_AFTER / 2).await;
            assert!(lines(&path).is_empty());
            tokio::time::sleep(SHOW_AFTER).await;
            lines(&path)
        };
        assert_eq!(showing(&output, more).await.unwrap(), ["stdout: Password: +"]);
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
        assert_eq!(lines.last().unwrap(), "stderr: what was begun+");
        let before_last = &lines[lines.len() - 2];
        assert_eq!(*before_last, format!("stdout: {:0>128}", 7999));
        assert!(lines.iter().all(|line| !line.contains("lost")));
    }

    #[test]
    fn status_drive_tail_adds_missing_lines_and_repeats_none() {
        let (_dir, path, mut output) = output();
        output.take(Stream::Stdout, 0, b"one\ntwo\nthr").unwrap();
        output.complete(&path, "one\ntwo\nthree\nfour").unwrap();
        assert_eq!(
            lines(&path),
            ["stdout: one", "stdout: two", "stdout: thr+", "stdout: ee", "stdout: four+"]
        );
        let cut = "two, and what was said before\nthr";
        assert_eq!(missing("one, two, and what was said before\nthr\n", cut), "");
        assert_eq!(missing("one, two, and what was said", cut), " before\nthr");
        assert_eq!(missing("one, two, and what was said before", cut), "\nthr");
        assert_eq!(missing("one, two, and what was said before\n", cut), "thr");
        assert_eq!(missing("other\n", "\nthr"), "\nthr");
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
