//! The log of an instance: two files of at most 1 MiB, the older one named with `.1` behind.
//!
//! ```text
//!   base 0
//!   2026-11-23T11:00:00.000Z stdout 12 Hello World
//!   2026-11-23T11:00:01.000Z stdout+ 22 Password:
//!   2026-11-23T11:00:02.000Z stderr 22+9 failure
//!   ^ when it came           ^      ^ the guest's offsets
//! ```
//!
//! The first line says the cursor of the byte behind it, so that cursors survive rotations. Each
//! further line is a record. A `+` behind its stream marks a record that the next one of the same
//! stream continues: the app had not ended its line yet, or the line is longer than a record.
//!
//! `22` is the guest's offset from which a new daemon reads the output again; `+9` says that this
//! stream is in the log nine bytes further, so that these are skipped then: the other stream has
//! begun a line before them that is not in the log yet. Offsets are durable exactly as far as the
//! output is. Written to the page cache, never synced: a kill of the daemon loses nothing, a power
//! cut loses the end.
//!
//! A rotation makes the next file with its first line under a name with `.new` behind, renames
//! `x.log` to `x.log.1`, and then the next file to `x.log`. So a step that fails, or a kill between
//! two, leaves a log that can be read and rotated again.

use super::errors;
use super::layout::{Layout, absent_is_fine, create_file, open_file, open_to_write};
use crate::log_changes::LogSignal;
use crate::{HostError, LogLine, LogPage, LogQuery};
use hearth_model::InstanceId;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Size at which a file is rotated, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Follows the stream of a record that the next one continues.
const PARTIAL: &str = "+";
/// Longest first line of a file, in bytes: `base `, a cursor of 19 digits as queries have it, and
/// the line's end. So a cursor and a file's length make no sum beyond 64 bits.
const HEADER_BYTES_MAX: u64 = 25;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
    /// The host itself.
    Hearth,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
            Source::Hearth => "hearth",
        }
    }

    fn parse(text: &str) -> Option<Source> {
        [Source::Stdout, Source::Stderr, Source::Hearth].into_iter().find(|s| s.name() == text)
    }
}

/// Where the guest's output is in the log, as offsets of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// All output before this is in the log.
    pub(super) resume: u64,
    /// All output before this that belongs to the record's stream is; never less than `resume`.
    pub(super) written: u64,
}

impl Position {
    /// All output before `offset` is in the log, and none behind it.
    pub(super) fn at(offset: u64) -> Position {
        Position { resume: offset, written: offset }
    }

    fn parse(text: &str) -> Option<Position> {
        let (resume, ahead) = text.split_once('+').unwrap_or((text, "0"));
        let resume: u64 = resume.parse().ok()?;
        Some(Position { resume, written: resume.checked_add(ahead.parse().ok()?)? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.written.saturating_sub(self.resume) {
            0 => write!(f, "{}", self.resume),
            ahead => write!(f, "{}+{ahead}", self.resume),
        }
    }
}

/// A line of output, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) source: Source,
    /// Whether the next record of this source continues the line.
    pub(super) partial: bool,
    pub(super) text: &'a [u8],
    /// Where the output is with this record.
    pub(super) position: Position,
}

/// The writing end.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in the file, the first line with them.
    len: u64,
    /// The cursor behind the last record.
    cursor: u64,
    /// That of the last record.
    last: (Source, Position),
    /// Streams whose last record is partial.
    open: Vec<Source>,
    /// Wakes those who follow the log.
    signal: LogSignal,
}

impl LogWriter {
    /// Opens the log, or begins one. A last line that was torn by a power cut is cut off.
    pub(super) fn open(path: &Path) -> io::Result<LogWriter> {
        let newer = Part::read(path, 0)?;
        if let Some(newer) = &newer
            && let Some(last) = newer.last()
        {
            let (len, cursor) = (newer.header_len + newer.content.len() as u64, newer.end());
            let file = open_to_write(path)?;
            file.set_len(len)?;
            let (path, open) = (path.to_owned(), newer.open());
            let signal = LogSignal::default();
            return Ok(LogWriter { path, file, len, cursor, last, open, signal });
        }
        // Not a line, or nothing that is a log: it begins again behind the older file.
        let older = Part::read(&older(path), 0)?;
        let cursor = newer.iter().chain(&older).map(Part::end).max().unwrap_or(0);
        let last = older.as_ref().and_then(Part::last);
        let open = older.as_ref().map(Part::open).unwrap_or_default();
        absent_is_fine(std::fs::remove_file(path))?;
        let (file, len) = LogWriter::begin(path, cursor)?;
        let last = last.unwrap_or((Source::Hearth, Position::at(0)));
        let (path, signal) = (path.to_owned(), LogSignal::default());
        Ok(LogWriter { path, file, len, cursor, last, open, signal })
    }

