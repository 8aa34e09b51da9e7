//! A child process between fork and exec: how it is born, and system calls that it may make.

use crate::process;
use rustix::process::{Pid, WaitId};
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `CLONE_INTO_CGROUP` of linux/sched.h, since Linux 5.7.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks, into new namespaces and into a cgroup if one is given. `None` is the child.
///
/// # Safety
/// The child may call only what is async-signal-safe, and never returns to the caller's caller.
#[allow(unsafe_code)]
pub(crate) unsafe fn fork(
    cgroup: Option<BorrowedFd<'_>>,
    namespaces: c_int,
) -> io::Result<Option<Pid>> {
    if cgroup.is_none() && namespaces == 0 {
        // SAFETY: as said above.
        return Ok(Pid::from_raw(done(unsafe { libc::fork() })?));
    }
    // SAFETY: zeros are what this structure's fields mean nothing by.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = u64::from(namespaces.cast_unsigned());
    how.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    if let Some(cgroup) = cgroup {
        how.flags |= INTO_CGROUP;
        how.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the structure outlives the call and has the size that is said. Without a stack and
    // without shared memory this is a fork; that libc is not told of it matters only to calls that are
    // not async-signal-safe.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of::<libc::clone_args>()) };
    // The kernel's pids fit.
    done(libc::pid_t::try_from(pid).unwrap_or(-1)).map(Pid::from_raw)
}

/// Whether a process can be born in this cgroup: one is, and ends at once. A kernel before 5.7, a seccomp
/// filter or a cgroup of another user refuses it.
///
/// # Errors
/// Why not.
pub fn try_cgroup(cgroup: BorrowedFd<'_>) -> io::Result<()> {
    #[allow(unsafe_code)]
    // SAFETY: the child ends by a call that is async-signal-safe.
    let Some(child) = unsafe { fork(Some(cgroup), 0) }? else { unsafe { libc::_exit(0) } };
    process::reap(WaitId::Pid(child));
    Ok(())
}

/// Lowers a limit of this process permanently. Async-signal-safe: two system calls.
#[allow(unsafe_code)]
pub(crate) fn limit(what: libc::__rlimit_resource_t, most: libc::rlim_t) -> io::Result<()> {
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

/// What a call returned, or its error.
pub(crate) fn done(returned: libc::c_int) -> io::Result<libc::c_int> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// What `syscall` returned, or its error.
pub(crate) fn call(returned: libc::c_long) -> io::Result<()> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
