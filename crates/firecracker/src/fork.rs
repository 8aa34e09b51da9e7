//! Fork and exec, which std's `Command` can't do right into a cgroup: a child that enters one by itself waits
//! for all processors (docs/adr/0013).

use crate::child::{done, fork, limit};
use crate::directory::Directory;
use crate::jail::{self, Jail};
use crate::process;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitId};
use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::Arc;

/// How likely the kernel's OOM killer picks a process (proc_pid_oom_score_adj(5)).
const OOM_SCORE_ADJ: &CStr = c"/proc/self/oom_score_adj";

/// How many descriptors a Firecracker may have; its jailer's default. It grows its table to what it may have
/// as it starts (`resize_fdtable` in its main.rs), which takes 8 bytes of the kernel's memory each.
const FILES_MAX: u64 = 2048;

/// A program, laid out before the fork: after it nothing may be allocated.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its absolute path; in its jail if it has one.
    pub(crate) path: CString,
    /// Its arguments, its name first.
    pub(crate) arguments: Vec<CString>,
    /// Where it works.
    pub(crate) directory: Arc<Directory>,
    pub(crate) stdin: File,
    /// Its stdout and stderr.
    pub(crate) output: File,
    /// Gets its pid, and a newline, before exec.
    pub(crate) pid_file: File,
    /// The cgroup v2 directory that it is born in; without one, the parent's.
    pub(crate) cgroup: Option<OwnedFd>,
    /// What it is confined to; without it, to nothing.
    pub(crate) jail: Option<Jail>,
}

impl Program {
    /// Starts it, with no environment, in a session of its own, with no descriptor of this process's,
    /// no disposition of a signal and no protection from the kernel's OOM killer. Returns once it has been
    /// executed; it is not waited for.
    ///
    /// # Errors
    /// What the fork, the exec or anything between them failed with. No child is left then.
    pub(crate) fn spawn(&self) -> io::Result<Pid> {
        self.spawn_from(is_oom_protected())
    }

    fn spawn_from(&self, oom_protected: bool) -> io::Result<Pid> {
        let arguments = self.arguments.iter().map(|argument| argument.as_ptr());
        let arguments: Vec<*const c_char> = arguments.chain([ptr::null()]).collect();
        let (failure, report) = pipe_with(PipeFlags::CLOEXEC)?;
        #[allow(unsafe_code)]
        // SAFETY: the child calls only what is async-signal-safe, and ends in `exec_child`.
        let Some(child) =
            unsafe { fork(self.cgroup.as_ref().map(AsFd::as_fd), self.namespaces()) }?
        else {
            self.exec_child(&arguments, oom_protected, report.as_raw_fd());
        };
        drop(report);
        let mut errno = [0; size_of::<i32>()];
        let error = match File::from(failure).read_exact(&mut errno) {
            // The exec has closed it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(child),
            Err(error) => error,
            Ok(()) => io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
        };
        // It ends by itself after its report.
        process::reap(WaitId::Pid(child));
        Err(error)
    }

    /// What the child does: it becomes the program, or reports why not and ends.
    #[allow(unsafe_code)]
    fn exec_child(&self, arguments: &[*const c_char], oom_protected: bool, report: RawFd) -> ! {
        let error = self
            .try_exec(arguments, oom_protected)
            .raw_os_error()
            .unwrap_or(libc::EINVAL)
            .to_ne_bytes();
        // SAFETY: both are async-signal-safe (signal-safety(7)); the buffer outlives the call.
        unsafe {
            libc::write(report, error.as_ptr().cast(), error.len());
            libc::_exit(127);
        }
    }

