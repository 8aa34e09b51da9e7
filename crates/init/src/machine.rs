//! What the init does to the whole machine. A trait, so that the supervisor can be tested as an
//! ordinary process, which must not kill everything or set the clock.

use crate::clock::{Clock, SystemClock};
use crate::console::say;
use crate::kernel_log;
use crate::names::Names;
use crate::ring::Ring;
use hearth_guest::{CLOCK_STEP_OVER, Stream};
use rustix::process::Pid;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The longest host name that Linux takes, in bytes.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Effects on the machine.
pub(crate) trait Machine {
    /// Kills every process but the init; `main` is the command's.
    fn kill_everything(&self, main: Pid);
    /// Sets the wall clock if it is off.
    fn set_clock(&self, now_ns: u64);
    /// Sets the host name, in `/etc` too.
    fn set_hostname(&self, name: &str);
    /// The kernel's log, from its end on. It does not block.
    fn kernel_log(&self) -> std::io::Result<File>;
}

/// The microVM. To be used by PID 1 only.
pub(crate) struct MicroVm {
    ring: Arc<Ring>,
    /// Opened at the first host name, in the root of then.
    names: Mutex<Option<Names>>,
}

impl MicroVm {
    /// The machine; what it could not do is said in the ring.
    pub(crate) fn new(ring: Arc<Ring>) -> MicroVm {
        MicroVm { ring, names: Mutex::new(None) }
    }

    fn report(&self, problem: &str) {
        say(format_args!("{problem}"));
        self.ring.push(Stream::Init, format!("{problem}\n").as_bytes());
    }
}

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
        let ahead = i128::from(SystemClock.now_ns()) - i128::from(now_ns);
        // A command may have waited a little; a small difference says nothing.
        if ahead.unsigned_abs() > CLOCK_STEP_OVER.as_nanos() {
            SystemClock.correct(ahead.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64);
        }
    }

    fn set_hostname(&self, name: &str) {
        let name = &name[..name.len().min(HOSTNAME_BYTES_MAX)];
        if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
            say(format_args!("cannot set the host name: {error}"));
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.is_none() {
            match Names::open(Path::new("/")) {
                Ok(opened) => *names = Some(opened),
                Err(error) => self.report(&format!("cannot open the root directory: {error}")),
            }
        }
        for problem in names.as_mut().map(|names| names.set(name)).unwrap_or_default() {
            self.report(&problem);
        }
    }

    fn kernel_log(&self) -> std::io::Result<File> {
        kernel_log::open_device()
    }
}
