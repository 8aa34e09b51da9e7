//! A daemon under strace, which says what it asks of the system and can let it fail.

use super::Daemon;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// The same command under strace. What it says goes to `output`, which a FIFO may be: it has an end
/// once the daemon and strace are gone.
///
/// strace runs beside the daemon (`-D`), which so is the child of the test and can be killed by it.
pub(crate) fn traced(command: &Command, options: &[&str], output: &Path) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-D", "-f", "-qq", "-o"]).arg(output).args(options).arg("--");
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        traced.current_dir(directory);
    }
    traced.stdin(Stdio::null());
    traced
}

/// What strace says, read while it says it.
pub(crate) struct Record {
    fifo: PathBuf,
    reader: JoinHandle<String>,
}

impl Record {
    /// Makes a FIFO to be given to [`traced`], and reads from it.
    pub(crate) fn begin(fifo: PathBuf) -> Record {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).expect("a FIFO");
        let path = fifo.clone();
        let reader =
            std::thread::spawn(move || std::fs::read_to_string(path).expect("strace writes text"));
        Record { fifo, reader }
    }

    /// All of it, once the daemon and strace have ended.
    pub(crate) fn end(self) -> String {
        let text = self.reader.join().expect("it is read");
        std::fs::remove_file(self.fifo).expect("the FIFO can be removed");
        text
    }
}

/// strace on a daemon that runs already; it lets go of it when this is dropped.
pub(crate) struct Attached {
    strace: Child,
}

impl Attached {
    pub(crate) fn to(daemon: &Daemon, options: &[&str]) -> Attached {
        let pid = daemon.pid().to_string();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid]).args(options);
        let strace = command.stdin(Stdio::null()).spawn().expect("strace starts");
        let tracer = format!("TracerPid:\t{}\n", strace.id());
        daemon.until("strace has all threads", || {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
            tasks.flatten().all(|task| {
                std::fs::read_to_string(task.path().join("status"))
                    .is_ok_and(|status| status.contains(&tracer))
            })
        });
        Attached { strace }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Killed outright, it would leave what it is in the middle of.
        let pid = rustix::process::Pid::from_child(&self.strace);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.strace.wait();
    }
}
