//! The supervisor against real children, as an ordinary process.

use super::*;
use crate::child::shared_reaper;
use crate::clock::Clock;
use crate::control;
use crate::serve::Conn;
use hearth_guest::{Delivery, LateWorkload, Message, Ready};
use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A machine that kills the command's group only, and notes what it was told.
#[derive(Clone, Default)]
struct Fake {
    clock_ns: Arc<Mutex<Vec<u64>>>,
    hostname: Arc<Mutex<Vec<String>>>,
    kernel_log: Arc<Mutex<Option<File>>>,
}

impl Machine for Fake {
    fn kill_everything(&self, main: Pid) {
        let _ = rustix::process::kill_process_group(main, Signal::KILL);
    }

    fn set_clock(&self, now_ns: u64) {
        self.clock_ns.lock().expect("lock").push(now_ns);
    }

    fn set_hostname(&self, name: &str) {
        self.hostname.lock().expect("lock").push(name.to_owned());
    }

    fn kernel_log(&self) -> std::io::Result<File> {
        // As the device does, it keeps records apart.
        let flags = PipeFlags::DIRECT | PipeFlags::NONBLOCK | PipeFlags::CLOEXEC;
        let (reader, writer) = rustix::pipe::pipe_with(flags)?;
        *self.kernel_log.lock().expect("lock") = Some(File::from(writer));
        Ok(File::from(reader))
    }
}

impl Fake {
    /// Logs that the kernel has killed a process for lack of memory.
    fn log_oom_kill(&self, pid: u32, name: &str) {
        let record = format!(
            "3,425,3046865681,-;Memory cgroup out of memory: Killed process {pid} ({name}) \
             total-vm:22408kB, anon-rss:20224kB, UID:0 pgtables:80kB oom_score_adj:0\n"
        );
        let log = self.kernel_log.lock().expect("lock");
        log.as_ref().expect("it is open").write_all(record.as_bytes()).expect("written");
    }
}

struct Guest {
    board: Arc<Board>,
    ring: Arc<Ring>,
    events: SyncSender<Event>,
    machine: Fake,
    dir: tempfile::TempDir,
    run: JoinHandle<Exit>,
}

fn workload(script: &str) -> Workload {
    Workload {
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())]),
        ready: None,
    }
}

fn config(script: &str) -> Config {
    running(workload(script))
}

fn running(workload: Workload) -> Config {
    Config {
        instance: "abc".to_owned(),
        rootfs: "web.ext4".to_owned(),
        rootfs_digest: None,
        stage: Stage::App,
        workload: Delivery::Inline(workload),
        stop_signal: 15,
        stop_timeout_s: 60,
        identity: None,
    }
}

/// Held, with a workload that comes late.
fn late() -> Config {
    Config { stage: Stage::Init, workload: Delivery::LATE, ..config("") }
}

fn deliver(generation: u64, workload: Workload) -> Event {
    Event::Command(Command::Workload { generation, workload })
}

fn identity(generation: u64) -> Identity {
    Identity {
        job_id: "web".to_owned(),
        tenant: "prod".to_owned(),
        generation,
        vm_id: "vm-abc".to_owned(),
    }
}

fn go(generation: u64) -> Event {
    let identity = identity(generation);
    Event::Command(Command::Identity { identity, go: true, clock_ns: 5 })
}

fn stop(timeout_s: u32) -> Event {
    Event::Command(Command::Stop { timeout_s, signal: 15 })
}

fn start(config: Config) -> Result<Guest, Ending> {
    let dir = tempfile::tempdir().expect("tempdir");
    let ring = Arc::new(Ring::new(10_000));
    let machine = Fake::default();
    let (run_dir, reaper) = (dir.path().to_owned(), shared_reaper());
    let mut supervisor =
        Supervisor::new(config, machine.clone(), run_dir, reaper, Arc::clone(&ring));
    supervisor.begin()?;
    let (board, events) = (supervisor.board(), supervisor.sender());
    let run = std::thread::spawn(move || supervisor.run());
    Ok(Guest { board, ring, events, machine, dir, run })
}

impl Guest {
    fn send(&self, event: Event) {
        self.events.send(event).expect("the supervisor lives");
    }

    /// Waits for a report that is as wanted.
    fn until(&self, wanted: impl Fn(&hearth_guest::Report) -> bool) {
        let here = AtomicBool::new(false);
        let mut seen = 0;
        loop {
            let (version, report) = self.board.newer(seen, &here).expect("a report");
            if wanted(&report) {
                return;
            }
            seen = version;
        }
    }

