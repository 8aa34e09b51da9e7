//! What a guest prints on its serial port, by way of a FIFO: the last 64 KiB of it.
//!
//! The FIFO is open for reading and writing at both ends, so it outlives the daemon, and what is
//! in it waits for the next one; while it is full Firecracker drops what comes. It never blocks
//! the guest and never writes to a disk.

use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Bytes of a console that are kept: some 800 lines.
pub const CONSOLE_BYTES_MAX: usize = 64 * 1024;

/// Bytes that one read takes at most; there are two buffers of this size for each microVM.
const READ_BYTES_MAX: usize = 8 * 1024;
const PANIC: &str = "Kernel panic - not syncing: ";

/// The reading end of a console or log FIFO, and the last of what came through it.
#[derive(Debug)]
pub struct Console {
    fifo: AsyncFd<File>,
    ring: VecDeque<u8>,
    chunk: Vec<u8>,
}

impl Console {
    /// Opens an existing FIFO. Needs a Tokio runtime.
    ///
    /// # Errors
    /// If it is absent or is not a FIFO.
    pub fn open(path: &Path) -> io::Result<Console> {
        Console::read_from(open_fifo(path)?)
    }

    pub(crate) fn read_from(fifo: File) -> io::Result<Console> {
        #[allow(unsafe_code)]
        // SAFETY: the file is owned, its `as_raw_fd` is always the same, and it stays open until
        // the `AsyncFd` has deregistered it.
        let fifo = unsafe { AsyncFd::register(fifo) }?;
        Ok(Console { fifo, ring: VecDeque::new(), chunk: vec![0; READ_BYTES_MAX] })
    }

    /// Waits until there is something and takes it into the ring; returns the bytes taken, at
    /// most 8 KiB. Cancel-safe.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn drain(&mut self) -> io::Result<usize> {
        loop {
            let mut ready = self.fifo.readable().await?;
            match ready.try_io(|fifo| fifo.get_ref().read(&mut self.chunk)) {
                Ok(count) => {
                    let count = count?;
                    keep(&mut self.ring, &self.chunk[..count]);
                    return Ok(count);
                }
                Err(_would_block) => {}
            }
        }
    }

    /// Takes what is there without waiting, at most the ring's size. For the final output of a
    /// process that has ended.
    pub fn drain_now(&mut self) {
        for _ in 0..=CONSOLE_BYTES_MAX / READ_BYTES_MAX {
            match self.fifo.get_ref().read(&mut self.chunk) {
                Ok(count) if count > 0 => keep(&mut self.ring, &self.chunk[..count]),
                _ => return,
            }
        }
    }

    /// The last bytes, at most `count` of them, as they came.
    #[must_use]
    pub fn recent(&self, count: usize) -> Vec<u8> {
        self.ring.range(self.ring.len().saturating_sub(count)..).copied().collect()
    }

    /// The last `lines` lines, oldest first, control characters escaped, empty lines left out.
    #[must_use]
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let text = self.text();
        let mut tail: Vec<String> =
            text.lines().rev().filter(|l| !l.trim().is_empty()).take(lines).map(escaped).collect();
        tail.reverse();
        tail
    }

    /// Why the guest's kernel panicked, if it did: what Linux prints after
    /// `Kernel panic - not syncing: `.
    #[must_use]
    pub fn panic(&self) -> Option<String> {
        let text = self.text();
        let start = text.find(PANIC)? + PANIC.len();
        text[start..].lines().next().map(escaped)
    }

    fn text(&self) -> String {
        let (front, back) = self.ring.as_slices();
        String::from_utf8_lossy(&[front, back].concat()).into_owned()
    }
}

/// The text with every control character shown as an escape, so that a guest's output can't
/// command a terminal. A trailing carriage return is dropped.
#[must_use]
pub fn escaped(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        // Bidirectional overrides reorder what is shown, so they are commands as well.
        let overrides = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        if (character.is_control() && character != '\t') || overrides {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Opens a FIFO so that neither end ever blocks or sees the other's end.
pub(crate) fn open_fifo(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != rustix::fs::FileType::Fifo {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a FIFO"));
    }
    Ok(file)
}

fn keep(ring: &mut VecDeque<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(CONSOLE_BYTES_MAX)..];
    let excess = (ring.len() + bytes.len()).saturating_sub(CONSOLE_BYTES_MAX);
    ring.drain(..excess);
    ring.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn fifo() -> (tempfile::TempDir, File, Console) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let writer = open_fifo(&path).unwrap();
        let console = Console::open(&path).unwrap();
        (dir, writer, console)
    }

    #[tokio::test]
    async fn the_tail_is_the_last_lines_with_control_characters_escaped() {
        let (_dir, mut writer, mut console) = fifo();
        writer.write_all(b"one\r\n\r\ntwo\x1b[2J\r\nthree \xff\r\nfour").unwrap();
        console.drain().await.unwrap();
        assert_eq!(console.tail(3), ["two\\u{1b}[2J", "three \u{fffd}", "four"]);
        assert_eq!(console.panic(), None);
    }

    #[tokio::test]
    async fn a_kernel_panic_is_found_with_its_reason() {
        let (_dir, mut writer, mut console) = fifo();
        let said =
            b"[1.0] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n[1.1] CPU: 0\r\n";
        for piece in said.chunks(7) {
            writer.write_all(piece).unwrap();
            console.drain().await.unwrap();
        }
        assert_eq!(console.panic().as_deref(), Some("VFS: Unable to mount root fs"));
    }

    #[tokio::test]
    async fn the_ring_keeps_the_end_of_a_flood() {
        let (_dir, mut writer, mut console) = fifo();
        for round in 0..5_u8 {
            writer.write_all(&vec![b'a' + round; 30_000]).unwrap();
            console.drain_now();
        }
        writer.write_all(b"\nlast").unwrap();
        console.drain_now();
        assert_eq!(console.ring.len(), CONSOLE_BYTES_MAX);
        assert_eq!(console.tail(1), ["last"]);
    }

    #[tokio::test]
    async fn a_regular_file_is_no_console() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        assert!(Console::open(&path).is_err());
    }
}
