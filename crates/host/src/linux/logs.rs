//! The log of an instance: two files of at most 1 MiB, the older one named with `.1` behind.
//!
//! ```text
//!   base 0
//!   2026-11-23T11:00:00.000Z stdout 12 Hello World
//!   ^ when it came           ^      ^ the guest's offset behind it
//! ```
//!
//! The first line says the cursor of the byte behind it, so that cursors go on over rotations. The
//! guest's offset in each line is where a reader of the guest goes on after a restart of the
//! daemon; it is durable exactly as far as the output is. Written to the page cache, never synced:
//! a kill of the daemon loses nothing, a power cut loses the end.

use super::errors;
use super::layout::{Layout, absent_is_fine};
use crate::{HostError, LogLine, LogPage, LogQuery};
use hearth_model::InstanceId;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Size at which a file is rotated, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest text of one line, in bytes; what is longer is cut into several.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

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

/// The writing end.
#[derive(Debug)]
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
    /// Bytes of content in the file.
    len: u64,
    /// The guest's offset behind the last line.
    offset: u64,
}

impl LogWriter {
    /// Opens the log, or begins one. A last line that was torn by a power cut is cut off.
    pub(super) fn open(path: &Path) -> io::Result<LogWriter> {
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let bytes = std::fs::read(path)?;
        let Some(parsed) = Parsed::of(&bytes) else {
            // Nothing, or nothing that is a log: the content begins behind the older file.
            file.set_len(0)?;
            let older = std::fs::read(older(path)).unwrap_or_default();
            let older = Parsed::of(&older);
            let base = older.as_ref().map_or(0, |older| older.base + older.content.len() as u64);
            let offset = older.as_ref().map_or(0, Parsed::offset);
            writeln!(file, "base {base}")?;
            return Ok(LogWriter { path: path.to_owned(), file, len: 0, offset });
        };
        let (len, offset) = (parsed.content.len() as u64, parsed.offset());
        file.set_len(parsed.header_len as u64 + len)?;
        Ok(LogWriter { path: path.to_owned(), file, len, offset })
    }

    /// The guest's offset behind the last line.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends a line, `offset` being the guest's offset behind it.
    pub(super) fn line(&mut self, source: Source, offset: u64, text: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(text);
        let text = text.strip_suffix('\r').unwrap_or(&text).replace('\n', " ");
        let line = format!("{} {} {offset} {text}\n", now(), source.name());
        if self.len + line.len() as u64 > FILE_BYTES_MAX {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.len += line.len() as u64;
        self.offset = offset;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, older(&self.path))?;
        *self = LogWriter::open(&self.path)?;
        Ok(())
    }
}

/// Reads lines. An absent log has none.
pub(super) fn read(path: &Path, query: LogQuery) -> Result<LogPage, HostError> {
    let mut page = LogPage { lines: Vec::new(), next: query.after };
    for path in [older(path), path.to_owned()] {
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.map_err(errors::file("read the log", &path))?,
        };
        let Some(parsed) = Parsed::of(&bytes) else { continue };
        for (cursor, line, _) in parsed.lines() {
            if cursor > query.after {
                page.lines.push(line);
                page.next = page.next.max(cursor);
            }
        }
    }
    if let Some(tail) = query.tail {
        page.lines.drain(..page.lines.len().saturating_sub(tail));
    }
    Ok(page)
}

/// Removes the log. Succeeds where there is none.
pub(super) fn remove(layout: &Layout, id: &InstanceId) -> Result<(), HostError> {
    let path = layout.log(id);
    for path in [older(&path), path] {
        absent_is_fine(std::fs::remove_file(&path)).map_err(errors::file("remove", &path))?;
    }
    Ok(())
}

fn older(path: &Path) -> PathBuf {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    PathBuf::from(older)
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// One file: its base and its whole lines.
struct Parsed<'a> {
    header_len: usize,
    base: u64,
    content: &'a [u8],
}

impl<'a> Parsed<'a> {
    fn of(bytes: &'a [u8]) -> Option<Parsed<'a>> {
        let whole = bytes.iter().rposition(|&byte| byte == b'\n')? + 1;
        let header_len = bytes.iter().position(|&byte| byte == b'\n')? + 1;
        let header = std::str::from_utf8(&bytes[..header_len]).ok()?;
        let base = header.strip_prefix("base ")?.trim_end().parse().ok()?;
        Some(Parsed { header_len, base, content: &bytes[header_len..whole] })
    }

    /// Each line with the cursor and the guest's offset behind it.
    fn lines(&self) -> impl Iterator<Item = (u64, LogLine, u64)> {
        let mut cursor = self.base;
        self.content.split_inclusive(|&byte| byte == b'\n').filter_map(move |line| {
            cursor += line.len() as u64;
            // Lines are written as UTF-8, so this changes nothing but a damaged file.
            let line = String::from_utf8_lossy(line);
            let mut parts = line.trim_end_matches('\n').splitn(4, ' ');
            let at = parts.next()?.to_owned();
            let stream = Source::parse(parts.next()?)?.name();
            let offset = parts.next()?.parse().ok()?;
            let text = parts.next()?.to_owned();
            Some((cursor, LogLine { at, stream, text, cursor }, offset))
        })
    }

    fn offset(&self) -> u64 {
        self.lines().last().map_or(0, |(_, _, offset)| offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        (dir, path)
    }

    fn texts(page: &LogPage) -> Vec<&str> {
        page.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_come_back_with_their_streams_and_a_cursor() {
        let (_dir, path) = log();
        let mut writer = LogWriter::open(&path).unwrap();
        writer.line(Source::Stdout, 4, b"one  two\r").unwrap();
        writer.line(Source::Stderr, 8, b"").unwrap();
        let page = read(&path, LogQuery::default()).unwrap();
        assert_eq!(texts(&page), ["one  two", ""]);
        assert_eq!(page.lines[1].stream, "stderr");
        writer.line(Source::Hearth, 8, b"three").unwrap();
        let more = read(&path, LogQuery { after: page.next, tail: None }).unwrap();
        assert_eq!(texts(&more), ["three"]);
        let none = read(&path, LogQuery { after: more.next, tail: None }).unwrap();
        assert_eq!((none.lines.len(), none.next), (0, more.next));
        let last = read(&path, LogQuery { after: 0, tail: Some(2) }).unwrap();
        assert_eq!(texts(&last), ["", "three"]);
    }

    #[test]
    fn a_log_is_bounded_and_cursors_go_on_over_rotations() {
        let (dir, path) = log();
        let mut writer = LogWriter::open(&path).unwrap();
        let text = [b'x'; LINE_BYTES_MAX];
        let mut after = 0;
        for at in 1..200_u64 {
            writer.line(Source::Stdout, at, &text).unwrap();
            let page = read(&path, LogQuery { after, tail: None }).unwrap();
            assert_eq!(page.lines.len(), 1, "line {at}");
            after = page.next;
        }
        let files = std::fs::read_dir(dir.path()).unwrap();
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 2 * (FILE_BYTES_MAX + 64), "{bytes}");
        drop(writer);
        assert_eq!(LogWriter::open(&path).unwrap().offset(), 199);
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_guests_offset_goes_on_before_it() {
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
}
