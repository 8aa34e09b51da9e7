//! The control stream: commands in, messages out, one JSON line each. It decides nothing: commands
//! go to the supervisor, reports come from the board. Hello and unknown commands are answered here, on
//! the stream that they came by; a question for the clock too, since an answer that waits for something
//! else says little.

use crate::board::Board;
use crate::clock::Clock;
use crate::serve::{Conn, STACK_BYTES};
use crate::supervisor::Event;
use hearth_guest::{COMMAND_LINE_BYTES_MAX, ClockReading, Command, Hello, Message, Phase};
use rustix::net::Shutdown;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

/// Most control streams at a time: a daemon has one, one more while it is replaced, and a few for
/// connections whose end has not shown yet.
pub(crate) const CONTROL_STREAMS_MAX: usize = 8;

/// Characters of an unknown command's name that are answered: any real name is shorter.
const UNKNOWN_CHARS_MAX: usize = 64;

/// Serves one connection until it ends, or until the report that the command has ended is sent.
pub(crate) fn serve(
    conn: Conn,
    board: &Board,
    events: &SyncSender<Event>,
    clock: &(impl Clock + Sync),
) {
    let gone = AtomicBool::new(false);
    let writer = Writer(Mutex::new(&conn));
    std::thread::scope(|scope| {
        let read = || {
            read_commands(&conn, &writer, board, events, clock);
            gone.store(true, Ordering::Release);
            board.wake();
        };
        let reader = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, read);
        if reader.is_ok() {
            write_reports(&writer, board, &gone);
        }
        conn.shutdown(Shutdown::Read);
    });
    conn.finish();
}

/// Writes whole lines, for both threads of a connection.
struct Writer<'a>(Mutex<&'a Conn>);

impl Writer<'_> {
    fn write(&self, message: &Message) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }
}

/// What a line is that may be a command.
enum Line {
    Command(Command),
    /// A command of a later version, by its name.
    Unknown(String),
    Malformed,
}

impl Line {
    fn parse(line: &[u8]) -> Line {
        if let Ok(command) = serde_json::from_slice(line) {
            return Line::Command(command);
        }
        let named = serde_json::from_slice::<serde_json::Value>(line).unwrap_or_default();
        match named.get("do").and_then(serde_json::Value::as_str) {
            Some(name) => Line::Unknown(name.chars().take(UNKNOWN_CHARS_MAX).collect()),
            None => Line::Malformed,
        }
    }
}

/// Reads until the peer ends the connection or says something that is not a command of any version.
fn read_commands(
    conn: &Conn,
    writer: &Writer<'_>,
    board: &Board,
    events: &SyncSender<Event>,
    clock: &impl Clock,
) {
    let mut reader = BufReader::with_capacity(4096, conn);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(COMMAND_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        if read.is_err() || !line.ends_with(b"\n") {
            return;
        }
        let answer = match Line::parse(&line) {
            Line::Command(Command::Hello(_)) => Message::Hello { hello: Hello::own() },
            Line::Unknown(unsupported) => Message::Unsupported { unsupported },
            Line::Command(Command::Clock { ask, ahead_ns }) => {
                clock.correct(ahead_ns);
                let reading = ClockReading { ask, now_ns: clock.now_ns() };
                board.update(|report| report.clock = Some(reading));
                continue;
            }
            // After the command's exit no command is taken, but the last report is still to come.
            Line::Command(command) => {
                let _ = events.send(Event::Command(command));
                continue;
            }
            Line::Malformed => return,
        };
        if writer.write(&answer).is_err() {
            return;
        }
    }
}

