//! What Hearth's init says from inside a guest, without one: the config drive is read, reports and
//! output go over the vsock's socket, the status drive is written before the end.
//!
//! The root file system of such a guest holds six programs: `/fake/exit CODE LINE…` says its
//! lines and ends at once, `/fake/say LINE` says a line and serves, `/fake/print TEXT` says a text that
//! ends no line and serves, `/fake/oom N` serves short of memory, which has killed N of its workers,
//! `/fake/late SECONDS` has a clock that is late and says how it is corrected,
//! anything else serves in silence until it is stopped. A readiness check passes at once. A channel to any
//! port echoes.
//!
//! With `FAKE_PROTOCOL=1` in its environment the guest is one of the first protocol: it ends the control
//! stream at an unknown command, Hello is one, and opens ports by bare numbers only.

use crate::script::{Does, Effect};
use crate::shared::{Shared, before, lock};
use hearth_guest::{
    CHANNEL_PORT, CONTROL_PORT, Channel, ClockReading, Command, Config, Delivery, Ending, Exit,
    GuestDrive, Hello, Identity, LOG_PAYLOAD_BYTES_MAX, LOG_PORT, LateWorkload, LogCursor,
    LogFrameHeader, Message, OomKill, OomKills, Opened, PROTOCOL_FIRST, Phase, RefusedWorkload,
    Report, Stage, Status, Stream, Workload, decode_config, encode_status,
};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// From the last report to the reboot.
const REBOOT: Duration = Duration::from_millis(20);

/// Hearth's init.
#[derive(Debug)]
pub(crate) struct Guest {
    config: Config,
    status_drive: PathBuf,
    booted: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// What it runs, once that is known.
    workload: Option<Workload>,
    /// How far that is, where it comes late.
    late: Option<LateWorkload>,
    identity: Option<Identity>,
    oom_kills: OomKills,
    output: Vec<u8>,
    clock: ClockReading,
    /// By how much the clock is ahead, in nanoseconds.
    ahead_ns: i64,
    /// The writing ends of the control streams.
    streams: Vec<UnixStream>,
}

