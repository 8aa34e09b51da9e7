//! Starts a Firecracker in its working directory and waits until its API answers.
//!
//! Between fork and exec the child writes its pid to a file that its parent has opened: a daemon
//! that ends at any moment leaves no process that the next one can't find. Nothing ties the child
//! to the daemon: it has its own session, no descriptor of the daemon's and no signal's
//! disposition from it. It never watches the socket by inotify, which was measured to take
//! 11.8 ms a create where polling takes 0.5.

use crate::client::Client;
use crate::console::{Console, open_fifo};
use crate::directory::Directory;
use crate::process::{Process, ProcessExit};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The files of a Firecracker in its working directory.
pub mod names {
    /// The API's socket.
    pub const API_SOCKET: &str = "api.sock";
    /// Where the guest's serial port and Firecracker's own stdout and stderr go.
    pub const CONSOLE_FIFO: &str = "console.fifo";
    /// Where Firecracker's log goes.
    pub const LOG_FIFO: &str = "log.fifo";
    /// The pid, written before exec.
    pub const PID_FILE: &str = "pid";
    /// The host's end of the vsock.
    pub const VSOCK_SOCKET: &str = "vsock.sock";
}

/// How long a process may take to its API socket on a host with KVM of its own; 0.5 ms is usual.
const SOCKET_DEADLINE: Duration = Duration::from_secs(2);
/// First pause between two looks at the socket; it doubles up to [`POLL_MAX`].
const POLL_MIN: Duration = Duration::from_micros(50);
/// Longest pause between two looks at the socket.
const POLL_MAX: Duration = Duration::from_millis(1);
/// Lines of console and log that an error carries.
const SAID_LINES: usize = 5;

/// What to start.
#[derive(Debug)]
pub struct Spawn {
    /// The Firecracker binary.
    pub binary: PathBuf,
    /// The working directory of the process; exists and belongs to nothing else.
    pub directory: Arc<Directory>,
    /// `--id`: letters, digits and hyphens, 1 to 64 bytes.
    pub id: String,
    /// The cgroup v2 directory that the child enters before exec.
    pub cgroup: Option<PathBuf>,
    /// What every deadline is multiplied with; 1.0 where the VMM is not emulated.
    pub factor: f32,
}

/// A process whose API answers.
#[derive(Debug)]
pub struct Launched {
    /// The process.
    pub process: Process,
    /// Its API.
    pub client: Client,
    /// The guest's serial port.
    pub console: Console,
    /// Firecracker's log.
    pub log: Console,
}

