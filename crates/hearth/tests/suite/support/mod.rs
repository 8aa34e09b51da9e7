//! A real `hearth serve --host sim` process, and a plain HTTP client for it.
#![allow(dead_code, reason = "each test binary uses a part of this")]

pub(crate) mod cgroups;
pub(crate) mod client;
pub(crate) mod native;
pub(crate) mod strace;

use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for anything: a busy machine is slow, a broken test should still end.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A directory for a daemon's state and its files, which outlives the daemon.
pub(crate) struct Home {
    directory: TempDir,
}

/// A running daemon; killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) url: String,
    /// What it says on stdout.
    stdout: BufReader<std::process::ChildStdout>,
}

/// A running daemon with a home of its own.
pub(crate) struct Sim {
    daemon: Daemon,
    pub(crate) home: Home,
}

/// Starts a daemon in a home of its own.
pub(crate) fn sim() -> Sim {
    let home = Home::new();
    Sim { daemon: home.start(&[]), home }
}

impl Deref for Sim {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl Sim {
    /// A command that talks to this daemon.
    pub(crate) fn hearth(&self, args: &[&str]) -> Command {
        let mut command = self.home.hearth(args);
        command.env("HEARTH_URL", &self.daemon.url);
        command
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Home {
    pub(crate) fn new() -> Home {
        Home { directory: TempDir::new().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file can be written");
        path
    }

    /// `hearth` with this home as its directory and none of the tester's settings.
    pub(crate) fn hearth<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("HEARTH_") || text.starts_with("FC_EX_CP_") {
                command.env_remove(name);
            }
        }
        command.env("HEARTH_CONFIG", "/dev/null");
        command.args(args).current_dir(self.directory.path()).stdin(Stdio::null());
        command
    }

    /// The command of a daemon with this home's state.
    pub(crate) fn serve(&self, more: &[&str]) -> Command {
        self.serve_at("127.0.0.1:0", more)
    }

    /// The same at another address.
    pub(crate) fn serve_at(&self, listen: &str, more: &[&str]) -> Command {
        let state = self.path("state");
        let mut command = self.hearth(["serve", "--host", "sim", "--listen", listen]);
        command.arg("--state-dir").arg(state).args(["--sim-boot-ms", "20"]).args(more);
        command
    }

    /// The instances that the database names.
    pub(crate) fn named(&self) -> BTreeSet<String> {
        self.ids("SELECT id FROM instances")
    }

    /// The jobs that the database names.
    pub(crate) fn declared(&self) -> BTreeSet<String> {
        self.ids("SELECT job_id FROM jobs")
    }

    fn ids(&self, query: &str) -> BTreeSet<String> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = rusqlite::Connection::open_with_flags(self.path("state/hearth.db"), flags)
            .expect("the database");
        let mut query = database.prepare(query).expect("a query");
        let ids = query.query_map([], |row| row.get(0)).expect("rows");
        ids.collect::<Result<_, _>>().expect("ids")
    }

    pub(crate) fn start(&self, more: &[&str]) -> Daemon {
        Daemon::spawn(self.serve(more))
    }
}

impl Daemon {
    pub(crate) fn spawn(command: Command) -> Daemon {
        let daemon = Daemon::try_spawn(command).expect("the daemon says where it listens");
        daemon.until("the daemon is ready", || daemon.get("/readyz").status == 200);
        daemon
    }

    /// A daemon that listens, and need not be ready; or how it ended before that.
    pub(crate) fn try_spawn(mut command: Command) -> Result<Daemon, ExitStatus> {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the daemon starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its output can be read");
        if line.is_empty() {
            return Err(child.wait().expect("it can be reaped"));
        }
        let url = line
            .strip_prefix("hearth: listening on ")
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_else(|| panic!("the daemon said {line:?}"))
            .to_owned();
        Ok(Daemon { child, url, stdout })
    }

    /// Waits until it is ready, and says how often it was asked. `None` where it ends before.
    pub(crate) fn ready(&self) -> Option<usize> {
        let begin = Instant::now();
        for asked in 1.. {
            let (status, _) = client::ask(&self.url, "GET", "/readyz", "")?;
            if status == 200 {
                return Some(asked);
            }
            assert!(begin.elapsed() < DEADLINE, "the daemon is not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(mut self) -> ExitStatus {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be reaped")
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be waited for")
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(begin.elapsed() < DEADLINE, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it has restarted in place, and continues with the address that it has now.
    pub(crate) fn restarted(&mut self) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("its output can be read");
        let url =
            line.strip_prefix("hearth: listening on ").and_then(|rest| rest.split(' ').next());
        self.url = url.unwrap_or_else(|| panic!("the daemon said {line:?}")).to_owned();
        self.until("the daemon is ready", || self.get("/readyz").status == 200);
    }

    /// SIGTERM, and what it said until it ended.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).expect("stdout can be read");
        (self.child.wait().expect("it can be reaped"), said)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, &["Content-Type: application/json"], body)
    }