    /// From now on each record is signalled.
    pub(super) fn signal(&mut self, signal: LogSignal) {
        self.signal = signal;
    }

    /// Begins the newer file; what is there becomes the older one. Returns the file and its length.
    /// After a failure it can be tried again, whatever was done: the current writer continues
    /// with its own file until then.
    fn begin(path: &Path, cursor: u64) -> io::Result<(File, u64)> {
        let next = next(path);
        let header = format!("base {cursor}\n");
        let file = create_file(&next)?;
        file.write_all_at(header.as_bytes(), 0)?;
        absent_is_fine(std::fs::rename(path, older(path)))?;
        std::fs::rename(&next, path)?;
        Ok((file, header.len() as u64))
    }

    /// The guest's offset before which all output is in the log.
    pub(super) fn offset(&self) -> u64 {
        self.last.1.resume
    }

    /// The guest's offset before which all output of `source` is in the log.
    pub(super) fn written(&self, source: Source) -> u64 {
        let (last, position) = self.last;
        if last == source { position.written } else { position.resume }
    }

    /// Whether the next record of `source` continues a line.
    pub(super) fn is_open(&self, source: Source) -> bool {
        self.open.contains(&source)
    }

    /// Appends a whole line, `offset` being the guest's offset before which all output is in the log.
    pub(super) fn line(&mut self, source: Source, offset: u64, text: &[u8]) -> io::Result<()> {
        self.append(Record { source, partial: false, text, position: Position::at(offset) })
    }

    /// Appends a record. One that failed can be tried again.
    pub(super) fn append(&mut self, record: Record<'_>) -> io::Result<()> {
        let Record { source, partial, text, position } = record;
        let text = String::from_utf8_lossy(text).replace('\n', " ");
        let mark = if partial { PARTIAL } else { "" };
        let line = format!("{} {}{mark} {position} {text}\n", now(), source.name());
        if self.len + line.len() as u64 > FILE_BYTES_MAX {
            (self.file, self.len) = LogWriter::begin(&self.path, self.cursor)?;
        }
        // Behind the last whole record, so over what a write that failed has left of its own.
        self.file.write_all_at(line.as_bytes(), self.len)?;
        self.len += line.len() as u64;
        self.cursor += line.len() as u64;
        self.last = (source, position);
        self.open.retain(|open| *open != source);
        self.open.extend(partial.then_some(source));
        self.signal.appended();
        Ok(())
    }
}

/// Reads lines. An absent log has none. At the end no more than a first line is read.
pub(super) fn read(path: &Path, query: LogQuery) -> Result<LogPage, HostError> {
    let part =
        |path: &Path| Part::read(path, query.after).map_err(errors::file("read the log", path));
    // The newer file first: where a rotation comes between, its lines are read twice, and not never.
    let newer = part(path)?;
    let older = match &newer {
        Some(newer) if newer.base <= query.after => None,
        _ => part(&older(path))?,
    };
    let mut page = LogPage { lines: Vec::new(), next: query.after };
    for part in older.iter().chain(&newer) {
        page.lines.extend(part.records(page.next).map(|(line, ..)| line));
        page.next = page.lines.last().map_or(query.after, |line| line.cursor);
    }
    if let Some(tail) = query.tail {
        page.keep_last(tail);
    }
    Ok(page)
}

/// Removes the log. Succeeds where there is none.
pub(super) fn remove(layout: &Layout, id: &InstanceId) -> Result<(), HostError> {
    let path = layout.log(id);
    for path in [next(&path), older(&path), path] {
        absent_is_fine(std::fs::remove_file(&path)).map_err(errors::file("remove", &path))?;
    }
    Ok(())
}

