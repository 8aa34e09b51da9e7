//! A Firecracker process by pidfd: identified, adopted, waited for, ended.
//!
//! A pid alone names nothing, since pids are reused. What names a process here is its boot, pid,
//! start time, executable and working directory together; all are compared after the pidfd is
//! open, and signals go through the pidfd only. What doesn't match is never signalled.

use crate::directory::Directory;
use crate::names;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which process: enough to know it again after a restart of the daemon or of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `/proc/sys/kernel/random/boot_id`, which changes with each boot of the host.
    pub boot_id: String,
    /// The process id, in the daemon's pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
    /// The device of its executable.
    pub exe_device: u64,
    /// The inode of its executable.
    pub exe_inode: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessExit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ended, but was not this process's child, so its exit is unknown.
    Unknown,
}

/// Why a process could not be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The process that the identity names has ended; its pid may belong to another.
    #[error("the process {pid} has ended")]
    Gone {
        /// The pid it had.
        pid: i32,
    },
    /// Pid and start time match and something else doesn't. It is left alone.
    #[error("the process {pid} is not the Firecracker it should be: its {difference} differs")]
    Stranger {
        /// Its pid.
        pid: i32,
        /// What doesn't match.
        difference: &'static str,
    },
    /// It could not be looked at.
    #[error("cannot look at process {pid}")]
    Look {
        /// Its pid.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Opens the process that has this id; `None` where none has. Ids of processes and of threads come from one supply, so
/// that of a process that is gone may be a thread's now: the kernel says EINVAL, and ENOENT since 6.15.
fn open(pid: Pid) -> io::Result<Option<OwnedFd>> {
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A Firecracker process. Dropping it does nothing to the process.
#[derive(Debug)]
pub struct Process {
    pidfd: AsyncFd<OwnedFd>,
    identity: Identity,
    exit: OnceLock<ProcessExit>,
}

impl Process {
    /// The process that has just been spawned by this one and not been waited for.
    /// Needs a Tokio runtime.
    pub(crate) fn of_child(pid: Pid) -> io::Result<Process> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let identity = Identity::of(pid.as_raw_nonzero().get())?;
        Process::new(pidfd, identity)
    }

    fn new(pidfd: OwnedFd, identity: Identity) -> io::Result<Process> {
        #[allow(unsafe_code)]
        // SAFETY: the descriptor is owned, its `as_raw_fd` is always the same, and it stays open
        // until the `AsyncFd` has deregistered it.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Process { pidfd, identity, exit: OnceLock::new() })
    }

    /// Takes over a process that another daemon spawned. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`AdoptError`]
    pub fn adopt(identity: &Identity, directory: &Directory) -> Result<Process, AdoptError> {
        let pid = identity.pid;
        let look = |source| AdoptError::Look { pid, source };
        if boot_id().map_err(look)? != identity.boot_id {
            return Err(AdoptError::Gone { pid });
        }
        let opened = Pid::from_raw(pid).map_or(Ok(None), open).map_err(look)?;
        let Some(pidfd) = opened else { return Err(AdoptError::Gone { pid }) };
        let stat = match Stat::of(pid) {
            Ok(stat) => stat,
            Err(error) if is_gone(&error) => return Err(AdoptError::Gone { pid }),
            Err(error) => return Err(look(error)),
        };
        if stat.is_zombie || stat.start_ticks != identity.start_ticks {
            return Err(AdoptError::Gone { pid });
        }
        let found = match Identity::of(pid) {
            Ok(found) => found,
            Err(error) if is_gone(&error) => return Err(AdoptError::Gone { pid }),
            Err(error) => return Err(look(error)),
        };
        if found != *identity {
            return Err(AdoptError::Stranger { pid, difference: "executable" });
        }
        match works_in(pid, directory) {
            Ok(true) => {}
            Ok(false) => {
                return Err(AdoptError::Stranger { pid, difference: "working directory" });
            }
            Err(error) if is_gone(&error) => return Err(AdoptError::Gone { pid }),
            Err(error) => return Err(look(error)),
        }
        Process::new(pidfd, found).map_err(look)
    }

    /// The process that wrote the pid file of `directory`, for the case that a daemon ended
    /// between spawning it and keeping its identity. It must work in `directory` and have been
    /// started with `--id <id>`. `None` if there is none. Needs a Tokio runtime.
    ///
    /// # Errors
    /// Where the pid file or the process can't be looked at.
    pub fn find(directory: &Directory, id: &str) -> io::Result<Option<Process>> {
        let text = match std::fs::read_to_string(directory.join(names::PID_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let seen = || {
            let Some(pidfd) = open(pid)? else { return Ok(None) };
            let raw = pid.as_raw_nonzero().get();
            let arguments = std::fs::read(format!("/proc/{raw}/cmdline"))?;
            let mut arguments = arguments.split(|&byte| byte == 0);
            let named = arguments.any(|argument| argument == b"--id")
                && arguments.next() == Some(id.as_bytes());
            if !named || !works_in(raw, directory)? {
                return Ok(None);
            }
            Process::new(pidfd, Identity::of(raw)?).map(Some)
        };
        match seen() {
            Err(error) if is_gone(&error) => Ok(None),
            other => other,
        }
    }

    /// What to keep in order to adopt it later.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Sends SIGKILL. Nothing happens if it has ended.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2), such as a lack of permission.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for its end and, if it is a child, reaps it. Cancel-safe, and may be called again.
    ///
    /// # Errors
    /// Where the pidfd can't be waited on, such as at the end of the runtime. Never means that the
    /// process has ended.
    pub async fn exited(&self) -> io::Result<ProcessExit> {
        if let Some(exit) = self.exit.get() {
            return Ok(*exit);
        }
        let _readable = self.pidfd.readable().await?;
        Ok(self.reap())
    }

    /// Waits for its end by blocking the thread: some 15 ms after a kill.
    pub(crate) fn exited_blocking(&self) -> ProcessExit {
        self.reap()
    }

    /// Whether it has ended, without waiting.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Waits for the zombie; for a process that is not a child it returns at once.
    fn reap(&self) -> ProcessExit {
        *self.exit.get_or_init(|| reap(WaitId::PidFd(self.pidfd.get_ref().as_fd())))
    }
}

/// Waits for a child to exit and reaps it. The exit of a process that is not a child is unknown.
pub(crate) fn reap(child: WaitId<'_>) -> ProcessExit {
    loop {
        match waitid(child.clone(), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            Ok(Some(status)) => {
                let code = status.exit_status().map(ProcessExit::Code);
                let signal = status.terminating_signal().map(ProcessExit::Signal);
                return code.or(signal).unwrap_or(ProcessExit::Unknown);
            }
            Ok(None) | Err(_) => return ProcessExit::Unknown,
        }
    }
}

impl ProcessExit {
    /// What the code means by Firecracker's docs (`src/vmm/src/lib.rs`, `FcExitCode`), where it
    /// means something. Code 0 comes also after the guest's reboot or triple fault.
    #[must_use]
    pub fn meaning(self) -> Option<&'static str> {
        match self {
            ProcessExit::Code(148) => Some("its seccomp filter stopped a system call"),
            ProcessExit::Code(149) => Some("SIGBUS"),
            ProcessExit::Code(150) => Some("SIGSEGV"),
            ProcessExit::Code(151) => Some("SIGXFSZ: a file grew over its limit"),
            ProcessExit::Code(152) => Some("bad configuration"),
            ProcessExit::Code(153) => Some("bad arguments"),
            ProcessExit::Code(154) => Some("SIGXCPU"),
            ProcessExit::Code(155) => Some("SIGPIPE"),
            ProcessExit::Code(156) => Some("SIGHUP"),
            ProcessExit::Code(157) => Some("SIGILL"),
            ProcessExit::Signal(9) => Some("killed"),
            _ => None,
        }
    }
}

impl fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessExit::Code(code) => write!(f, "Firecracker exited with {code}")?,
            ProcessExit::Signal(signal) => write!(f, "Firecracker ended by signal {signal}")?,
            ProcessExit::Unknown => write!(f, "Firecracker ended, how is unknown")?,
        }
        self.meaning().map_or(Ok(()), |meaning| write!(f, " ({meaning})"))
    }
}

