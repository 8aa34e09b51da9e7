//! What goes wrong: a script that a test writes and each process reads once, at its start; and what the
//! processes tell of themselves.
//!
//! Everything lies in the directory of the name by which the process was started: `faults.json`,
//! `processes` (one line for each start) and `calls` (one line for each call).

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const BINARY: &str = "fake-firecracker";
const LINK: &str = "firecracker";
const FAULTS: &str = "faults.json";
const PROCESSES: &str = "processes";
const CALLS: &str = "calls";
/// The name that every call has.
const ANY: &str = "*";

/// One thing that goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// In which processes, counted from 1 in the order in which they started; none: in each.
    pub processes: Vec<u32>,
    /// When.
    pub on: On,
    /// What happens.
    pub does: Does,
}

/// When something goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum On {
    /// Before the API's socket is there.
    Launch,
    /// At a call.
    Call {
        /// `PUT /vsock`, `PUT /drives/config`, `GET /`; an action by its name, `InstanceStart`; a command
        /// to the guest's init as `guest identity`, `guest stop` or `guest clock`, and `guest connect` for a connection
        /// to it; `*` for all.
        name: String,
        /// Which such call of the process, counted from 1; 0 for each.
        nth: u32,
        /// Whether what was asked for is done first.
        effect: Effect,
    },
    /// So many milliseconds after the guest was started.
    Boot {
        /// Milliseconds.
        after_ms: u64,
    },
}

/// Whether what was asked for is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Nothing is done.
    Skipped,
    /// It is done before the fault.
    Done,
}

/// What goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Does {
    /// Nothing else; if the effect was skipped, success is reported nevertheless.
    Nothing,
    /// Nothing more happens, nor does any other call get an answer. The guest runs on.
    Hang,
    /// Waits for so many milliseconds, then continues normally.
    Wait(u64),
    /// The process exits with this code.
    Exit(i32),
    /// The process ends by this signal.
    Signal(i32),
    /// The connection is closed without an answer; a launch makes a socket without a listener.
    Close,
    /// This is answered.
    Answer {
        /// The HTTP status.
        status: u16,
        /// Its `fault_message`.
        message: String,
    },
    /// These bytes are sent instead of HTTP.
    Garbage(String),
    /// So many bytes of this text go to the console and the log, as fast as they take them.
    Flood {
        /// The text, repeated.
        text: String,
        /// Bytes in all.
        bytes: usize,
    },
}

/// A call that a process has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which process, from 1.
    pub process: u32,
    /// Its name, as in [`On::Call`].
    pub name: String,
    /// How many connections were open then, its own included.
    pub open: usize,
}

/// A fake Firecracker of a test's own.
#[derive(Clone, Debug)]
pub struct Fake {
    dir: PathBuf,
}

impl Fault {
    /// In each process.
    #[must_use]
    pub fn new(on: On, does: Does) -> Fault {
        Fault { processes: Vec::new(), on, does }
    }

    /// In these processes only.
    #[must_use]
    pub fn of(mut self, processes: impl IntoIterator<Item = u32>) -> Fault {
        self.processes = processes.into_iter().collect();
        self
    }
}

impl On {
    /// The first call of this name, before its effect.
    #[must_use]
    pub fn before(name: &str) -> On {
        On::Call { name: name.to_owned(), nth: 1, effect: Effect::Skipped }
    }

    /// The first call of this name, after its effect.
    #[must_use]
    pub fn after(name: &str) -> On {
        On::Call { name: name.to_owned(), nth: 1, effect: Effect::Done }
    }
}