fn write_reports(writer: &Writer<'_>, board: &Board, gone: &AtomicBool) {
    let mut seen = 0;
    while let Some((version, report)) = board.newer(seen, gone) {
        let ended = report.phase == Phase::Ended;
        if writer.write(&Message::Report(Box::new(report))).is_err() || ended {
            return;
        }
        seen = version;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_guest::Report;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::AtomicI64;
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::thread::JoinHandle;

    struct FakeClock(AtomicI64);

    impl Clock for FakeClock {
        fn now_ns(&self) -> u64 {
            self.0.load(Ordering::Acquire) as u64
        }

        fn correct(&self, ahead_ns: i64) {
            self.0.fetch_sub(ahead_ns, Ordering::AcqRel);
        }
    }

    struct Host {
        stream: UnixStream,
        reader: BufReader<UnixStream>,
        board: Arc<Board>,
        events: Receiver<Event>,
        serving: JoinHandle<()>,
    }

    fn connect() -> Host {
        let (stream, guest) = UnixStream::pair().expect("pair");
        let board = Arc::new(Board::new("abc".to_owned(), None));
        let (sender, events) = sync_channel(4);
        let served = Arc::clone(&board);
        let clock = FakeClock(AtomicI64::new(1000));
        let serving =
            std::thread::spawn(move || serve(Conn::new(guest.into()), &served, &sender, &clock));
        let reader = BufReader::new(stream.try_clone().expect("clone"));
        Host { stream, reader, board, events, serving }
    }

    impl Host {
        fn message(&mut self) -> Message {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("read");
            serde_json::from_str(&line).expect("a message")
        }

        fn report(&mut self) -> Option<Report> {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("read");
            (!line.is_empty()).then(|| serde_json::from_str(&line).expect("a report"))
        }
    }

    #[test]
    fn a_report_comes_at_once_and_at_each_change_until_the_end() {
        let mut host = connect();
        assert_eq!(host.report().expect("first").phase, Phase::Held);
        host.board.update(|report| report.phase = Phase::Running);
        assert_eq!(host.report().expect("second").phase, Phase::Running);
        host.board.update(|report| report.phase = Phase::Ended);
        assert_eq!(host.report().expect("third").phase, Phase::Ended);
        assert_eq!(host.report(), None);
        host.serving.join().expect("served");
    }

    #[test]
    fn commands_reach_the_supervisor_and_a_bad_line_disconnects() {
        let mut host = connect();
        host.stream.write_all(b"{\"do\":\"stop\",\"timeout_s\":3}\n").expect("write");
        let Event::Command(command) = host.events.recv().expect("event") else {
            panic!("not a command")
        };
        assert_eq!(command, Command::Stop { timeout_s: 3, signal: 15 });
        assert!(host.report().is_some());
        host.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("write");
        assert_eq!(host.report(), None);
        host.serving.join().expect("served");
    }

    #[test]
    fn hello_is_answered_with_what_the_init_speaks() {
        let mut host = connect();
        assert!(host.report().is_some());
        host.stream.write_all(b"{\"do\":\"hello\",\"protocol\":9}\n").expect("write");
        assert_eq!(host.message(), Message::Hello { hello: Hello::own() });
    }

    #[test]
    fn unknown_command_is_answered_unsupported() {
        let mut host = connect();
        assert!(host.report().is_some());
        for line in ["{\"do\":\"dance\",\"how\":1}\n", "{\"do\":\"stop\",\"timeout_s\":\"soon\"}\n"]
        {
            host.stream.write_all(line.as_bytes()).expect("write");
            let Message::Unsupported { unsupported } = host.message() else { panic!("understood") };
            assert!(line.contains(&unsupported), "{unsupported}");
        }
        host.stream.write_all(b"{\"do\":\"stop\",\"timeout_s\":3}\n").expect("write");
        assert!(host.events.recv().is_ok(), "the stream stays open");
    }

    #[test]
    fn clock_is_corrected_before_it_is_read() {
        let mut host = connect();
        let clock = |report: Option<Report>| report.and_then(|report| report.clock);
        assert_eq!(clock(host.report()), Some(ClockReading::default()), "it can be asked");
        host.stream.write_all(b"{\"do\":\"clock\",\"ask\":1,\"ahead_ns\":0}\n").expect("write");
        assert_eq!(clock(host.report()), Some(ClockReading { ask: 1, now_ns: 1000 }));
        host.stream.write_all(b"{\"do\":\"clock\",\"ask\":2,\"ahead_ns\":-500}\n").expect("write");
        assert_eq!(clock(host.report()), Some(ClockReading { ask: 2, now_ns: 1500 }));
        assert!(host.events.try_recv().is_err(), "the supervisor has nothing to do with it");
    }

    #[test]
    fn a_line_over_the_bound_ends_the_connection() {
        let mut host = connect();
        assert!(host.report().is_some());
        let _ = host.stream.write_all(&vec![b' '; COMMAND_LINE_BYTES_MAX + 1]);
        assert!(host.reader.read_line(&mut String::new()).unwrap_or(0) == 0);
        host.serving.join().expect("served");
        assert!(host.events.try_recv().is_err());
    }

    #[test]
    fn command_after_the_exit_does_not_cost_the_last_report() {
        let mut host = connect();
        assert!(host.report().is_some());
        drop(std::mem::replace(&mut host.events, sync_channel(1).1));
        host.stream.write_all(b"{\"do\":\"stop\",\"timeout_s\":3}\n").expect("write");
        // A second line is read only after the first was dealt with.
        host.stream.write_all(b"{\"do\":\"stop\",\"timeout_s\":3}\n").expect("write");
        host.board.update(|report| report.phase = Phase::Ended);
        assert_eq!(host.report().expect("last").phase, Phase::Ended);
        host.serving.join().expect("served");
    }

    #[test]
    fn a_host_that_went_away_frees_its_connection() {
        let host = connect();
        drop((host.stream, host.reader));
        host.serving.join().expect("served");
    }
}