    /// Returns why it did not become the program. Async-signal-safe: it allocates nothing and takes no lock.
    fn try_exec(&self, arguments: &[*const c_char], oom_protected: bool) -> io::Error {
        if let Err(error) = self.prepare(oom_protected) {
            return error;
        }
        let environment = [ptr::null::<c_char>()];
        #[allow(unsafe_code)]
        // SAFETY: both arrays end with a null pointer, and all they point to outlives the call.
        unsafe {
            libc::execve(self.path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
        }
        io::Error::last_os_error()
    }

    fn namespaces(&self) -> c_int {
        if self.jail.is_some() { jail::NAMESPACES } else { 0 }
    }

    #[allow(unsafe_code)]
    fn prepare(&self, oom_protected: bool) -> io::Result<()> {
        // SAFETY: plain system calls on descriptors that `self` holds open and on buffers that outlive
        // the calls; `signal` and `sigprocmask` only restore what a new process begins with.
        unsafe {
            done(libc::setsid())?;
            for signal in 1..=64 {
                // Fails for SIGKILL and SIGSTOP, whose disposition is the default anyway.
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            done(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))?;
            // None of them is 0, 1 or 2: std opens those where they are not.
            done(libc::dup2(self.stdin.as_raw_fd(), 0))?;
            done(libc::dup2(self.output.as_raw_fd(), 1))?;
            done(libc::dup2(self.output.as_raw_fd(), 2))?;
            done(libc::fchdir(self.directory.as_fd().as_raw_fd()))?;
            let mut buffer = [0_u8; 12];
            let digits = own_pid(&mut buffer)?;
            let written =
                libc::write(self.pid_file.as_raw_fd(), digits.as_ptr().cast(), digits.len());
            if usize::try_from(written) != Ok(digits.len()) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            if oom_protected {
                let score = done(libc::open(OOM_SCORE_ADJ.as_ptr(), libc::O_WRONLY))?;
                // Raising it needs no privilege.
                libc::write(score, b"0".as_ptr().cast(), 1);
            }
            // Descriptors that the daemon inherited without CLOEXEC are closed here. Kernels before 5.11 lack the
            // flag; there only what std and this crate open, all of it CLOEXEC, is kept out.
            libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        }
        limit(libc::RLIMIT_NOFILE, FILES_MAX)?;
        limit(libc::RLIMIT_CORE, 0)?;
        self.jail.as_ref().map_or(Ok(()), Jail::enter)
    }
}

/// Whether this process is protected from the kernel's OOM killer, as a service manager may have set it:
/// that is for a daemon, and not for what a guest does.
fn is_oom_protected() -> bool {
    let score = std::fs::read_to_string(OsStr::from_bytes(OOM_SCORE_ADJ.to_bytes()));
    score.is_ok_and(|score| score.starts_with('-'))
}

/// This process's pid and a newline, without allocating. It is that of the daemon's namespace, as `/proc`
/// has it, and not that of the namespace that this process may be the first in.
#[allow(unsafe_code)]
fn own_pid(buffer: &mut [u8; 12]) -> io::Result<&[u8]> {
    let room = buffer.len() - 1;
    // SAFETY: the path ends with a zero, and as many bytes are written as the buffer has but for one.
    let length =
        unsafe { libc::readlink(c"/proc/self".as_ptr(), buffer.as_mut_ptr().cast(), room) };
    match usize::try_from(length) {
        Ok(length) if length < room => {
            buffer[length] = b'\n';
            Ok(&buffer[..=length])
        }
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EOVERFLOW)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    #[test]
    fn own_pid_is_a_line_of_decimal_digits() {
        let mut buffer = [0; 12];
        let line = format!("{}\n", std::process::id());
        assert_eq!(own_pid(&mut buffer).unwrap(), line.as_bytes());
    }

    fn program(path: &CStr) -> (tempfile::TempDir, Program) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(dir.path().join(name)).unwrap();
        let program = Program {
            path: path.to_owned(),
            arguments: vec![c"a name".to_owned(), c"1000".to_owned()],
            directory: Arc::new(Directory::open(dir.path()).unwrap()),
            stdin: File::open("/dev/null").unwrap(),
            output: file("output"),
            pid_file: file("pid"),
            cgroup: None,
            jail: None,
        };
        (dir, program)
    }

