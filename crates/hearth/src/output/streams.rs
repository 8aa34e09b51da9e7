//! stdout and stderr, and the one place that decides what a failed write means.
//!
//! | purpose | a closed pipe | any other failure |
//! | --- | --- | --- |
//! | [`Daemon`](Purpose::Daemon) | the line is lost | the line is lost |
//! | [`Result`](Purpose::Result) | the rest is not written, the exit code stays | an error |
//! | [`Follow`](Purpose::Follow) | the command ends with 0 | the command ends with an error |
//!
//! A descriptor that was closed when the program started is `/dev/null`: Rust's runtime opens it, so
//! that no file gets the number of a standard stream.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::cell::Cell;
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use tokio::sync::oneshot;

/// What the output of a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It describes the work, which continues without it.
    Daemon,
    /// It is the result, beside the exit code.
    Result,
    /// It is all that the command does.
    Follow,
}

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Output that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {stream}")]
pub(super) struct Lost {
    stream: &'static str,
    source: io::Error,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Its reader is gone.
    Closed,
    Failed,
}

/// The streams of a command. Bytes go to the kernel at once: nothing is left to be written, and so to be
/// lost, when the program ends.
#[derive(Debug)]
pub(super) struct Streams {
    purpose: Purpose,
    stdout: Cell<State>,
    stderr: Cell<State>,
}

impl Streams {
    pub(super) fn new(purpose: Purpose) -> Streams {
        Streams { purpose, stdout: Cell::new(State::Open), stderr: Cell::new(State::Open) }
    }

    /// Writes a part of the output. After a write that failed nothing more is written to the stream.
    ///
    /// # Errors
    /// Where it is lost and the purpose makes that an error, once for each stream.
    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) -> Result<(), Lost> {
        let state = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        if self.purpose == Purpose::Daemon {
            // The next line may be written again.
            let _ = write_now(stream, bytes);
            return Ok(());
        }
        if state.get() != State::Open {
            return Ok(());
        }
        let Err(errno) = write_all(stream, bytes) else { return Ok(()) };
        if errno == Errno::PIPE {
            state.set(State::Closed);
            return Ok(());
        }
        state.set(State::Failed);
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        Err(Lost { stream, source: errno.into() })
    }

    /// Writes a remark to stderr. One that can't be written is not missed.
    pub(super) fn remark(&self, bytes: &[u8]) {
        let _ = match self.purpose {
            Purpose::Daemon => write_now(Stream::Stderr, bytes),
            Purpose::Result | Purpose::Follow => write_all(Stream::Stderr, bytes),
        };
    }

    /// Whether no output was lost but by a reader that is gone.
    pub(super) fn is_whole(&self) -> bool {
        self.stdout.get() != State::Failed && self.stderr.get() != State::Failed
    }

    /// Whether more output would be lost.
    pub(super) fn is_over(&self) -> bool {
        self.stdout.get() != State::Open || self.stderr.get() == State::Failed
    }

    /// Waits until the reader of stdout is gone, where stdout is a pipe, a socket or a terminal; for ever
    /// where that can't be seen.
    ///
    /// Cancel safe. Each call takes a thread, which ends with the program.
    pub(super) async fn reader_gone(&self) {
        let (sender, gone) = oneshot::channel();
        let watch = || {
            let ended = with(Stream::Stdout, |stdout| {
                // Nothing is waited for but what always comes: an error, or the other side's end.
                let mut polled = [PollFd::from_borrowed_fd(stdout, PollFlags::empty())];
                while poll(&mut polled, None) == Err(Errno::INTR) {}
                polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
            });
            if ended {
                // The command may be ending.
                let _ = sender.send(());
            }
        };
        let started = thread::Builder::new().name("hearth-stdout".to_owned()).spawn(watch);
        if started.is_err() || gone.await.is_err() {
            pending().await
        }
    }
}

/// Calls a function with the descriptor of a stream.
fn with<T>(stream: Stream, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    match stream {
        Stream::Stdout => call(io::stdout().as_fd()),
        Stream::Stderr => call(io::stderr().as_fd()),
    }
}

fn write_all(stream: Stream, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match with(stream, |fd| rustix::io::write(fd, bytes)) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Another program that has the same terminal or pipe has made it non-blocking.
            Err(Errno::AGAIN) => wait(stream, None).map(drop)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes a line if it can be written without waiting: there may be no reader.
fn write_now(stream: Stream, bytes: &[u8]) -> Result<(), Errno> {
    // A pipe is ready if it has room for a page; the daemon's lines are shorter.
    match wait(stream, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        true => with(stream, |fd| rustix::io::write(fd, bytes)).map(drop),
        false => Err(Errno::AGAIN),
    }
}

/// Waits until a stream takes bytes or fails, and says whether it does one of the two.
fn wait(stream: Stream, longest: Option<&Timespec>) -> Result<bool, Errno> {
    with(stream, |fd| {
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
        match poll(&mut polled, longest) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(longest.is_none()),
            Err(errno) => Err(errno),
        }
    })
}
