//! Fork and exec, which std's `Command` can't do right into a cgroup: a child that enters one by itself waits
//! for all processors (docs/adr/0013).

use crate::directory::Directory;
use crate::process;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitId};
use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::Arc;

/// How likely the kernel's OOM killer picks a process (proc_pid_oom_score_adj(5)).
const OOM_SCORE_ADJ: &CStr = c"/proc/self/oom_score_adj";

/// How many descriptors a Firecracker may have; its jailer's default. It grows its table to what it may have
/// as it starts (`resize_fdtable` in its main.rs), which takes 8 bytes of the kernel's memory each.
const FILES_MAX: u64 = 2048;

/// `CLONE_INTO_CGROUP` of linux/sched.h, since Linux 5.7.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// A program, laid out before the fork: after it nothing may be allocated.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its absolute path.
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
        let Some(child) = unsafe { fork(self.cgroup.as_ref().map(AsFd::as_fd)) }? else {
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
            let digits = decimal(libc::getpid().unsigned_abs(), &mut buffer);
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
        limit(libc::RLIMIT_CORE, 0)
    }
}

/// Lowers a limit of this process permanently. Async-signal-safe: two system calls.
#[allow(unsafe_code)]
fn limit(what: libc::__rlimit_resource_t, most: libc::rlim_t) -> io::Result<()> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives both calls.
    unsafe {
        done(libc::getrlimit(what, &raw mut limits))?;
        limits.rlim_max = limits.rlim_max.min(most);
        limits.rlim_cur = limits.rlim_max;
        done(libc::setrlimit(what, &raw const limits))?;
    }
    Ok(())
}

/// Whether a process can be born in this cgroup: one is, and ends at once. A kernel before 5.7, a seccomp
/// filter or a cgroup of another user refuses it.
///
/// # Errors
/// Why not.
pub fn try_cgroup(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    #[allow(unsafe_code)]
    // SAFETY: the child ends by a call that is async-signal-safe.
    let Some(child) = unsafe { fork(Some(cgroup)) }? else { unsafe { libc::_exit(0) } };
    process::reap(WaitId::Pid(child));
    Ok(())
}

/// Whether this process is protected from the kernel's OOM killer, as a service manager may have set it:
/// that is for a daemon, and not for what a guest does.
fn is_oom_protected() -> bool {
    let score = std::fs::read_to_string(OsStr::from_bytes(OOM_SCORE_ADJ.to_bytes()));
    score.is_ok_and(|score| score.starts_with('-'))
}

/// What a call returned, or its error.
fn done(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// Forks, into a cgroup if one is given. `None` is the child.
///
/// # Safety
/// The child may call only what is async-signal-safe, and never returns to the caller's caller.
#[allow(unsafe_code)]
unsafe fn fork(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    let pid = match cgroup {
        // SAFETY: as said above.
        None => unsafe { libc::fork() },
        Some(cgroup) => {
            // SAFETY: zeros are what this structure's fields mean nothing by.
            let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
            how.flags = INTO_CGROUP;
            how.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
            how.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
            // SAFETY: the structure outlives the call and has the size that is said. Without a stack
            // and without shared memory this is a fork; that libc is not told of it matters only to
            // calls that are not async-signal-safe.
            let pid = unsafe {
                libc::syscall(libc::SYS_clone3, &raw const how, size_of::<libc::clone_args>())
            };
            // The kernel's pids fit.
            libc::pid_t::try_from(pid).unwrap_or(-1)
        }
    };
    done(pid)?;
    Ok(Pid::from_raw(pid))
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
    use std::ffi::CStr;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    #[test]
    fn pids_are_written_in_decimal() {
        for number in [0, 7, 10, 4_194_304, u32::MAX] {
            let mut buffer = [0; 12];
            assert_eq!(decimal(number, &mut buffer), format!("{number}\n").as_bytes());
        }
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