    /// One request on a connection of its own. Headers given replace the usual ones.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut stream = self.connect();
        let authority = self.url.strip_prefix("http://").unwrap_or("localhost");
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            request += &format!("Host: {authority}\r\n");
        }
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        // The daemon may refuse and close before it has read a large body.
        let _ = stream.write_all(request.as_bytes());
        Answer::read(stream)
    }

    /// Sends this text on a connection of its own, and nothing more.
    pub(crate) fn send(&self, text: &str) -> Answer {
        let mut stream = self.connect();
        let _ = stream.write_all(text.as_bytes());
        Answer::read(stream)
    }

    /// A connection to it, over TCP or its Unix socket.
    pub(crate) fn connect(&self) -> Box<dyn Stream> {
        if let Some(path) = self.url.strip_prefix("unix://") {
            let stream = UnixStream::connect(path).expect("the daemon accepts");
            stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
            return Box::new(stream);
        }
        let authority = self.url.strip_prefix("http://").expect("an HTTP address");
        let stream = TcpStream::connect(authority).expect("the daemon accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        Box::new(stream)
    }

    /// The ids of all jobs, in their order.
    pub(crate) fn jobs(&self) -> Vec<String> {
        let items = self.get("/vms").json()["items"].as_array().expect("a list").clone();
        items.iter().map(|job| job["job_id"].as_str().expect("an id").to_owned()).collect()
    }

    /// How the desired-state file stands.
    pub(crate) fn desired_file(&self) -> Value {
        self.get("/stats").json()["desired_file"].clone()
    }

    /// Waits until a job has this status.
    pub(crate) fn until_job(&self, job: &str, status: &str) -> Value {
        let mut last = Value::Null;
        self.until(&format!("{job} is {status}"), || {
            last = self.get(&format!("/vms/{job}")).json();
            last["status"] == status
        });
        last
    }

    /// Waits until the pools hold so many warm instances.
    pub(crate) fn until_warm(&self, count: u64) {
        self.until(&format!("{count} instances are warm"), || {
            self.get("/stats").json()["summary"]["total_warm"] == count
        });
    }

    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < DEADLINE, "it never came to be that {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        cgroups::clear(&self.path("state"));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection.
pub(crate) trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

impl Answer {
    /// Everything until the daemon closes.
    fn read(mut stream: impl Read) -> Answer {
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        let text = String::from_utf8(text).expect("an answer in UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer { status: status.expect("a status"), head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Status, media type and pretty body, with what differs from run to run made equal.
    pub(crate) fn shown(&self) -> String {
        let media = self.header("content-type").unwrap_or("no body");
        let body = match serde_json::from_str::<Value>(&self.body) {
            Ok(json) => serde_json::to_string_pretty(&json).expect("JSON"),
            Err(_) => self.body.clone(),
        };
        settled(&format!("{} {media}\n{body}\n", self.status))
    }
}

/// The same command behind another, which becomes it.
pub(crate) fn behind(wrapper: &[&str], command: &Command) -> Command {
    let mut behind = Command::new(wrapper[0]);
    behind.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
    place_as(&mut behind, command);
    behind
}

/// Gives a command the environment and the directory of another.
pub(crate) fn place_as(command: &mut Command, other: &Command) {
    for (name, value) in other.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(directory) = other.get_current_dir() {
        command.current_dir(directory);
    }
}

/// Whether every job runs or stands still, and every warm instance is warm.
pub(crate) fn at_rest(daemon: &Daemon) -> bool {
    let stats = daemon.get("/stats").json();
    let all = |list: &str, allowed: &[&str]| {
        let list = stats[list].as_array().expect("a list");
        list.iter().all(|vm| allowed.contains(&vm["status"].as_str().unwrap_or_default()))
    };
    all("jobs", &["running", "stopped"]) && all("warm_pool", &["warm"])
}

/// The names in a directory.
pub(crate) fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A number from the environment; `all` is the largest.
pub(crate) fn number(name: &str, default: usize) -> usize {
    match std::env::var(name).as_deref() {
        Err(_) => default,
        Ok("all") => usize::MAX,
        Ok(text) => text.parse().expect("a number"),
    }
}

/// Runs a command that should end by itself; one that does not is killed and fails the test.
pub(crate) fn finished(mut command: Command) -> Output {
    let child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let pid = rustix::process::Pid::from_child(&child);
    let (sender, receiver) = std::sync::mpsc::channel();
    // It is read while it is waited for: a pipe holds 64 KiB.
    let reader = std::thread::spawn(move || {
        let output = child.wait_with_output().expect("its output");
        let _ = sender.send(());
        output
    });
    let ended = receiver.recv_timeout(DEADLINE).is_ok();
    if !ended {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a signal");
    }
    let output = reader.join().expect("its output");
    assert!(ended, "it did not end: {}", shown(&output));
    output
}

/// A finished command's exit code and output, with what differs from run to run made equal.
pub(crate) fn shown(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().map_or("none".to_owned(), |code| code.to_string());
    settled(&format!("exit code: {code}\n--- stdout\n{stdout}--- stderr\n{stderr}"))
}

/// Makes instance ids, made-up job ids and times equal, in their length.
fn settled(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let id = ["vm-", "warm-", "job-"].iter().find_map(|prefix| {
            let id = rest.strip_prefix(prefix)?.get(..10)?;
            let plain = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            plain.then_some(*prefix)
        });
        if let Some(prefix) = id {
            out += prefix;
            out += "xxxxxxxxxx";
            rest = &rest[prefix.len() + 10..];
        } else if is_time(rest) {
            out += "2026-01-01T00:00:00.000Z";
            rest = &rest[24..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

fn is_time(text: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00.000Z";
    text.as_bytes().get(..SHAPE.len()).is_some_and(|time| {
        time.iter().zip(SHAPE).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            shape => byte == shape,
        })
    })
}

/// A POST of this lifecycle.
pub(crate) fn body(job: &str, lifecycle: &str, more: &str) -> String {
    format!(
        r#"{{"job_id":"{job}","spec":{{"rootfs":"r.ext4","kernel":"vmlinux","cmd":["/app"],
        "resources":{{"vcpu":1,"mem_mb":128}},"lifecycle":"{lifecycle}"{more}}}}}"#
    )
}

/// The example of the desired-state file's documentation.
pub(crate) fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/desired_vms.exs")
}
