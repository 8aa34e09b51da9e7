//! A daemon under strace, which says what it asks of the system and can let it fail.

use super::{Daemon, place_as};
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
    place_as(&mut traced, command);
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

fn threads(daemon: &Daemon) -> Vec<PathBuf> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("the daemon runs");
    tasks.flatten().map(|task| task.path()).collect()
}

/// strace on a daemon that runs already; it lets go of it when this is dropped.
pub(crate) struct Attached {
    strace: Child,
    record: tempfile::NamedTempFile,
}

impl Attached {
    /// To all threads, and to those that come.
    pub(crate) fn to(daemon: &Daemon, options: &[&str]) -> Attached {
        let pid = daemon.pid().to_string();
        let attached = Attached::begin(&["-f", "-p", &pid], options);
        daemon.until("strace has all threads", || threads(daemon).iter().all(|t| attached.has(t)));
        attached
    }

    /// To the threads of this name alone.
    pub(crate) fn to_thread(daemon: &Daemon, name: &str, options: &[&str]) -> Attached {
        let called = |thread: &PathBuf| {
            std::fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let thread = threads(daemon).into_iter().find(called).expect("a thread of this name");
        let tid = thread.file_name().expect("an id").to_string_lossy().into_owned();
        let attached = Attached::begin(&["-p", &tid], options);
        daemon.until("strace has it", || attached.has(&thread));
        attached
    }

    fn begin(to: &[&str], options: &[&str]) -> Attached {
        let record = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new("strace");
        command.arg("-qq").args(to).arg("-o").arg(record.path()).args(options);
        let strace = command.stdin(Stdio::null()).spawn().expect("strace starts");
        Attached { strace, record }
    }

    fn has(&self, thread: &Path) -> bool {
        let tracer = format!("TracerPid:\t{}\n", self.strace.id());
        std::fs::read_to_string(thread.join("status")).is_ok_and(|status| status.contains(&tracer))
    }

    /// Lets go at once, also in the middle of something.
    pub(crate) fn kill(mut self) {
        self.strace.kill().expect("killed");
        self.strace.wait().expect("it has ended");
    }

    /// How many calls it has interfered with, once it is let go.
    pub(crate) fn interfered(mut self) -> usize {
        self.let_go();
        let record = std::fs::read(self.record.path()).expect("a record");
        let record = String::from_utf8_lossy(&record);
        record.lines().filter(|line| line.ends_with("(INJECTED)")).count()
    }

    /// Killed outright, it would leave what it is in the middle of.
    fn let_go(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.strace);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.strace.wait();
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            self.let_go();
        }
    }
}
