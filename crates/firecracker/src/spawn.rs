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
use crate::fork::Program;
use crate::jail::{Jail, Shown};
use crate::names;
use crate::process::{self, Process, ProcessExit};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitId};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// The cgroup v2 directory that the child is born in; without one, this process's.
    pub cgroup: Option<PathBuf>,
    /// What the child is confined to. Without it it has this process's user, namespaces and files.
    pub confinement: Option<Confinement>,
    /// Factor of every deadline; 1.0 if the VMM is not emulated.
    pub factor: f32,
}

/// How a process is confined: the working directory, which has one for sockets ([`names::SOCKETS`]), is all
/// that it sees, besides three devices. It can change nothing but the files that its user owns, and has no
/// network. Once its directory is sealed ([`Directory::seal`]) it can make no file either.
#[derive(Debug)]
pub struct Confinement {
    /// Its user and its group, which nothing else has.
    pub user: u32,
    /// Files outside, each with the name of a file in the directory in whose place it is shown, read-only.
    pub shown: Vec<(PathBuf, String)>,
    /// No file that it writes grows beyond so many bytes.
    pub file_bytes_max: u64,
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
        let child = self.program(&output)?.spawn().map_err(start)?;
        // Not reaped before `Process` does it, so the pid can't have become another's.
        let process = match Process::of_child(child) {
            Ok(process) => process,
            Err(source) => return Err(self.end_unidentified(child, console, log, source)),
        };
        if let Err(error) = self.await_socket(&process) {
            // A failed kill leaves a process that will still be found by its pid file.
            let _ = process.kill();
            let exit = process.exited_blocking();
            return Err(match error {
                Some(after) => SpawnError::Deadline { after },
                None => SpawnError::Ended { exit, said: final_output(console, log) },
            });
        }
        let client = Client::new(Arc::clone(&self.directory), names::API_SOCKET, self.factor);
        Ok(Launched { process, client, console, log })
    }

    fn program(&self, output: &File) -> Result<Program, SpawnError> {
        let binary = std::path::absolute(&self.binary).map_err(prepare("the binary's path"))?;
        let jail = self.confinement.as_ref().map(|confinement| self.jail(confinement, &binary));
        let path = match &jail {
            Some(_) => text(format!("/{}", names::BINARY))?,
            None => text(binary.into_os_string().into_vec())?,
        };
        let api_socket = self.directory.socket_name(names::API_SOCKET);
        let arguments = ["--id", &self.id, "--api-sock", &api_socket].into_iter().chain([
            "--log-path",
            names::LOG_FIFO,
            "--level",
            "Warning",
        ]);
        let arguments = arguments.map(text).collect::<Result<Vec<_>, _>>()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let cgroup = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Program {
            arguments: [path.clone()].into_iter().chain(arguments).collect(),
            path,
            directory: Arc::clone(&self.directory),
            stdin: self.open(Path::new("/dev/null"), OFlags::RDONLY | OFlags::CLOEXEC)?.into(),
            output: output.try_clone().map_err(prepare(names::CONSOLE_FIFO))?,
            pid_file: self.open(&self.directory.join(names::PID_FILE), flags)?.into(),
            cgroup: self.cgroup.as_ref().map(|path| self.open(path, cgroup)).transpose()?,
            jail: jail.transpose()?,
        })
    }

    /// The jail, and what it takes in the directory: files to show others in place of, and that the process
    /// has what it needs.
    fn jail(&self, confinement: &Confinement, binary: &Path) -> Result<Jail, SpawnError> {
        let Confinement { user, shown, file_bytes_max } = confinement;
        let absolute = |path: &Path| text(path.as_os_str().as_bytes());
        let mut files = vec![Shown {
            outside: absolute(binary)?,
            name: text(names::BINARY)?,
            is_program: true,
        }];
        for (outside, name) in shown {
            let outside = absolute(outside)?;
            files.push(Shown { outside, name: text(name.as_str())?, is_program: false });
        }
        let place = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for name in shown.iter().map(|(_, name)| name.as_str()).chain([names::BINARY]) {
            self.open(&self.directory.join(name), place)?;
        }
        match rustix::fs::mkdirat(&self.directory, names::DEVICES, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(prepare(names::DEVICES)(errno.into())),
        }
        self.own(names::LOG_FIFO, *user)?;
        self.own(names::SOCKETS, *user)?;
        self.directory.let_search(".").map_err(prepare("its directory"))?;
        let root = std::path::absolute(self.directory.path());
        let root = absolute(&root.map_err(prepare("the directory's path"))?)?;
        Ok(Jail { user: *user, root, files, file_bytes_max: *file_bytes_max })
    }

    /// Gives the process something in its directory.
    fn own(&self, name: &str, user: u32) -> Result<(), SpawnError> {
        self.directory.give(name, user).map_err(prepare(name))
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, SpawnError> {
        rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| prepare(&path.display().to_string())(errno.into()))
    }

    /// Makes the FIFO if it does not exist and opens it.
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
        let socket = self.directory.socket_name(name);
        match rustix::fs::unlinkat(&self.directory, socket, rustix::fs::AtFlags::empty()) {
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

    /// The child can't be identified and is not kept: if it is exiting by itself, its exit is reported;
    /// else it is killed. The kernel removes the executable of a process before it reports the exit.
    fn end_unidentified(
        &self,
        child: Pid,
        console: Console,
        log: Console,
        source: io::Error,
    ) -> SpawnError {
        // Safe by pid, since the child is not reaped.
        let _ = rustix::process::kill_process(child, Signal::KILL);
        match process::reap(WaitId::Pid(child)) {
            exit if exit == ProcessExit::Signal(Signal::KILL.as_raw()) => {
                SpawnError::Start { binary: self.binary.clone(), source }
            }
            exit => SpawnError::Ended { exit, said: final_output(console, log) },
        }
    }
}