impl Fake {
    /// One with its script and its records in `dir`, which exists and is empty.
    ///
    /// # Panics
    /// Where the binary has not been built.
    #[must_use]
    pub fn new(dir: &Path) -> Fake {
        let test = std::env::current_exe().expect("the path of this test");
        let beside = test.ancestors().skip(1).take(2).map(|dir| dir.join(BINARY));
        let binary = beside.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
            panic!(
                "{BINARY} is not beside {}: `cargo build -p hearth-fake-firecracker` makes it, and so \
                 does a `cargo nextest run` with `-p hearth-fake-firecracker` among its packages",
                test.display()
            )
        });
        // By a name of its own, since the name says where the script is.
        std::os::unix::fs::symlink(binary, dir.join(LINK)).expect("a link");
        Fake { dir: dir.to_owned() }
    }

    /// What to start.
    #[must_use]
    pub fn binary(&self) -> PathBuf {
        self.dir.join(LINK)
    }

    /// What goes wrong in the processes that start from now on.
    ///
    /// # Panics
    /// Where it can't be written.
    pub fn script(&self, faults: &[Fault]) {
        let new = self.dir.join("faults.new");
        let json = serde_json::to_vec(faults).expect("JSON");
        std::fs::write(&new, json).expect("a script");
        std::fs::rename(new, self.dir.join(FAULTS)).expect("a script");
    }

    /// The ids of all processes in the order in which they started.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        self.lines(PROCESSES)
    }

    /// The calls that all processes have taken.
    ///
    /// # Panics
    /// Where a line was not written by the fake.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        let call = |line: String| {
            let mut words = line.splitn(3, ' ');
            let process = words.next()?.parse().ok()?;
            let open = words.next()?.parse().ok()?;
            Some(Call { process, open, name: words.next()?.to_owned() })
        };
        self.lines(CALLS).into_iter().map(|line| call(line).expect("a call")).collect()
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// The script as one process has it.
#[derive(Debug)]
pub(crate) struct Script {
    dir: PathBuf,
    /// Which process this is, counted from 1.
    process: u32,
    faults: Vec<Fault>,
    /// How often each call was made.
    counts: std::collections::BTreeMap<String, u32>,
}

impl Script {
    /// Reads the script beside the name by which this process was started.
    pub(crate) fn read(id: &str) -> io::Result<Script> {
        let name = std::env::args_os().next().unwrap_or_default();
        let dir = Path::new(&name).parent().unwrap_or(Path::new(".")).to_owned();
        let process = enter(&dir.join(PROCESSES), id)?;
        let faults: Vec<Fault> = match std::fs::read(dir.join(FAULTS)) {
            Ok(json) => serde_json::from_slice(&json)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let here = |fault: &Fault| fault.processes.is_empty() || fault.processes.contains(&process);
        let faults = faults.into_iter().filter(here).collect();
        Ok(Script { dir, process, faults, counts: Default::default() })
    }

    pub(crate) fn at_launch(&self) -> Option<Does> {
        self.find(|on| matches!(on, On::Launch))
    }

    /// What goes wrong in the time after the boot.
    pub(crate) fn after_boot(&self) -> Vec<(u64, Does)> {
        let timed = self.faults.iter().filter_map(|fault| match fault.on {
            On::Boot { after_ms } => Some((after_ms, fault.does.clone())),
            _ => None,
        });
        timed.collect()
    }

    /// Notes a call; says what goes wrong with it.
    pub(crate) fn at_call(&mut self, called: &str, open: usize) -> Option<(Effect, Does)> {
        let line = format!("{} {open} {called}\n", self.process);
        // A record that can't be written is one that a test will miss.
        let _ = append(&self.dir.join(CALLS)).and_then(|mut file| file.write_all(line.as_bytes()));
        for name in [called, ANY] {
            *self.counts.entry(name.to_owned()).or_default() += 1;
        }
        self.faults.iter().find_map(|fault| match &fault.on {
            On::Call { name, nth, effect } => {
                let matches = name == called || name == ANY;
                let due = *nth == 0 || self.counts.get(name) == Some(nth);
                (matches && due).then(|| (*effect, fault.does.clone()))
            }
            _ => None,
        })
    }

    fn find(&self, on: impl Fn(&On) -> bool) -> Option<Does> {
        self.faults.iter().find(|fault| on(&fault.on)).map(|fault| fault.does.clone())
    }
}

/// Enters this process in the list; returns its number.
fn enter(path: &Path, id: &str) -> io::Result<u32> {
    let mut file = append(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    writeln!(file, "{id}")?;
    let lines = std::fs::read_to_string(path)?.lines().count();
    u32::try_from(lines).map_err(io::Error::other)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