impl Guest {
    /// Boots a guest; `drive` is the file behind the drive of a role.
    pub(crate) fn boot<'a>(
        drive: impl Fn(GuestDrive) -> Option<&'a Path>,
    ) -> io::Result<Arc<Guest>> {
        let drive = |role| {
            drive(role).ok_or_else(|| io::Error::other(format!("no device for the {role:?} drive")))
        };
        let (_root, _scratch) = (drive(GuestDrive::Rootfs)?, drive(GuestDrive::Scratch)?);
        let (config, status) = (drive(GuestDrive::Config)?, drive(GuestDrive::Status)?);
        let config = decode_config(&std::fs::read(config)?).map_err(io::Error::other)?;
        let (workload, late) = match &config.workload {
            Delivery::Inline(workload) => (Some(workload.clone()), None),
            Delivery::Late { .. } => (None, Some(LateWorkload::default())),
        };
        let state = State {
            phase: Phase::Held,
            workload,
            late,
            identity: config.identity.clone(),
            oom_kills: OomKills::default(),
            output: Vec::new(),
            clock: ClockReading::default(),
            ahead_ns: 0,
            streams: Vec::new(),
        };
        let guest = Arc::new(Guest {
            status_drive: status.to_owned(),
            booted: Instant::now(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            config,
        });
        if guest.config.stage == Stage::App {
            guest.start(&mut lock(&guest.state));
        }
        Ok(guest)
    }

    /// Starts the command.
    fn start(self: &Arc<Guest>, state: &mut State) {
        let Some(workload) = state.workload.clone() else { return };
        state.phase = Phase::Running;
        match workload.cmd.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["/fake/say", text, ..] => state.output.extend(format!("{text}\n").into_bytes()),
            ["/fake/oom", count] => {
                let kill = |pid| OomKill { pid, name: "worker".to_owned() };
                (1..=count.parse().unwrap_or(1)).for_each(|pid| state.oom_kills.add(kill(pid)));
            }
            ["/fake/print", text, ..] => state.output.extend_from_slice(text.as_bytes()),
            ["/fake/late", seconds, ..] => {
                state.ahead_ns = seconds.parse::<i64>().map_or(0, |late| -late * 1_000_000_000);
            }
            ["/fake/exit", code, ref text @ ..] => {
                text.iter().for_each(|line| state.output.extend(format!("{line}\n").into_bytes()));
                self.end(Ending::Code(code.parse().unwrap_or(1)), false);
            }
            _ => {}
        }
        self.changed.notify_all();
    }

    /// Ends the guest soon.
    fn end(self: &Arc<Guest>, ending: Ending, stop_requested: bool) {
        let guest = Arc::clone(self);
        std::thread::spawn(move || {
            let status = {
                let mut state = lock(&guest.state);
                state.phase = Phase::Ended;
                guest.report(&mut state);
                let oom_kills = Some(state.oom_kills.clone());
                let exit = Exit { stop_requested, oom_kills, ..Exit::of(ending) };
                let uptime_ms = guest.booted.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
                let tail = String::from_utf8_lossy(&state.output).into_owned();
                Status { instance: guest.config.instance.clone(), exit, uptime_ms, tail }
            };
            let written = encode_status(&status).map_err(io::Error::other).and_then(|bytes| {
                let drive = std::fs::File::options().write(true).open(&guest.status_drive)?;
                drive.write_all_at(&bytes, 0)
            });
            guest.changed.notify_all();
            std::thread::sleep(REBOOT);
            std::process::exit(i32::from(written.is_err()));
        });
    }

    pub(crate) fn ctrl_alt_del(self: &Arc<Guest>) {
        self.stop(self.config.stop_signal);
    }

    fn stop(self: &Arc<Guest>, signal: u8) {
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Held | Phase::Running) {
            state.phase = Phase::Stopping;
            self.report(&mut state);
            self.end(Ending::Signal(signal), true);
        }
    }

    fn take_identity(self: &Arc<Guest>, new: Identity, go: bool) {
        let mut state = lock(&self.state);
        let takes = state
            .identity
            .as_ref()
            .is_none_or(|known| known.job_id == new.job_id && known.generation <= new.generation);
        let agreed = state.late.as_ref().is_none_or(|late| late.refused.is_none());
        if takes && agreed && state.workload.is_some() {
            state.identity = Some(new);
            if go && state.phase == Phase::Held {
                self.start(&mut state);
            }
        }
        self.report(&mut state);
    }

    /// The first one stays, as in the init.
    fn take_workload(&self, generation: u64, workload: Workload) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        if let Some(late) = &mut state.late {
            let known = *late.generation.get_or_insert(generation);
            let is_same = *state.workload.get_or_insert_with(|| workload.clone()) == workload;
            let reason = format!("the guest has a workload of generation {known}");
            late.refused =
                (known != generation || !is_same).then_some(RefusedWorkload { generation, reason });
        }
        self.report(state);
    }

    fn correct_clock(&self, ask: u64, ahead_ns: i64) {
        let mut state = lock(&self.state);
        state.ahead_ns = state.ahead_ns.saturating_sub(ahead_ns);
        if ahead_ns != 0 {
            let line = format!("the clock was off by {:.1} s\n", ahead_ns as f64 / 1e9);
            state.output.extend(line.into_bytes());
            self.changed.notify_all();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        state.clock = ClockReading { ask, now_ns: now_ns.saturating_add_signed(state.ahead_ns) };
        self.report(&mut state);
    }

    /// Reports its state on all control streams.
    fn report(&self, state: &mut State) {
        let report = Report {
            instance: self.config.instance.clone(),
            phase: state.phase,
            ready: state.phase == Phase::Running,
            identity: state.identity.clone(),
            ready_detail: None,
            oom_kills: state.oom_kills.clone(),
            clock: Some(state.clock),
            workload: state.late.clone(),
        };
        let line = serde_json::to_string(&report).unwrap_or_default() + "\n";
        state.streams.retain_mut(|stream| stream.write_all(line.as_bytes()).is_ok());
    }

    /// The control stream: reports out, commands in.
    fn control(
        self: &Arc<Guest>,
        shared: &Shared,
        reader: BufReader<UnixStream>,
    ) -> io::Result<()> {
        {
            let mut state = lock(&self.state);
            state.streams.push(reader.get_ref().try_clone()?);
            self.report(&mut state);
        }
        let stream = reader.get_ref().try_clone()?;
        for line in reader.lines() {
            let line = line?;
            let command = match serde_json::from_str::<Command>(&line) {
                Ok(Command::Hello(_)) if self.is_of_first_protocol() => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Err(error) if self.is_of_first_protocol() => return Err(error.into()),
                Ok(command) => command,
                Err(error) => {
                    let named: serde_json::Value = serde_json::from_str(&line)?;
                    let unsupported = named["do"].as_str().ok_or(error)?.to_owned();
                    self.say(&stream, &Message::Unsupported { unsupported })?;
                    continue;
                }
            };
            let name = match &command {
                Command::Hello(_) => "guest hello",
                Command::Identity { .. } => "guest identity",
                Command::Workload { .. } => "guest workload",
                Command::Stop { .. } => "guest stop",
                Command::Clock { .. } => "guest clock",
            };
            let carry = || match command {
                Command::Hello(_) => {
                    // A stream that is lost is made again.
                    let _ = self.say(&stream, &Message::Hello { hello: Hello::own() });
                }
                Command::Identity { identity, go, .. } => self.take_identity(identity, go),
                Command::Workload { generation, workload } => {
                    self.take_workload(generation, workload);
                }
                Command::Stop { signal, .. } => self.stop(signal),
                Command::Clock { ask, ahead_ns } => self.correct_clock(ask, ahead_ns),
            };
            let fault = lock(&shared.script).at_call(name, 0);
            match fault {
                None => carry(),
                Some((Effect::Done, does)) => {
                    carry();
                    meets(shared, &stream, &does)?;
                }
                Some((Effect::Skipped, does)) => {
                    meets(shared, &stream, &does)?;
                    if let Does::Wait(_) | Does::Flood { .. } = does {
                        carry();
                    }
                }
            }
        }
        Ok(())
    }

    fn is_of_first_protocol(&self) -> bool {
        let first = PROTOCOL_FIRST.to_string();
        match &self.config.workload {
            Delivery::Inline(workload) => workload.env.get("FAKE_PROTOCOL") == Some(&first),
            Delivery::Late { .. } => false,
        }
    }

    /// Says something on one control stream, between two reports.
    fn say(&self, mut stream: &UnixStream, message: &Message) -> io::Result<()> {
        let _state = lock(&self.state);
        stream.write_all((serde_json::to_string(message)? + "\n").as_bytes())
    }

    /// A channel: its line in, an answer out, then an echo.
    fn channel(&self, mut reader: BufReader<UnixStream>) -> io::Result<()> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let is_number = line.trim().parse::<u16>().is_ok();
        let opened = match Channel::parse(line.trim().as_bytes()) {
            _ if self.is_of_first_protocol() && !is_number => Opened::No("not a port".to_owned()),
            Ok(Channel::Port(_)) => Opened::Yes,
            Err(_) => Opened::Unsupported,
        };
        let mut stream = reader.get_ref().try_clone()?;
        stream.write_all(format!("{}\n", opened.line()).as_bytes())?;
        if opened == Opened::Yes {
            io::copy(&mut reader, &mut stream)?;
        }
        stream.shutdown(std::net::Shutdown::Both)
    }

    /// The log stream: a cursor in, frames out.
    fn log(&self, mut reader: BufReader<UnixStream>) -> io::Result<()> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut from = serde_json::from_str::<LogCursor>(&line)?.from;
        let mut stream = reader.into_inner();
        let mut state = lock(&self.state);
        loop {
            let at = usize::try_from(from).unwrap_or(usize::MAX).min(state.output.len());
            from = at as u64;
            for piece in state.output[at..].chunks(LOG_PAYLOAD_BYTES_MAX) {
                let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                let header = LogFrameHeader { offset: from, stream: Stream::Stdout, len };
                stream.write_all(&header.encode())?;
                stream.write_all(piece)?;
                from += piece.len() as u64;
            }
            if state.phase == Phase::Ended {
                return Ok(());
            }
            state = self.changed.wait(state).map_err(|_| io::Error::other("a panic"))?;
        }
    }
}

