//! A process that outlives the command which started it: known by its id, its start time and the
//! boot of this machine, never by the id alone.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

pub(crate) use rustix::process::Signal;

/// One process, as it can be written down and found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its id on this machine.
    pub(crate) pid: i32,
    /// Its start, in clock ticks after the boot.
    start_ticks: u64,
    boot_id: String,
}

impl Process {
    /// The process that has this id now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid).context("the process id is out of range")?;
        let start_ticks = start_ticks(pid).with_context(|| format!("process {pid} is gone"))?;
        Ok(Self { pid, start_ticks, boot_id: boot_id() })
    }

    /// Whether it runs and is the process that was recorded.
    pub(crate) fn is_running(&self) -> bool {
        self.boot_id == boot_id() && start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Sends a signal to it and to no other process; none when it is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid).context("there is no process 0")?;
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(());
        };
        // Asked after it was opened: from here on the id can't come to mean another process.
        if self.is_running() {
            pidfd_send_signal(&process, signal)
                .with_context(|| format!("cannot signal process {}", self.pid))?;
        }
        Ok(())
    }

    /// Whether it ended within `grace`.
    pub(crate) fn ended_within(&self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        while self.is_running() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    /// Ends it by force.
    pub(crate) fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        if !self.ended_within(Duration::from_secs(10)) {
            bail!("process {} does not end", self.pid);
        }
        Ok(())
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Field 22 of `/proc/PID/stat`; `None` for a process that is gone or a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_id() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_running());
        assert!(!Process { start_ticks: own.start_ticks + 1, ..own.clone() }.is_running());
        assert!(!Process { boot_id: "another boot".to_owned(), ..own }.is_running());
    }

    #[test]
    fn a_signal_never_reaches_another_process_of_the_same_id() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        let earlier = Process { start_ticks: process.start_ticks - 1, ..process.clone() };
        earlier.kill().unwrap();
        assert!(process.is_running());
        process.signal(Signal::KILL).unwrap();
        assert!(process.ended_within(Duration::from_secs(10)));
        child.wait().unwrap();
    }
}
