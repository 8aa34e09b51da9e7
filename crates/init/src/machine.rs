//! What the init does to the whole machine. A trait, so that the supervisor can be tested as an
//! ordinary process, which must not kill everything or set the clock.

use crate::console::say;
use rustix::process::Pid;
use rustix::thread::ClockId;
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
    /// How many processes the kernel has killed for lack of memory since the boot.
    fn out_of_memory_kills(&self) -> u64;
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

    fn out_of_memory_kills(&self) -> u64 {
        oom_kills(&std::fs::read_to_string("/proc/vmstat").unwrap_or_default())
    }
}

/// The kernel's own count, of the whole machine and of every memory cgroup within it.
fn oom_kills(vmstat: &str) -> u64 {
    let count = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_of_kills_for_lack_of_memory_is_read() {
        assert_eq!(oom_kills("pgfault 5\noom_kill 3\nnuma 1\n"), 3);
        assert_eq!(oom_kills("pgfault 5\n"), 0);
        let vmstat = std::fs::read_to_string("/proc/vmstat").expect("vmstat");
        assert!(vmstat.contains("\noom_kill "), "the name the kernel uses");
    }
}