fn text(text: impl Into<Vec<u8>>) -> Result<CString, SpawnError> {
    CString::new(text).map_err(|zero| prepare("the command")(zero.into()))
}

fn prepare(what: &str) -> impl FnOnce(io::Error) -> SpawnError {
    move |source| SpawnError::Prepare { what: what.to_owned(), source }
}

fn final_output(mut console: Console, mut log: Console) -> Vec<String> {
    console.drain_now();
    log.drain_now();
    let mut said = console.tail(SAID_LINES);
    said.extend(log.tail(SAID_LINES));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawn(binary: &str) -> (tempfile::TempDir, Spawn) {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(dir.path()).unwrap());
        let spawn = Spawn {
            binary: PathBuf::from(binary),
            directory,
            id: "x".to_owned(),
            cgroup: None,
            confinement: None,
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

    /// What is reported of a child that can't be identified, and said "no such luck".
    fn unidentified(mut child: std::process::Child) -> SpawnError {
        let (_dir, spawn) = spawn("");
        let (mut console, log) =
            (spawn.fifo(names::CONSOLE_FIFO).unwrap(), spawn.fifo(names::LOG_FIFO).unwrap());
        std::io::Write::write_all(&mut console, b"no such luck\n").unwrap();
        let (console, log) =
            (Console::read_from(console).unwrap(), Console::read_from(log).unwrap());
        let source = io::ErrorKind::NotFound.into();
        let error = spawn.end_unidentified(Pid::from_child(&child), console, log, source);
        assert!(child.wait().is_err(), "it is gone");
        error
    }

    #[tokio::test]
    async fn process_that_is_ending_is_reported_with_its_exit() {
        // So much memory takes the kernel a while to free, between its executable and its exit.
        let child = std::process::Command::new("dd")
            .args(["if=/dev/zero", "of=/dev/full", "bs=256M", "count=1", "status=none"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while std::fs::read_link(format!("/proc/{}/exe", child.id())).is_ok() {}
        let error = unidentified(child);
        assert!(matches!(&error, SpawnError::Ended { exit: ProcessExit::Code(1), .. }), "{error}");
        assert!(error.to_string().ends_with(": no such luck"), "{error}");
    }

    #[tokio::test]
    async fn process_that_cannot_be_identified_is_ended() {
        let error = unidentified(std::process::Command::new("sleep").arg("1000").spawn().unwrap());
        assert!(matches!(error, SpawnError::Start { .. }), "{error}");
    }

    #[tokio::test]
    async fn missing_binary_is_named() {
        let (_dir, spawn) = spawn("/nowhere/firecracker");
        let error = spawn.launch().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot start /nowhere/firecracker");
    }
}
