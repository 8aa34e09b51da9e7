//! Daemons over real Firecracker with bare guests, and what they have on the host.

use super::{DEADLINE, Daemon, Home, at_rest, cgroups, names};
use hearth_firecracker::Workplace;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A state directory, and every microVM that runs from it.
pub(crate) struct Native {
    pub(crate) home: Home,
}

fn variable(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(name).unwrap_or_else(|| {
        panic!("{name} is not set: `cargo xtask ci native` sets it and runs this test")
    }))
}

/// The instances and pids of all processes that work in a directory of these.
pub(crate) fn processes(instances: &Path) -> Vec<(String, i32)> {
    // A daemon that was killed early has not made it.
    let Ok(instances) = instances.canonicalize() else { return Vec::new() };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        if let Some(name) = Workplace::of(pid).and_then(|place| place.name_in(&instances)) {
            found.push((name, pid));
        }
    }
    found.sort();
    found
}

impl Native {
    pub(crate) fn new() -> Native {
        Native { home: Home::new() }
    }

    /// A daemon that may hand out more than there is, since bare guests take next to nothing.
    pub(crate) fn serve(&self) -> Command {
        let mut command = self.home.hearth(["serve", "--listen", "127.0.0.1:0", "--host", "linux"]);
        command.arg("--state-dir").arg(self.home.path("state"));
        command.arg("--images").arg(variable("HEARTH_TEST_IMAGES"));
        command.arg("--firecracker").arg(variable("HEARTH_TEST_FIRECRACKER"));
        command.args(["--desired", "none.exs", "--vcpus-per-cpu", "4096"]);
        command.args(["--memory-reserve-mb", "0"]);
        command
    }

    pub(crate) fn start(&self) -> Daemon {
        Daemon::spawn(self.serve())
    }

    fn instances(&self) -> PathBuf {
        self.home.path("state/instances")
    }

    pub(crate) fn processes(&self) -> Vec<(String, i32)> {
        processes(&self.instances())
    }

    /// Host and database name the same instances, each with one process, in a cgroup of its own where
    /// there can be any.
    pub(crate) fn agrees(&self) -> Result<(), String> {
        let (named, directories) = (self.home.named(), names(&self.instances()));
        let (processes, cgroups) = (self.processes(), self.cgroups());
        let alive: BTreeSet<String> = processes.iter().map(|(id, _)| id.clone()).collect();
        let own: Vec<_> =
            processes.iter().map(|(id, pid)| (id.clone(), vec![pid.unsigned_abs()])).collect();
        if named == directories
            && named == alive
            && alive.len() == processes.len()
            && cgroups.as_ref().is_none_or(|cgroups| *cgroups == own)
        {
            return Ok(());
        }
        Err(format!(
            "database {named:?}, directories {directories:?}, processes {processes:?}, cgroups {cgroups:?}"
        ))
    }

    fn cgroups(&self) -> Option<Vec<(String, Vec<u32>)>> {
        cgroups::members(&self.home.path("state"))
    }

    /// Waits for rest, and compares.
    pub(crate) fn compare(&self, daemon: &Daemon) {
        let begin = Instant::now();
        loop {
            let (rest, agrees) = (at_rest(daemon), self.agrees());
            if rest && agrees.is_ok() {
                return;
            }
            if begin.elapsed() > DEADLINE {
                panic!("no rest: {agrees:?} {:#}", daemon.get("/stats").json());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Nothing is left of any instance.
    pub(crate) fn is_empty(&self) -> bool {
        names(&self.instances()).is_empty()
            && self.processes().is_empty()
            && self.cgroups().is_none_or(|cgroups| cgroups.is_empty())
            && self.home.named().is_empty()
            && names(&self.home.path("state/logs")).is_empty()
    }
}

impl Drop for Native {
    /// A test that fails leaves no microVM behind.
    fn drop(&mut self) {
        for (_, pid) in self.processes() {
            let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
