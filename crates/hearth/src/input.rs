//! What a user names to be read: a file, stdin, or the pipe of a shell's `<(…)`. Nothing else is
//! opened for long, and nothing waits for a writer that may never come.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a FIFO may be without a writer: a shell that starts both sides needs far less.
const WRITER_WAIT: Duration = Duration::from_secs(2);

/// Names of stdin. A terminal is read by these alone.
const STDIN: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// Why there are no bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is {0}, not a file")]
    Special(&'static str),
    #[error("no process writes to this FIFO")]
    NoWriter,
    #[error("it has more than {}", bytes(*.0))]
    TooLarge(u64),
}

/// Whether a path stands for stdin.
pub(crate) fn is_stdin(path: &Path) -> bool {
    STDIN.iter().any(|name| path.as_os_str() == *name)
}

/// Whether a path stands for what comes once, so that it is no name for it: stdin or a pipe.
pub(crate) fn is_stream(path: &Path) -> bool {
    is_stdin(path) || path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Reads a file of at most `bytes_max` whole, or stdin, or a pipe to its end.
///
/// # Errors
/// Where it is something else, can't be read or is too large.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, InputError> {
    let mut bytes = Vec::new();
    if is_stdin(path) {
        io::stdin().take(bytes_max + 1).read_to_end(&mut bytes)?;
    } else {
        // Without O_NONBLOCK opening a FIFO waits for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file =
            File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?);
        let metadata = file.metadata()?;
        if metadata.file_type().is_fifo() {
            read_pipe(&file, bytes_max, &mut bytes)?;
        } else {
            refuse_special(&metadata)?;
            file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        }
    }
    if bytes.len() as u64 > bytes_max {
        return Err(InputError::TooLarge(bytes_max));
    }
    Ok(bytes)
}

/// Checks what something else will read.
///
/// # Errors
/// Where it is not a file.
pub(crate) fn check(path: &Path) -> Result<(), InputError> {
    let metadata = path.metadata()?;
    match metadata.file_type().is_fifo() {
        true => Err(InputError::Special("a FIFO")),
        false => refuse_special(&metadata),
    }
}

fn refuse_special(metadata: &Metadata) -> Result<(), InputError> {
    let kind = metadata.file_type();
    // Stands for an empty file, in HEARTH_CONFIG for one.
    let null = rustix::fs::makedev(1, 3);
    if kind.is_file() || (kind.is_char_device() && metadata.rdev() == null) {
        return Ok(());
    }
    Err(InputError::Special(match FileType::from_raw_mode(metadata.mode()) {
        FileType::Directory => "a directory",
        FileType::Socket => "a socket",
        _ => "a device",
    }))
}

fn bytes(count: u64) -> String {
    format!("{} MiB", count / 1024 / 1024)
}

/// Reads the end of a FIFO or a pipe that was opened without waiting. What has a writer is read for as
/// long as that takes.
fn read_pipe(pipe: &File, bytes_max: u64, bytes: &mut Vec<u8>) -> Result<(), InputError> {
    let begin = Instant::now();
    let mut buffer = vec![0; 64 * 1024];
    let mut has_writer = false;
    while bytes.len() as u64 <= bytes_max {
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) if has_writer => return Ok(()),
            Ok(0) => {
                // No writer yet, or one that is gone already.
                let left = WRITER_WAIT.saturating_sub(begin.elapsed());
                has_writer = wait(pipe, Some(left))?.contains(PollFlags::HUP);
                if left.is_zero() && !has_writer {
                    return Err(InputError::NoWriter);
                }
            }
            Ok(count) => {
                has_writer = true;
                bytes.extend_from_slice(&buffer[..count]);
            }
            Err(Errno::AGAIN) => {
                has_writer = true;
                wait(pipe, None)?;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    Ok(())
}

/// Waits for bytes or the last writer's end, and says which it was.
fn wait(pipe: &File, longest: Option<Duration>) -> io::Result<PollFlags> {
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    let longest = longest.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    match poll(&mut polled, longest.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(polled[0].revents()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{InputError, read};
    use std::io::Write;
    use std::path::Path;

    fn fifo(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a FIFO");
        path
    }

    #[test]
    fn fifo_without_writer_is_refused_in_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let refused = read(&fifo(dir.path()), 10);
        assert!(matches!(refused, Err(InputError::NoWriter)), "{refused:?}");
    }

    #[test]
    fn slow_writer_of_a_fifo_is_read_to_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = fifo(dir.path());
        let written = path.clone();
        let writer = std::thread::spawn(move || {
            let mut file = std::fs::OpenOptions::new().write(true).open(written).expect("a reader");
            for _ in 0..3 {
                file.write_all(b"abc").expect("it is read");
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        assert_eq!(read(&path, 10).expect("bytes"), b"abcabcabc");
        writer.join().expect("it wrote");
    }

    #[test]
    fn special_files_are_refused_by_what_they_are() {
        for (path, message) in [
            ("/", "it is a directory, not a file"),
            ("/dev/zero", "it is a device, not a file"),
            ("/nonexistent", "No such file or directory (os error 2)"),
        ] {
            assert_eq!(read(Path::new(path), 10).expect_err(path).to_string(), message);
        }
        assert_eq!(read(Path::new("/dev/null"), 10).expect("nothing"), b"");
        let large = read(Path::new("/proc/self/maps"), 10).expect_err("too large");
        assert!(matches!(large, InputError::TooLarge(10)), "{large}");
    }
}
