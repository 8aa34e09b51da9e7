//! What a script says happens, and happens where it says.

use hearth_fake_firecracker::{Does, Effect, Fake, Fault, On};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);
/// A hanging call gets no answer for at least this long.
const SILENCE: Duration = Duration::from_millis(200);

struct Stand {
    dir: tempfile::TempDir,
    fake: Fake,
}

fn stand(faults: &[Fault]) -> Stand {
    let dir = tempfile::tempdir().expect("a directory");
    let fake = Fake::new(dir.path());
    fake.script(faults);
    Stand { dir, fake }
}

struct Process {
    child: Child,
    socket: std::path::PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stand {
    fn start(&self, id: &str) -> Process {
        let mut command = Command::new(self.fake.binary());
        command.args(["--id", id, "--api-sock", id]).current_dir(self.dir.path());
        let child = command.stdout(Stdio::piped()).spawn().expect("a process");
        Process { child, socket: self.dir.path().join(id) }
    }
}

impl Process {
    fn connect(&self) -> UnixStream {
        let begin = Instant::now();
        loop {
            if let Ok(stream) = UnixStream::connect(&self.socket) {
                return stream;
            }
            assert!(begin.elapsed() < DEADLINE, "it does not listen");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What is said to a request within `patience`.
    fn ask(&self, request: &str, patience: Duration) -> String {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(patience)).expect("a deadline");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut said = vec![0; 4096];
        let count = stream.read(&mut said).unwrap_or(0);
        String::from_utf8_lossy(&said[..count]).into_owned()
    }

    fn state(&self) -> String {
        self.ask("GET / HTTP/1.1\r\n\r\n", DEADLINE)
    }

    fn memory(&self, patience: Duration) -> String {
        let body = r#"{"vcpu_count":2,"mem_size_mib":64}"#;
        let head = "PUT /machine-config HTTP/1.1\r\nContent-Length: 34\r\n\r\n";
        self.ask(&format!("{head}{body}"), patience)
    }

    fn has_memory(&self) -> bool {
        self.ask("GET /machine-config HTTP/1.1\r\n\r\n", DEADLINE).contains(r#""mem_size_mib":64"#)
    }

    fn ended(mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a wait") {
                return status;
            }
            assert!(begin.elapsed() < DEADLINE, "it does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

const CALL: &str = "PUT /machine-config";

#[test]
fn a_fault_is_of_the_processes_and_the_call_that_it_names() {
    let answer = Does::Answer { status: 500, message: "no".to_owned() };
    let call = On::Call { name: CALL.to_owned(), nth: 2, effect: Effect::Skipped };
    let stand = stand(&[Fault::new(call, answer).of([2])]);
    let first = stand.start("one");
    first.connect();
    let second = stand.start("two");
    for process in [&first, &second] {
        assert!(process.memory(DEADLINE).starts_with("HTTP/1.1 204 "));
    }
    assert!(first.memory(DEADLINE).starts_with("HTTP/1.1 204 "));
    let said = second.memory(DEADLINE);
    assert!(
        said.starts_with("HTTP/1.1 500 ") && said.ends_with(r#"{"fault_message":"no"}"#),
        "{said}"
    );
    assert!(second.memory(DEADLINE).starts_with("HTTP/1.1 204 "));
    assert_eq!(stand.fake.processes(), ["one", "two"]);
    let calls = stand.fake.calls();
    assert_eq!(calls.iter().filter(|call| call.process == 2 && call.name == CALL).count(), 3);
}

#[test]
fn an_effect_is_done_or_not_before_the_connection_is_lost() {
    for (on, done) in [(On::before(CALL), false), (On::after(CALL), true)] {
        let stand = stand(&[Fault::new(on, Does::Close)]);
        let process = stand.start("one");
        assert_eq!(process.memory(DEADLINE), "");
        assert_eq!(process.has_memory(), done);
    }
}

#[test]
fn hanging_process_answers_no_request() {
    let stand = stand(&[Fault::new(On::after(CALL), Does::Hang)]);
    let process = stand.start("one");
    assert!(process.state().contains("Not started"));
    assert_eq!(process.memory(SILENCE), "");
    assert_eq!(process.ask("GET / HTTP/1.1\r\n\r\n", SILENCE), "");
}

#[test]
fn a_process_is_slow_or_says_what_is_no_http() {
    let wait = u64::try_from(SILENCE.as_millis()).expect("a number");
    let garbage = Does::Garbage("\0\u{1b}[31mno".to_owned());
    let faults =
        [Fault::new(On::before(CALL), Does::Wait(wait)), Fault::new(On::before("GET /"), garbage)];
    let stand = stand(&faults);
    let process = stand.start("one");
    let begin = Instant::now();
    assert!(process.memory(DEADLINE).starts_with("HTTP/1.1 204 "));
    assert!(begin.elapsed() >= SILENCE);
    assert_eq!(process.state(), "\0\u{1b}[31mno");
}

#[test]
fn a_process_ends_by_code_and_by_signal() {
    let stand = stand(&[
        Fault::new(On::before(CALL), Does::Exit(7)).of([1]),
        Fault::new(On::after(CALL), Does::Signal(11)).of([2]),
        Fault::new(On::Launch, Does::Exit(3)).of([3]),
    ]);
    let [one, two] = ["one", "two"].map(|id| {
        let process = stand.start(id);
        process.connect();
        process
    });
    one.memory(DEADLINE);
    assert_eq!(one.ended().code(), Some(7));
    two.memory(DEADLINE);
    assert_eq!(two.ended().signal(), Some(11));
    assert_eq!(stand.start("three").ended().code(), Some(3));
}

#[test]
fn a_process_never_opens_its_socket_or_leaves_it_deaf() {
    let stand = stand(&[
        Fault::new(On::Launch, Does::Hang).of([1]),
        Fault::new(On::Launch, Does::Close).of([2]),
    ]);
    let hangs = stand.start("one");
    while stand.fake.processes().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let deaf = stand.start("two");
    while !deaf.socket.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(SILENCE);
    let refused = UnixStream::connect(&deaf.socket).expect_err("it has no listener");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(!Path::new(&hangs.socket).exists());
}

#[test]
fn a_flood_fills_the_console() {
    let flood = Does::Flood { text: "abc\n".to_owned(), bytes: 10_000 };
    let stand =
        stand(&[Fault::new(On::Launch, flood), Fault::new(On::before(CALL), Does::Exit(0))]);
    let mut process = stand.start("one");
    let mut stdout = process.child.stdout.take().expect("a pipe");
    process.connect();
    process.memory(DEADLINE);
    let mut said = Vec::new();
    stdout.read_to_end(&mut said).expect("it can be read");
    assert!(said.len() >= 10_000 && said.starts_with(b"abc\nabc\n"), "{}", said.len());
}