/// Why no process came about. None is left behind.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Something it needs could not be made.
    #[error("cannot prepare {what} for Firecracker")]
    Prepare {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The binary could not be run.
    #[error("cannot start {}", binary.display())]
    Start {
        /// The binary.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended before its API answered.
    #[error("{exit} before its API answered: {}", said.join(" / "))]
    Ended {
        /// How.
        exit: ProcessExit,
        /// The last of what it printed and logged.
        said: Vec<String>,
    },
    /// Its API did not answer in time; it was ended.
    #[error("Firecracker's API did not answer within {after:?}")]
    Deadline {
        /// How long it was given.
        after: Duration,
    },
}

impl Spawn {
    /// Starts the process and waits until its API takes connections. Needs a Tokio runtime.
    /// Not cancel-safe: a process whose launch was cancelled is left running, to be found by
    /// [`Process::find`].
    ///
    /// # Errors
    /// [`SpawnError`]
    pub async fn launch(self) -> Result<Launched, SpawnError> {
        match tokio::task::spawn_blocking(move || self.launch_blocking()).await {
            Ok(launched) => launched,
            Err(failed) => Err(prepare("its thread")(io::Error::other(failed))),
        }
    }

    fn launch_blocking(self) -> Result<Launched, SpawnError> {
        let start = |source| SpawnError::Start { binary: self.binary.clone(), source };
        let (console, log) = (self.fifo(names::CONSOLE_FIFO)?, self.fifo(names::LOG_FIFO)?);
        self.unlink(names::API_SOCKET)?;
        self.unlink(names::VSOCK_SOCKET)?;
        let output = console.try_clone().map_err(prepare(names::CONSOLE_FIFO))?;
        let console = Console::read_from(console).map_err(prepare(names::CONSOLE_FIFO))?;
        let log = Console::read_from(log).map_err(prepare(names::LOG_FIFO))?;
        let mut command = self.command(&output)?;
        let child = command.spawn().map_err(start)?;
        // Not reaped before `Process` does it, so the pid can't have become another's.
        let process = match Process::of_child(Pid::from_child(&child)) {
            Ok(process) => process,
            Err(source) => return Err(self.end_unidentified(child, console, log, source)),
        };
        if let Err(error) = self.await_socket(&process) {
            // A failed kill leaves a process that will still be found by its pid file.
            let _ = process.kill();
            let exit = process.exited_blocking();
            return Err(match error {
                Some(after) => SpawnError::Deadline { after },
                None => SpawnError::Ended { exit, said: last_words(console, log) },
            });
        }
        let client = Client::new(Arc::clone(&self.directory), names::API_SOCKET, self.factor);
        Ok(Launched { process, client, console, log })
    }

    fn command(&self, output: &File) -> Result<Command, SpawnError> {
        let clone = || output.try_clone().map_err(prepare(names::CONSOLE_FIFO));
        let binary = std::path::absolute(&self.binary).map_err(prepare("the binary's path"))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let pid_file = self.open(&self.directory.join(names::PID_FILE), flags)?;
        let cgroup = match &self.cgroup {
            Some(cgroup) => {
                Some(self.open(&cgroup.join("cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC)?)
            }
            None => None,
        };
        let mut command = Command::new(binary);
        command
            .args(["--id", &self.id, "--api-sock", names::API_SOCKET])
            .args(["--log-path", names::LOG_FIFO, "--level", "Warning"])
            .current_dir(self.directory.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(clone()?)
            .stderr(clone()?);
        #[allow(unsafe_code)]
        // SAFETY: the closure runs between fork and exec and calls only what is
        // async-signal-safe (signal-safety(7)): it allocates nothing and takes no lock. The files
        // it uses are owned by it, so they are open as long as the command is.
        unsafe {
            command.pre_exec(move || {
                let cgroup = cgroup.as_ref().map(AsRawFd::as_raw_fd);
                before_exec(pid_file.as_raw_fd(), cgroup)
            });
        }
        Ok(command)
    }

    fn open(&self, path: &std::path::Path, flags: OFlags) -> Result<File, SpawnError> {
        rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|errno| prepare(&path.display().to_string())(errno.into()))
    }

    /// Makes the FIFO if it is not there and opens it.
    fn fifo(&self, name: &str) -> Result<File, SpawnError> {
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::mkfifoat(&self.directory, name, mode) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(prepare(name)(errno.into())),
        }
        open_fifo(&self.directory.join(name)).map_err(prepare(name))
    }

    /// A socket's file outlives its process, and a second bind fails on it.
    fn unlink(&self, name: &str) -> Result<(), SpawnError> {
        match rustix::fs::unlinkat(&self.directory, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(prepare(name)(errno.into())),
        }
    }

    /// Waits for the API. Fails with `None` when the process ends, with the time when it is up.
    fn await_socket(&self, process: &Process) -> Result<(), Option<Duration>> {
        let socket = self.directory.socket(names::API_SOCKET);
        let after = SOCKET_DEADLINE.mul_f32(self.factor);
        let began = Instant::now();
        let mut pause = POLL_MIN;
        loop {
            if UnixStream::connect(&socket).is_ok() {
                return Ok(());
            }
            if process.has_exited() {
                return Err(None);
            }
            if began.elapsed() > after {
                return Err(Some(after));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// The child ended before it could be identified, or can't be: in neither case is it kept.
    fn end_unidentified(
        &self,
        mut child: std::process::Child,
        console: Console,
        log: Console,
        source: io::Error,
    ) -> SpawnError {
        use std::os::unix::process::ExitStatusExt;
        let ended_by_itself = matches!(child.try_wait(), Ok(Some(_)));
        // Safe by pid, since the child is not reaped; nothing happens if it has ended.
        let _ = child.kill();
        match child.wait() {
            Ok(status) if ended_by_itself => {
                let code = status.code().map(ProcessExit::Code);
                let exit = code.or(status.signal().map(ProcessExit::Signal));
                let exit = exit.unwrap_or(ProcessExit::Unknown);
                SpawnError::Ended { exit, said: last_words(console, log) }
            }
            _ => SpawnError::Start { binary: self.binary.clone(), source },
        }
    }
}

fn prepare(what: &str) -> impl FnOnce(io::Error) -> SpawnError {
    move |source| SpawnError::Prepare { what: what.to_owned(), source }
}

fn last_words(mut console: Console, mut log: Console) -> Vec<String> {
    console.drain_now();
    log.drain_now();
    let mut said = console.tail(SAID_LINES);
    said.extend(log.tail(SAID_LINES));
    said
}

/// What the child does before it becomes Firecracker. Async-signal-safe throughout.
#[allow(unsafe_code)]
fn before_exec(pid_file: RawFd, cgroup: Option<RawFd>) -> io::Result<()> {
    // SAFETY: plain system calls on descriptors that the caller holds open and on buffers that
    // outlive the calls; `signal` only restores default dispositions.
    unsafe {
        if libc::setsid() == -1 {
            return Err(io::Error::last_os_error());
        }
        for signal in 1..32 {
            // Fails for SIGKILL and SIGSTOP, whose disposition is the default anyway.
            libc::signal(signal, libc::SIG_DFL);
        }
        if let Some(cgroup) = cgroup {
            // "0" is the writer itself (cgroups(7)).
            if libc::write(cgroup, b"0".as_ptr().cast(), 1) != 1 {
                return Err(io::Error::last_os_error());
            }
        }
        let mut buffer = [0_u8; 12];
        let digits = decimal(libc::getpid().unsigned_abs(), &mut buffer);
        let written = libc::write(pid_file, digits.as_ptr().cast(), digits.len());
        if usize::try_from(written) != Ok(digits.len()) {
            return Err(io::Error::last_os_error());
        }
        // Whatever the daemon inherited without CLOEXEC ends here. Kernels before 5.11 lack the
        // flag; there only what std and this crate open, all of it CLOEXEC, is kept out.
        let cloexec = libc::CLOSE_RANGE_CLOEXEC;
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, cloexec);
    }
    Ok(())
}

/// The number and a newline, at the end of the buffer, without allocating.
fn decimal(mut number: u32, buffer: &mut [u8; 12]) -> &[u8] {
    let mut at = buffer.len() - 1;
    buffer[at] = b'\n';
    loop {
        at -= 1;
        // The remainder of ten fits a byte.
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_are_written_in_decimal() {
        for number in [0, 7, 10, 4_194_304, u32::MAX] {
            let mut buffer = [0; 12];
            assert_eq!(decimal(number, &mut buffer), format!("{number}\n").as_bytes());
        }
    }

    fn spawn(binary: &str) -> (tempfile::TempDir, Spawn) {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(dir.path()).unwrap());
        let spawn = Spawn {
            binary: PathBuf::from(binary),
            directory,
            id: "x".to_owned(),
            cgroup: None,
            factor: 0.1,
        };
        (dir, spawn)
    }

    #[tokio::test]
    async fn a_program_that_ends_at_once_is_reported_with_what_it_said() {
        let (dir, mut spawn) = spawn("");
        spawn.binary = dir.path().join("program");
        std::fs::write(&spawn.binary, "#!/bin/sh\necho no such luck >&2\nexit 153\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&spawn.binary, mode).unwrap();
        let error = spawn.launch().await.unwrap_err().to_string();
        assert_eq!(
            error,
            "Firecracker exited with 153 (bad arguments) before its API answered: no such luck"
        );
    }

    #[tokio::test]
    async fn a_program_without_an_api_is_ended_at_the_deadline() {
        let (dir, mut spawn) = spawn("");
        spawn.binary = dir.path().join("program");
        std::fs::write(&spawn.binary, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&spawn.binary, mode).unwrap();
        let error = spawn.launch().await.unwrap_err();
        assert!(matches!(error, SpawnError::Deadline { .. }), "{error}");
        let pid = std::fs::read_to_string(dir.path().join(names::PID_FILE)).unwrap();
        assert!(!std::path::Path::new("/proc").join(pid.trim()).exists(), "it is gone");
    }

    #[tokio::test]
    async fn a_binary_that_is_not_there_is_named() {
        let (_dir, spawn) = spawn("/nowhere/firecracker");
        let error = spawn.launch().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot start /nowhere/firecracker");
    }
}