    #[test]
    fn a_program_gets_what_it_is_given_and_nothing_else() {
        let (dir, program) = program(c"/bin/sleep");
        #[allow(unsafe_code)]
        // SAFETY: the set is made before it is used; this thread alone is changed.
        unsafe {
            let mut one = std::mem::zeroed();
            libc::sigemptyset(&raw mut one);
            libc::sigaddset(&raw mut one, libc::SIGUSR1);
            done(libc::pthread_sigmask(libc::SIG_BLOCK, &raw const one, ptr::null_mut())).unwrap();
        }
        let inherited = File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
        let child = program.spawn().unwrap();
        let proc = PathBuf::from(format!("/proc/{}", child.as_raw_nonzero()));
        let read = |name: &str| std::fs::read_to_string(proc.join(name)).unwrap();
        let link = |name: &str| std::fs::read_link(proc.join(name)).unwrap();
        // A moment after the exec the kernel shows its arguments.
        while read("cmdline").is_empty() {
            std::thread::yield_now();
        }
        // Its loader opens libraries and closes them; what it was given by mistake would stay.
        let descriptors = || std::fs::read_dir(proc.join("fd")).unwrap().count();
        let end = Instant::now() + Duration::from_secs(10);
        while descriptors() != 3 {
            assert!(Instant::now() < end, "it has more than its three");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(read("cmdline"), "a name\x001000\0");
        assert_eq!(read("environ"), "");
        let stat = read("stat");
        let session = stat.split(") ").nth(1).unwrap().split(' ').nth(3).unwrap();
        assert_eq!(session, child.as_raw_nonzero().to_string());
        let status = read("status");
        for mask in ["SigBlk:", "SigIgn:", "SigCgt:"] {
            let mask = status.lines().find_map(|line| line.strip_prefix(mask)).unwrap();
            // The threads' own signals, 32 and 33, can't be set.
            let mask = u64::from_str_radix(mask.trim(), 16).unwrap() & !(0b11 << 31);
            assert_eq!(mask, 0, "{status}");
        }
        assert_eq!(link("cwd"), dir.path().canonicalize().unwrap());
        let limits = read("limits");
        let limit = |what: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(what)).unwrap();
            line.split_whitespace().take(2).map(|most| most.parse().unwrap()).collect::<Vec<u64>>()
        };
        assert_eq!(limit("Max core file size"), [0, 0]);
        assert_eq!(limit("Max open files"), [FILES_MAX, FILES_MAX]);
        let output = dir.path().join("output");
        let fds = [link("fd/0"), link("fd/1"), link("fd/2")];
        assert_eq!(fds, [PathBuf::from("/dev/null"), output.clone(), output]);
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        assert_eq!(pid, format!("{}\n", child.as_raw_nonzero()));
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        let exit = process::reap(WaitId::Pid(child));
        assert_eq!(exit, process::ProcessExit::Signal(9));
    }

    #[test]
    fn protection_from_the_oom_killer_is_not_inherited() {
        let score = |process: &str| PathBuf::from(format!("/proc/{process}/oom_score_adj"));
        let before = std::fs::read_to_string(score("self")).unwrap();
        // To be protected takes a privilege; to be the opposite takes none.
        std::fs::write(score("self"), "7").unwrap();
        let (_dir, program) = program(c"/bin/sleep");
        let children =
            [false, true].map(|oom_protected| program.spawn_from(oom_protected).unwrap());
        std::fs::write(score("self"), before).unwrap();
        let scores = children.map(|child| {
            let text = std::fs::read_to_string(score(&child.as_raw_nonzero().to_string())).unwrap();
            rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
            process::reap(WaitId::Pid(child));
            text
        });
        assert_eq!(scores, ["7\n", "0\n"]);
    }

    #[test]
    fn what_cannot_be_executed_leaves_no_child_and_says_why() {
        let (dir, program) = program(c"/nowhere/sleep");
        assert_eq!(program.spawn().unwrap_err().kind(), io::ErrorKind::NotFound);
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }
}