    fn until_output(&self, wanted: &str) {
        while !self.output().contains(wanted) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn output(&self) -> String {
        String::from_utf8(self.ring.tail(10_000)).expect("text")
    }

    fn identity_file(&self) -> Option<Identity> {
        let content = std::fs::read(self.dir.path().join("identity.json")).ok()?;
        Some(serde_json::from_slice(&content).expect("JSON"))
    }

    fn end(self) -> (Exit, String) {
        let exit = self.run.join().expect("the supervisor");
        let output = String::from_utf8(self.ring.tail(10_000)).expect("text");
        (exit, output)
    }
}

#[test]
fn exit_code_output_and_environment_of_a_command_are_right() {
    let guest = start(config("echo $COLOUR $HOME $PATH; pwd; cat; echo oops >&2; exit 7"));
    let (exit, output) = guest.expect("started").end();
    assert_eq!(exit.ending, Ending::Code(7));
    assert!(!exit.stop_requested);
    assert!(output.contains(&format!("blue /root {}\n/\n", program::DEFAULT_PATH)), "{output}");
    assert!(output.contains("oops\n"));
}

#[test]
fn a_command_that_cannot_be_started_says_why() {
    let mut missing = workload("");
    missing.cmd = vec!["/app/bin/server".to_owned()];
    let text = "/app/bin/server: not found in web.ext4".to_owned();
    assert_eq!(start(running(missing)).err(), Some(Ending::NotStarted(text)));
    let mut empty = workload("");
    empty.cmd.clear();
    assert_eq!(
        start(running(empty)).err(),
        Some(Ending::NotStarted("the command is empty".to_owned()))
    );
}

#[test]
fn a_held_command_starts_at_the_word_and_once_only() {
    let mut held = config("echo started; sleep 600");
    held.stage = Stage::Init;
    let guest = start(held).expect("held");
    assert_eq!(guest.board.report().phase, Phase::Held);
    let silent = Command::Identity { identity: identity(3), go: false, clock_ns: 9 };
    guest.send(Event::Command(silent));
    guest.until(|report| report.identity == Some(identity(3)));
    assert_eq!(guest.board.report().phase, Phase::Held);
    guest.send(go(3));
    guest.send(go(3));
    guest.until(|report| report.phase == Phase::Running && report.ready);
    guest.until_output("started");
    guest.send(stop(60));
    let machine = guest.machine.clone();
    let (exit, output) = guest.end();
    assert_eq!((exit.ending, exit.stop_requested), (Ending::Signal(15), true));
    assert_eq!(output, "started\n");
    assert_eq!(*machine.clock_ns.lock().expect("lock"), [9, 5, 5]);
    assert_eq!(*machine.hostname.lock().expect("lock"), ["abc", "web"]);
}

#[test]
fn older_generation_or_another_job_changes_nothing() {
    let mut held = config("exit 0");
    held.stage = Stage::Init;
    held.identity = Some(identity(5));
    let guest = start(held).expect("held");
    assert_eq!(guest.identity_file(), Some(identity(5)));
    guest.send(go(4));
    let other = Identity { job_id: "other".to_owned(), ..identity(9) };
    guest.send(Event::Command(Command::Identity { identity: other, go: true, clock_ns: 1 }));
    guest.send(Event::Command(Command::Identity { identity: identity(6), go: false, clock_ns: 1 }));
    guest.until(|report| report.identity == Some(identity(6)));
    assert_eq!(guest.board.report().phase, Phase::Held);
    assert_eq!(guest.identity_file(), Some(identity(6)));
    guest.send(go(6));
    assert_eq!(guest.end().0.ending, Ending::Code(0));
}

#[test]
fn a_repeated_identity_is_acknowledged_by_a_report() {
    let mut held = config("exit 0");
    held.stage = Stage::Init;
    held.identity = Some(identity(5));
    let guest = start(held).expect("held");
    let here = AtomicBool::new(false);
    let (version, _) = guest.board.newer(0, &here).expect("a report");
    guest.send(Event::Command(Command::Identity { identity: identity(5), go: false, clock_ns: 1 }));
    assert!(guest.board.newer(version, &here).is_some());
    guest.send(go(5));
    assert_eq!(guest.end().0.ending, Ending::Code(0));
}

#[test]
fn held_command_ends_at_once_as_by_its_stop_signal() {
    let mut held = config("exit 0");
    held.stage = Stage::Init;
    let guest = start(held).expect("held");
    guest.send(Event::Command(Command::Stop { timeout_s: 60, signal: 2 }));
    let (exit, _) = guest.end();
    assert_eq!((exit.ending, exit.stop_requested), (Ending::Signal(2), true));
}

#[test]
fn a_stop_lets_the_command_end_by_itself() {
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done 2>/dev/null";
    let guest = start(config(script)).expect("started");
    guest.until_output("up");
    guest.send(stop(60));
    let (exit, output) = guest.end();
    assert_eq!((exit.ending, exit.stop_requested), (Ending::Code(3), true));
    assert!(output.contains("bye\n"), "{output}");
}

#[test]
fn command_that_ignores_its_stop_is_killed_at_the_deadline() {
    let script = "trap '' TERM; echo up; while :; do sleep 0.01; done";
    let guest = start(config(script)).expect("started");
    guest.until_output("up");
    guest.send(stop(3600));
    guest.until(|report| report.phase == Phase::Stopping);
    // A second, more impatient word counts.
    guest.send(stop(1));
    let (exit, _) = guest.end();
    assert_eq!((exit.ending, exit.stop_requested), (Ending::Signal(9), true));
}

#[test]
fn ctrl_alt_del_is_a_stop_with_the_time_of_the_config() {
    let mut config = config("trap '' TERM; echo up; while :; do sleep 0.01; done");
    config.stop_timeout_s = 0;
    let guest = start(config).expect("started");
    guest.until_output("up");
    guest.send(Event::CtrlAltDel);
    let (exit, _) = guest.end();
    assert_eq!((exit.ending, exit.stop_requested), (Ending::Signal(9), true));
}

#[test]
fn stop_sends_the_signal_of_the_host_to_the_command_alone() {
    // Of two pending signals a shell takes the one with the lower number first.
    let worker = "trap 'echo terminated' USR1 TERM; trap 'echo drained; exit' WINCH; echo up; \
                  while :; do sleep 0.01; done 2>/dev/null";
    let script = format!("trap 'kill -WINCH $!' USR1; sh -c \"{worker}\" & wait; wait; exit 4");
    let guest = start(config(&script)).expect("started");
    guest.until_output("up");
    guest.send(Event::Command(Command::Stop { timeout_s: 60, signal: 10 }));
    let (exit, output) = guest.end();
    assert_eq!((exit.ending, exit.stop_requested), (Ending::Code(4), true));
    assert_eq!(output, "up\ndrained\n");
}

#[test]
fn ctrl_alt_del_sends_the_stop_signal_of_the_config() {
    let mut config = config("echo up; exec sleep 600");
    config.stop_signal = 37;
    let guest = start(config).expect("started");
    guest.until_output("up");
    guest.send(Event::CtrlAltDel);
    let (exit, _) = guest.end();
    assert_eq!((exit.ending, exit.stop_requested), (Ending::Signal(37), true));
}

#[test]
fn oom_kill_of_a_child_is_reported_and_changes_no_exit() {
    let script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done 2>/dev/null";
    let guest = start(config(script)).expect("started");
    guest.until_output("up");
    guest.machine.log_oom_kill(4_000_001, "tail");
    guest.machine.log_oom_kill(4_000_002, "sort");
    guest.until(|report| report.oom_kills.count == 2);
    let kill = OomKill { pid: 4_000_002, name: "sort".to_owned() };
    assert_eq!(guest.board.report().oom_kills.last[1], kill);
    guest.send(stop(60));
    let (exit, _) = guest.end();
    assert_eq!((exit.ending, exit.out_of_memory), (Ending::Code(3), false));
    assert_eq!(exit.oom_kills.map(|kills| kills.count), Some(2));
}

#[test]
fn command_is_out_of_memory_only_if_the_log_names_it() {
    let killed = |logged: fn(u32) -> u32| {
        let guest = start(config("echo $$; exec sleep 600")).expect("started");
        guest.until_output("\n");
        let pid: u32 = guest.output().trim().parse().expect("a pid");
        guest.machine.log_oom_kill(logged(pid), "sleep");
        let main = Pid::from_raw(pid.cast_signed()).expect("a pid");
        rustix::process::kill_process(main, Signal::KILL).expect("killed");
        let exit = guest.end().0;
        assert_eq!(exit.ending, Ending::Signal(9));
        (exit.out_of_memory, exit.oom_kills.map(|kills| kills.count))
    };
    assert_eq!(killed(|pid| pid), (true, Some(0)));
    assert_eq!(killed(|pid| pid + 1_000_000), (false, Some(1)));
}

#[test]
fn remaining_processes_are_killed_and_do_not_delay_the_exit() {
    let began = Instant::now();
    let guest = start(config("sleep 600 & echo $!; exit 0")).expect("started");
    let (exit, output) = guest.end();
    assert_eq!(exit.ending, Ending::Code(0));
    let left = Pid::from_raw(output.trim().parse().expect("a pid")).expect("a pid");
    // Its parent is gone, so its new parent reaps it; until then it is a zombie at most.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", left.as_raw_nonzero()));
    assert!(stat.map_or(true, |stat| stat.contains(") Z ")), "still running");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_tcp_check_makes_a_command_ready_and_says_why_not_before() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    drop(listener);
    let mut workload = workload("sleep 600");
    workload.ready = Some(Ready { check: ReadyCheck::Tcp { port } });
    let guest = start(running(workload)).expect("started");
    guest.until(|report| report.ready_detail.as_ref().is_some_and(|why| why.contains("refused")));
    assert!(!guest.board.report().ready);
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("bind");
    guest.until(|report| report.ready && report.ready_detail.is_none());
    drop(listener);
    guest.send(stop(60));
    guest.end();
}

#[test]
fn readiness_is_notified_through_the_socket_of_the_environment() {
    let mut workload = workload("echo $HEARTH_NOTIFY; sleep 600");
    workload.ready = Some(Ready { check: ReadyCheck::Notify });
    let guest = start(running(workload)).expect("started");
    guest.until_output("\n");
    assert!(!guest.board.report().ready);
    let mut app = std::os::unix::net::UnixStream::connect(guest.output().trim()).expect("connect");
    std::io::Write::write_all(&mut app, b"ready\n").expect("write");
    guest.until(|report| report.ready);
    guest.send(stop(60));
    guest.end();
}

struct FakeClock(AtomicU64);

impl Clock for FakeClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn correct(&self, ahead_ns: i64) {
        self.0.fetch_add(ahead_ns.unsigned_abs(), Ordering::AcqRel);
    }
}

