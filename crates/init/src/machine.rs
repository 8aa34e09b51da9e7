//! What the init does to the whole machine. A trait, so that the supervisor can be tested as an
//! ordinary process, which must not kill everything or set the clock.

use crate::console::say;
use crate::kernel_log;
use rustix::process::Pid;
use rustix::thread::ClockId;
use std::fs::File;
use std::time::{Duration, SystemTime};

/// A clock that is off by less than this is left alone: setting it would only make it jump.
const CLOCK_SLACK: Duration = Duration::from_millis(500);
/// The longest host name that Linux takes, in bytes.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Effects on the machine.
pub(crate) trait Machine {
    /// Kills every process but the init; `main` is the command's.
    fn kill_everything(&self, main: Pid);
    /// Sets the wall clock if it is off.
    fn set_clock(&self, now_ns: u64);
    /// Sets the host name.
    fn set_hostname(&self, name: &str);
    /// The kernel's log, from its end on. It does not block.
    fn kernel_log(&self) -> std::io::Result<File>;
}

/// The microVM. To be used by PID 1 only.
pub(crate) struct MicroVm;

impl Machine for MicroVm {
    /// By `kill(-1)`, which from PID 1 reaches every process of the machine in one step that no
    /// fork escapes; that is why there is no cgroup for it.
    #[allow(unsafe_code)]
    fn kill_everything(&self, _main: Pid) {
        assert_eq!(std::process::id(), 1, "only PID 1 may kill everything");
        // SAFETY: kill takes no pointer.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }

    fn set_clock(&self, now_ns: u64) {
        let now = Duration::from_nanos(now_ns);
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if now.abs_diff(here) <= CLOCK_SLACK {
            return;
        }
        let time = rustix::time::Timespec {
            tv_sec: now.as_secs() as i64,
            tv_nsec: i64::from(now.subsec_nanos()),
        };
        if let Err(error) = rustix::time::clock_settime(ClockId::Realtime, time) {
            say(format_args!("cannot set the clock: {error}"));
        }
    }

    fn set_hostname(&self, name: &str) {
        let name = &name.as_bytes()[..name.len().min(HOSTNAME_BYTES_MAX)];
        if let Err(error) = rustix::system::sethostname(name) {
            say(format_args!("cannot set the host name: {error}"));
        }
    }

    fn kernel_log(&self) -> std::io::Result<File> {
        kernel_log::open_device()
    }
}