impl Identity {
    fn of(pid: i32) -> io::Result<Identity> {
        let exe =
            rustix::fs::statat(rustix::fs::CWD, format!("/proc/{pid}/exe"), AtFlags::empty())?;
        Ok(Identity {
            boot_id: boot_id()?,
            pid,
            start_ticks: Stat::of(pid)?.start_ticks,
            exe_device: exe.st_dev,
            exe_inode: exe.st_ino,
        })
    }
}

/// What is needed of `/proc/<pid>/stat`.
pub(crate) struct Stat {
    pub(crate) is_zombie: bool,
    pub(crate) start_ticks: u64,
}

impl Stat {
    fn of(pid: i32) -> io::Result<Stat> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Stat::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/<pid>/stat"))
    }

    /// The second field, the command's name, may itself hold spaces and parentheses.
    pub(crate) fn parse(text: &str) -> Option<Stat> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        // Field 22 is the nineteenth after the state, which is field 3.
        let start_ticks = fields.nth(18)?.parse().ok()?;
        Some(Stat { is_zombie: matches!(state, "Z" | "X"), start_ticks })
    }
}

/// Names this boot of the host.
///
/// # Errors
/// Where `/proc` can't be read.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn works_in(pid: i32, directory: &Directory) -> io::Result<bool> {
    let path = format!("/proc/{pid}/cwd");
    let cwd = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::empty())?;
    Ok((cwd.st_dev, cwd.st_ino) == directory.device_inode()?)
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [libc::ENOENT, libc::ESRCH];
    error.raw_os_error().is_some_and(|errno| gone.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn sleeper(dir: &std::path::Path, id: &str) -> Child {
        // The shell stays, so that the arguments after the script are its own.
        let child = Command::new("/bin/sh")
            .args(["-c", "read line", "sh", "--id", id])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // A spawn returns a moment before the kernel shows the new arguments.
        let arguments = format!("/proc/{}/cmdline", child.id());
        while std::fs::read(&arguments).unwrap().is_empty() {
            std::thread::yield_now();
        }
        child
    }

    fn working_directory() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        (dir, directory)
    }

    #[test]
    fn the_start_time_is_read_past_a_hostile_name() {
        let text = "42 (a) Z 1 (b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 654 3";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.is_zombie, stat.start_ticks), (false, 987));
    }

    #[tokio::test]
    async fn an_id_that_a_thread_has_now_is_of_a_process_that_is_gone() {
        let (dir, directory) = working_directory();
        let own = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let (told, tid) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            told.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let _ = ended.recv();
        });
        let pid = tid.recv().unwrap();
        let adopted = Process::adopt(&Identity { pid, ..own }, &directory);
        assert!(matches!(adopted, Err(AdoptError::Gone { .. })), "{adopted:?}");
        std::fs::write(dir.path().join(names::PID_FILE), pid.to_string()).unwrap();
        assert!(Process::find(&directory, "x").unwrap().is_none());
        drop(end);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_process_is_adopted_by_its_identity_and_its_exit_is_learned() {
        let (dir, directory) = working_directory();
        let mut child = sleeper(dir.path(), "x");
        let identity = Process::of_child(Pid::from_child(&child)).unwrap().identity().clone();
        let adopted = Process::adopt(&identity, &directory).unwrap();
        assert!(!adopted.has_exited());
        adopted.kill().unwrap();
        assert_eq!(adopted.exited().await.unwrap(), ProcessExit::Signal(9));
        assert_eq!(adopted.exited().await.unwrap(), ProcessExit::Signal(9));
        adopted.kill().unwrap();
        assert!(child.wait().is_err(), "it is reaped already");
        let gone = Process::adopt(&identity, &directory).unwrap_err();
        assert!(matches!(gone, AdoptError::Gone { .. }), "{gone}");
    }

    #[tokio::test]
    async fn what_differs_is_not_adopted() {
        let (dir, directory) = working_directory();
        let mut child = sleeper(dir.path(), "x");
        let identity = Process::of_child(Pid::from_child(&child)).unwrap().identity().clone();
        let refused = |identity: &Identity, directory: &Directory| {
            Process::adopt(identity, directory)
                .unwrap_err()
                .to_string()
                .replace(&identity.pid.to_string(), "P")
        };
        let other = Identity { boot_id: "another boot".to_owned(), ..identity.clone() };
        assert_eq!(refused(&other, &directory), "the process P has ended");
        let other = Identity { start_ticks: identity.start_ticks + 1, ..identity.clone() };
        assert_eq!(refused(&other, &directory), "the process P has ended");
        let other = Identity { exe_inode: identity.exe_inode + 1, ..identity.clone() };
        assert_eq!(
            refused(&other, &directory),
            "the process P is not the Firecracker it should be: its executable differs"
        );
        let (_elsewhere, other) = working_directory();
        assert_eq!(
            refused(&identity, &other),
            "the process P is not the Firecracker it should be: its working directory differs"
        );
        assert!(child.try_wait().unwrap().is_none(), "none of this ended it");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_pid_file_only_where_all_matches() {
        let (dir, directory) = working_directory();
        assert!(Process::find(&directory, "x").unwrap().is_none());
        let mut child = sleeper(dir.path(), "x");
        std::fs::write(dir.path().join(names::PID_FILE), format!("{}\n", child.id())).unwrap();
        let pid = |found: Option<Process>| found.map(|found| found.identity().pid);
        let found = pid(Process::find(&directory, "x").unwrap());
        assert_eq!(found, Some(i32::try_from(child.id()).unwrap()));
        assert_eq!(pid(Process::find(&directory, "y").unwrap()), None);
        let (elsewhere, other) = working_directory();
        std::fs::copy(dir.path().join(names::PID_FILE), elsewhere.path().join(names::PID_FILE))
            .unwrap();
        assert_eq!(pid(Process::find(&other, "x").unwrap()), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(pid(Process::find(&directory, "x").unwrap()), None);
    }

    #[test]
    fn known_exit_codes_are_named() {
        let said = ProcessExit::Code(148).to_string();
        assert_eq!(said, "Firecracker exited with 148 (its seccomp filter stopped a system call)");
        assert_eq!(ProcessExit::Code(7).to_string(), "Firecracker exited with 7");
    }
}