fn older(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

/// The file that a rotation makes. What a daemon that was killed left there is written over.
fn next(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// One file: its base and its whole lines.
struct Part {
    header_len: u64,
    base: u64,
    content: Vec<u8>,
}

impl Part {
    /// Reads a file, without its lines where all of them come before the cursor `after`. `None`
    /// where there is none, or it is no log.
    fn read(path: &Path, after: u64) -> io::Result<Option<Part>> {
        let mut file = match open_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut header = Vec::new();
        file.by_ref().take(HEADER_BYTES_MAX).read_to_end(&mut header)?;
        let Some((header_len, base)) = parse_header(&header) else { return Ok(None) };
        let mut content = Vec::new();
        if base + file.metadata()?.len().saturating_sub(header_len) > after {
            file.seek(SeekFrom::Start(header_len))?;
            file.read_to_end(&mut content)?;
            content.truncate(whole_len(&content));
        }
        Ok(Some(Part { header_len, base, content }))
    }

    /// The cursor behind the last line that was read.
    fn end(&self) -> u64 {
        self.base + self.content.len() as u64
    }

    /// Each record behind the cursor `after`.
    fn records(&self, after: u64) -> impl Iterator<Item = (LogLine, Source, Position)> {
        let before = after.saturating_sub(self.base).min(self.content.len() as u64);
        let (before, rest) = self.content.split_at(whole_len(&self.content[..before as usize]));
        let mut cursor = self.base + before.len() as u64;
        rest.split_inclusive(|&byte| byte == b'\n').filter_map(move |line| {
            cursor += line.len() as u64;
            // Lines are written as UTF-8, so this changes nothing but a damaged file.
            let line = String::from_utf8_lossy(line);
            let mut parts = line.trim_end_matches('\n').splitn(4, ' ');
            let at = parts.next()?.to_owned();
            let stream = parts.next()?;
            let whole = stream.strip_suffix(PARTIAL);
            let source = Source::parse(whole.unwrap_or(stream))?;
            let position = Position::parse(parts.next()?)?;
            let text = parts.next()?.to_owned();
            let (stream, partial) = (source.name(), whole.is_some());
            Some((LogLine { at, stream, text, partial, cursor }, source, position))
        })
    }

    /// That of the last record.
    fn last(&self) -> Option<(Source, Position)> {
        self.records(0).last().map(|(_, source, position)| (source, position))
    }

    /// Streams whose last record is partial. One without a record in this file counts as ended.
    fn open(&self) -> Vec<Source> {
        let mut open = Vec::new();
        for (line, source, _) in self.records(0) {
            open.retain(|open| *open != source);
            open.extend(line.partial.then_some(source));
        }
        open
    }
}

/// The length and the base that a file's first line says.
fn parse_header(bytes: &[u8]) -> Option<(u64, u64)> {
    let len = bytes.iter().position(|&byte| byte == b'\n')? + 1;
    let header = std::str::from_utf8(&bytes[..len]).ok()?;
    Some((len as u64, header.strip_prefix("base ")?.trim_end().parse().ok()?))
}

/// The length of the whole lines at the beginning.
fn whole_len(content: &[u8]) -> usize {
    content.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_changes::LogChanges;
    use std::fs::OpenOptions;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread::JoinHandle;

    fn log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        (dir, path)
    }

    fn texts(page: &LogPage) -> Vec<&str> {
        page.lines.iter().map(|line| line.text.as_str()).collect()
    }

    /// Length of a numbered line, in bytes: nearly the longest that a format fills, so that a
    /// rotation comes every few.
    const NUMBERED_BYTES: usize = 60_000;

    /// Writes a line that says its number, which is the guest's offset too.
    fn write(writer: &mut LogWriter, number: u64) -> io::Result<()> {
        writer.line(Source::Stdout, number, format!("{number:0>NUMBERED_BYTES$}").as_bytes())
    }

    /// A log of numbered lines that was rotated just now, and how many they are.
    fn rotated(path: &Path) -> (LogWriter, u64) {
        let mut writer = LogWriter::open(path).unwrap();
        for number in 1.. {
            write(&mut writer, number).unwrap();
            if older(path).exists() {
                return (writer, number);
            }
        }
        unreachable!();
    }

    fn numbers(page: &LogPage) -> Vec<u64> {
        page.lines.iter().map(|line| line.text.parse().unwrap()).collect()
    }

    fn numbers_after(path: &Path, after: u64) -> Vec<u64> {
        numbers(&read(path, LogQuery { after, tail: None }).unwrap())
    }

    #[test]
    fn followers_are_woken_by_each_record_over_a_rotation() {
        let (_dir, path) = log();
        let (changes, instance) = (LogChanges::default(), InstanceId::parse("a1").unwrap());
        let mut writer = LogWriter::open(&path).unwrap();
        writer.signal(LogSignal::of(&changes, &instance));
        let (mut follower, mut read) = (changes.subscribe(&instance), 0);
        for number in 1.. {
            write(&mut writer, number).unwrap();
            assert!(follower.has_changed().unwrap(), "{number}");
            follower.mark_unchanged();
            let page = super::read(&path, LogQuery { after: read, tail: None }).unwrap();
            assert_eq!(numbers(&page), [number]);
            read = page.next;
            if older(&path).exists() && number > 30 {
                break;
            }
        }
        assert!(!follower.has_changed().unwrap());
    }

    #[test]
    fn lines_come_back_with_their_streams_and_a_cursor() {
        let (_dir, path) = log();
        let mut writer = LogWriter::open(&path).unwrap();
        writer.line(Source::Stdout, 4, b" one  two\r").unwrap();
        writer.line(Source::Stderr, 8, b"").unwrap();
        let page = read(&path, LogQuery::default()).unwrap();
        assert_eq!(texts(&page), [" one  two\r", ""]);
        assert_eq!(page.lines[1].stream, "stderr");
        writer.line(Source::Hearth, 8, b"three").unwrap();
        let more = read(&path, LogQuery { after: page.next, tail: None }).unwrap();
        assert_eq!(texts(&more), ["three"]);
        let none = read(&path, LogQuery { after: more.next, tail: None }).unwrap();
        assert_eq!((none.lines.len(), none.next), (0, more.next));
        let within = read(&path, LogQuery { after: more.next - 1, tail: None }).unwrap();
        assert_eq!(within, more);
        let last = read(&path, LogQuery { after: 0, tail: Some(2) }).unwrap();
        assert_eq!(texts(&last), ["", "three"]);
    }

    #[test]
    fn log_is_bounded_and_cursors_survive_rotations() {
        let (dir, path) = log();
        let mut writer = LogWriter::open(&path).unwrap();
        let text = [b'x'; NUMBERED_BYTES];
        let mut after = 0;
        for at in 1..200_u64 {
            writer.line(Source::Stdout, at, &text).unwrap();
            let page = read(&path, LogQuery { after, tail: None }).unwrap();
            assert_eq!(page.lines.len(), 1, "line {at}");
            after = page.next;
        }
        let files = std::fs::read_dir(dir.path()).unwrap();
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 2 * FILE_BYTES_MAX, "{bytes}");
        drop(writer);
        assert_eq!(LogWriter::open(&path).unwrap().offset(), 199);
    }

    #[test]
    fn torn_line_is_cut_off_and_guest_offset_resumes_before_it() {
        let (_dir, path) = log();
        let mut writer = LogWriter::open(&path).unwrap();
        writer.line(Source::Stdout, 4, b"one").unwrap();
        writer.line(Source::Stdout, 8, b"two").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 2]).unwrap();
        let mut writer = LogWriter::open(&path).unwrap();
        assert_eq!(writer.offset(), 4);
        writer.line(Source::Stdout, 8, b"two").unwrap();
        assert_eq!(texts(&read(&path, LogQuery::default()).unwrap()), ["one", "two"]);
    }

    #[test]
    fn a_damaged_line_keeps_its_length_and_the_next_one_is_whole() {
        let (_dir, path) = log();
        let mut writer = LogWriter::open(&path).unwrap();
        writer.line(Source::Stdout, 4, b"one").unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len() - 1;
        bytes[end - 3..end].fill(0xff);
        std::fs::write(&path, &bytes).unwrap();
        let mut writer = LogWriter::open(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        writer.line(Source::Stdout, 8, b"two").unwrap();
        let page = read(&path, LogQuery::default()).unwrap();
        assert_eq!(texts(&page), ["\u{fffd}\u{fffd}\u{fffd}", "two"]);
        let after = LogQuery { after: page.lines[0].cursor, tail: None };
        assert_eq!(texts(&read(&path, after).unwrap()), ["two"]);
    }

    #[test]
    fn an_absent_log_has_no_lines() {
        let (_dir, path) = log();
        assert_eq!(read(&path, LogQuery::default()).unwrap(), LogPage::default());
    }

    #[test]
    fn a_file_with_a_base_beyond_all_cursors_is_no_log() {
        let (_dir, path) = log();
        std::fs::write(&path, format!("base {}\nnow stdout 4 one\n", u64::MAX)).unwrap();
        assert_eq!(read(&path, LogQuery::default()).unwrap(), LogPage::default());
        let mut writer = LogWriter::open(&path).unwrap();
        assert_eq!(writer.offset(), 0);
        writer.line(Source::Stdout, 4, b"two").unwrap();
        assert_eq!(texts(&read(&path, LogQuery::default()).unwrap()), ["two"]);
        assert!(!older(&path).exists());
    }

    #[test]
    fn a_rotation_that_failed_is_done_later_and_loses_nothing() {
        let directory = |at: &Path| std::fs::create_dir(at);
        let full_disk = |at: &Path| std::os::unix::fs::symlink("/dev/full", at);
        for block in [directory as fn(&Path) -> io::Result<()>, full_disk] {
            let (_dir, path) = log();
            let (mut writer, mut number) = rotated(&path);
            block(&next(&path)).unwrap();
            while write(&mut writer, number + 1).is_ok() {
                number += 1;
                assert!(number < 100, "it is rotated in spite of the block");
            }
            for _ in 0..3 {
                write(&mut writer, number + 1).unwrap_err();
            }
            let page = read(&path, LogQuery::default()).unwrap();
            assert_eq!(numbers(&page), Vec::from_iter(1..=number), "both files are as they were");
            absent_is_fine(std::fs::remove_file(next(&path)))
                .or_else(|_| std::fs::remove_dir(next(&path)))
                .unwrap();
            for more in 1..=3 {
                write(&mut writer, number + more).unwrap();
            }
            assert_eq!(numbers_after(&path, page.next), Vec::from_iter(number + 1..=number + 3));
        }
    }

    #[test]
    fn rotation_interrupted_after_its_first_rename_is_completed() {
        let (_dir, path) = log();
        let (mut writer, number) = rotated(&path);
        let page = read(&path, LogQuery::default()).unwrap();
        std::fs::rename(&path, older(&path)).unwrap();
        for more in 1..=100 {
            write(&mut writer, number + more).unwrap();
        }
        let seen = numbers_after(&path, page.next);
        assert_eq!(seen, Vec::from_iter(seen[0]..=number + 100));
        assert!(seen.len() >= FILE_BYTES_MAX as usize / NUMBERED_BYTES, "{seen:?}");
    }

    #[test]
    fn a_kill_in_the_middle_of_a_rotation_loses_nothing() {
        for steps in 1..=3 {
            let (_dir, path) = log();
            let (writer, number) = rotated(&path);
            let kept = if steps == 1 { 1 } else { number };
            let page = read(&path, LogQuery::default()).unwrap();
            drop(writer);
            std::fs::write(next(&path), format!("base {}\n", page.next)).unwrap();
            if steps > 1 {
                std::fs::rename(&path, older(&path)).unwrap();
            }
            if steps > 2 {
                std::fs::rename(next(&path), &path).unwrap();
            }
            assert_eq!(numbers_after(&path, 0), Vec::from_iter(kept..=number), "step {steps}");
            let mut writer = LogWriter::open(&path).unwrap();
            assert_eq!(writer.offset(), number, "step {steps}");
            for more in 1..=3 {
                write(&mut writer, number + more).unwrap();
            }
            assert_eq!(numbers_after(&path, 0), Vec::from_iter(kept..=number + 3), "step {steps}");
            let after = numbers_after(&path, page.next);
            assert_eq!(after, Vec::from_iter(number + 1..=number + 3), "step {steps}");
        }
    }

    #[test]
    fn a_line_comes_whole_after_one_that_a_full_disk_tore() {
        use std::io::Write;
        let (_dir, path) = log();
        let mut writer = LogWriter::open(&path).unwrap();
        writer.line(Source::Stdout, 4, b"one").unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"2026-11-23T11:00:00.000Z stdout 100 a long line of which only").unwrap();
        writer.line(Source::Stdout, 8, b"two").unwrap();
        writer.line(Source::Stdout, 14, b"three").unwrap();
        let page = read(&path, LogQuery::default()).unwrap();
        assert_eq!(texts(&page), ["one", "two", "three"]);
        let more = read(&path, LogQuery { after: page.lines[0].cursor, tail: None }).unwrap();
        assert_eq!(texts(&more), ["two", "three"]);
        assert_eq!(LogWriter::open(&path).unwrap().offset(), 14);
    }

    /// Begins to write numbered lines, never more than `ahead` beyond the number that is seen. Ends
    /// when the reader is gone.
    fn write_ahead(path: &Path, seen: &Arc<AtomicU64>, ahead: u64) -> JoinHandle<Option<()>> {
        let mut writer = LogWriter::open(path).unwrap();
        let seen = Arc::downgrade(seen);
        std::thread::spawn(move || {
            for number in 1_u64.. {
                while number > seen.upgrade()?.load(Ordering::Relaxed) + ahead {
                    std::thread::yield_now();
                }
                write(&mut writer, number).ok()?;
            }
            Some(())
        })
    }

    #[test]
    fn page_read_during_rotation_has_each_line_once() {
        let (_dir, path) = log();
        let seen = Arc::new(AtomicU64::new(0));
        let writing = write_ahead(&path, &seen, 2_000);
        let mut last = 0;
        while last < 2_000 {
            let page = numbers_after(&path, 0);
            let first = page.first().copied().unwrap_or(1);
            assert_eq!(page, Vec::from_iter(first..first + page.len() as u64));
            last = first + page.len() as u64 - 1;
            assert!(!writing.is_finished());
        }
        drop(seen);
        writing.join().unwrap();
    }

    #[test]
    fn a_follower_gets_each_line_once_while_files_are_rotated() {
        let (_dir, path) = log();
        let seen = Arc::new(AtomicU64::new(0));
        // Half a file, so that what the follower has not seen is never dropped.
        let writing = write_ahead(&path, &seen, FILE_BYTES_MAX / NUMBERED_BYTES as u64 / 2);
        let (mut last, mut after) = (0, 0);
        while last < 1_000 {
            let page = read(&path, LogQuery { after, tail: None }).unwrap();
            let expected = Vec::from_iter(last + 1..=last + page.lines.len() as u64);
            assert_eq!(numbers(&page), expected);
            (last, after) = (last + page.lines.len() as u64, page.next);
            seen.store(last, Ordering::Relaxed);
            assert!(!writing.is_finished());
        }
        drop(seen);
        writing.join().unwrap();
    }

    #[test]
    fn a_reader_at_the_end_reads_no_lines_and_never_the_older_file() {
        let (_dir, path) = log();
        let (mut writer, number) = rotated(&path);
        let page = read(&path, LogQuery::default()).unwrap();
        assert_eq!(Part::read(&path, page.next).unwrap().unwrap().content, b"");
        assert_ne!(Part::read(&path, page.next - 1).unwrap().unwrap().content, b"");
        // This can't be read as a file.
        std::fs::remove_file(older(&path)).unwrap();
        std::fs::create_dir(older(&path)).unwrap();
        read(&path, LogQuery::default()).unwrap_err();
        assert!(numbers_after(&path, page.next).is_empty());
        assert!(numbers_after(&path, u64::MAX).is_empty());
        write(&mut writer, number + 1).unwrap();
        assert_eq!(numbers_after(&path, page.next), [number + 1]);
    }

    #[test]
    fn all_files_of_a_log_are_found_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path(), Some(&dir.path().join("run"))).unwrap();
        let id = InstanceId::parse("a1b2c3d4e5").unwrap();
        let path = layout.log(&id);
        drop(rotated(&path));
        std::fs::write(next(&path), "base 0\n").unwrap();
        let found = || {
            let mut found = crate::linux::survey(dir.path()).unwrap();
            found.retain(|found| found.what == crate::linux::What::Log(id.clone()));
            found.into_iter().map(|found| found.path).collect::<Vec<_>>()
        };
        assert_eq!(found(), [path.clone(), older(&path), next(&path)]);
        remove(&layout, &id).unwrap();
        assert!(std::fs::read_dir(path.parent().unwrap()).unwrap().next().is_none());
        remove(&layout, &id).unwrap();
    }
}