/// A control stream to a guest; the connection ends with the guest.
fn control_stream(guest: &Guest) -> BufReader<UnixStream> {
    let (host, conn) = UnixStream::pair().expect("pair");
    let (board, events) = (Arc::clone(&guest.board), guest.events.clone());
    let clock = FakeClock(AtomicU64::new(1000));
    std::thread::spawn(move || {
        control::serve(Conn::new(conn.into()), &board, &events, &clock);
    });
    BufReader::new(host)
}

#[test]
fn transcript_of_protocol_1_is_answered_alike() {
    let held = Config { stage: Stage::Init, ..config("trap 'exit 0' TERM; sleep 60 & wait") };
    let guest = start(held).expect("held");
    let mut host = control_stream(&guest);
    for line in include_str!("../../guest/tests/protocol-1.txt").lines() {
        if let Some(said) = line.strip_prefix("> ") {
            host.get_mut().write_all(format!("{said}\n").as_bytes()).expect("written");
        } else if let Some(expected) = line.strip_prefix("< ") {
            // A report is the whole state: states in between may be said or not.
            let mut said = String::new();
            while said.trim_end() != expected {
                said.clear();
                let read = host.read_line(&mut said).expect("a report");
                assert!(read > 0, "the stream ended before {expected}");
                let report = serde_json::from_str::<hearth_guest::Report>(&said);
                assert!(report.is_ok(), "protocol 1 has no such line: {said}");
            }
        }
    }
    assert!(guest.end().0.stop_requested);
}