/// What a script has happen to a stream of the guest.
fn meets(shared: &Shared, stream: &UnixStream, does: &Does) -> io::Result<()> {
    before(shared, does);
    match does {
        Does::Close => {
            stream.shutdown(std::net::Shutdown::Both)?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Does::Garbage(bytes) => (&*stream).write_all(bytes.as_bytes()),
        _ => Ok(()),
    }
}

/// Takes connections from the host. A bare guest has no driver: nothing there ever answers one.
pub(crate) fn listen(shared: &Arc<Shared>, listener: UnixListener, guest: Option<Arc<Guest>>) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut unanswered = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            let Some(guest) = guest.clone() else {
                unanswered.push(stream);
                continue;
            };
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                // A stream that breaks is made again by the host.
                let _ = connect(&shared, &guest, stream);
            });
        }
    });
}

/// `CONNECT port` in, `OK port` out, then what the port says.
fn connect(shared: &Shared, guest: &Arc<Guest>, stream: UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let port = line.trim().strip_prefix("CONNECT ").and_then(|port| port.parse::<u32>().ok());
    if let Some((_, does)) = lock(&shared.script).at_call("guest connect", 0) {
        meets(shared, &stream, &does)?;
    }
    // Nothing listens on the others.
    if ![Some(CONTROL_PORT), Some(LOG_PORT), Some(CHANNEL_PORT)].contains(&port) {
        return Ok(());
    }
    (&stream).write_all(b"OK 1073741824\n")?;
    match port {
        Some(CONTROL_PORT) => guest.control(shared, reader),
        Some(LOG_PORT) => guest.log(reader),
        _ => guest.channel(reader),
    }
}