fn generation(report: &hearth_guest::Report) -> Option<u64> {
    report.workload.as_ref().expect("it is late").generation
}

#[test]
fn late_workload_starts_only_with_its_identity() {
    let guest = start(late()).expect("held");
    assert_eq!(guest.board.report().workload, Some(LateWorkload::default()));
    // A host of before late workloads sends the identity alone: it is not acknowledged.
    let here = AtomicBool::new(false);
    let (version, _) = guest.board.newer(0, &here).expect("a report");
    guest.send(go(3));
    let (_, report) = guest.board.newer(version, &here).expect("a report");
    assert_eq!((report.phase, report.identity), (Phase::Held, None));
    guest.send(deliver(3, workload("echo $COLOUR; sleep 600")));
    guest.until(|report| generation(report) == Some(3));
    assert_eq!(guest.board.report().phase, Phase::Held);
    guest.send(go(3));
    guest.until_output("blue\n");
    // Delivered again: it is acknowledged, and nothing is started again.
    guest.send(deliver(3, workload("echo $COLOUR; sleep 600")));
    guest.send(go(3));
    guest.send(stop(60));
    let (exit, output) = guest.end();
    assert_eq!((exit.ending, exit.stop_requested), (Ending::Signal(15), true));
    assert_eq!(output, "blue\n");
}

#[test]
fn second_workload_is_refused_and_the_first_one_runs() {
    let guest = start(late()).expect("held");
    guest.send(deliver(3, workload("exit 7")));
    guest.send(deliver(3, workload("exit 8")));
    let refused = |report: &hearth_guest::Report| report.workload.clone()?.refused;
    guest.until(|report| refused(report).is_some_and(|it| it.reason.contains("another")));
    guest.send(deliver(4, workload("exit 7")));
    guest.until(|report| refused(report).is_some_and(|it| it.reason.contains("generation 3")));
    assert_eq!(generation(&guest.board.report()), Some(3));
    // An identity that follows what was refused is not for what the guest has.
    guest.send(go(4));
    guest.send(deliver(3, workload("exit 7")));
    guest.until(|report| refused(report).is_none());
    assert_eq!(guest.board.report().identity, None);
    guest.send(go(3));
    assert_eq!(guest.end().0.ending, Ending::Code(7));
}

#[test]
fn guest_without_its_workload_is_stopped_at_once() {
    let guest = start(late()).expect("held");
    guest.send(Event::CtrlAltDel);
    assert_eq!(guest.end().0.ending, Ending::Signal(15));
    let guest = start(late()).expect("held");
    guest.send(Event::Command(Command::Stop { timeout_s: 60, signal: 2 }));
    assert_eq!(guest.end().0.ending, Ending::Signal(2));
}

#[test]
fn late_workload_that_cannot_be_started_ends_the_guest() {
    let guest = start(Config { stage: Stage::App, ..late() }).expect("held");
    let mut missing = workload("");
    missing.cmd = vec!["/app/bin/server".to_owned()];
    guest.send(deliver(3, missing));
    let text = "/app/bin/server: not found in web.ext4".to_owned();
    assert_eq!(guest.end().0.ending, Ending::NotStarted(text));
}

#[test]
fn long_workload_is_taken_from_a_control_stream_after_garbage() {
    let guest = start(late()).expect("held");
    // The stream that brings garbage, or breaks in the middle, ends; the next one is as good as new.
    for broken in ["\0\x1b[31m\n", "{\"do\":\"workload\",\"generation\":3,"] {
        let mut host = control_stream(&guest);
        host.get_mut().write_all(broken.as_bytes()).expect("written");
        host.get_mut().shutdown(std::net::Shutdown::Write).expect("ended");
        assert!(host.lines().all(|line| line.is_ok_and(|line| line.contains("\"workload\":{}"))));
    }
    let mut long = workload("echo ${#LONG}; exit 0");
    long.env.insert("LONG".to_owned(), "x".repeat(100_000));
    let mut host = control_stream(&guest);
    let mut line = serde_json::to_vec(&Command::Workload { generation: 3, workload: long });
    line.as_mut().expect("JSON").push(b'\n');
    host.get_mut().write_all(&line.expect("JSON")).expect("written");
    let unknown = b"{\"do\":\"workload\",\"generation\":\"three\"}\n";
    host.get_mut().write_all(unknown).expect("written");
    let mut said = String::new();
    let (mut taken, mut unsupported) = (false, false);
    while !(taken && unsupported) {
        said.clear();
        assert!(host.read_line(&mut said).expect("a message") > 0, "the stream ended");
        match serde_json::from_str(&said).expect("a message") {
            Message::Report(report) => taken |= generation(&report) == Some(3),
            Message::Unsupported { unsupported: name } => unsupported |= name == "workload",
            Message::Hello { .. } => {}
        }
    }
    guest.send(go(3));
    let (exit, output) = guest.end();
    assert_eq!((exit.ending, output.as_str()), (Ending::Code(0), "100000\n"));
}
