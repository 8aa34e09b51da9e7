//! The supervisor: the one place that decides what happens to the command. It has no
//! connections: events come in, the board and the ring show its state.
//!
//! ```text
//!   held --go--> running --(ready)--> running --the command ends--> ended
//!     |             '--stop--> stopping --it ends, or SIGKILL and it ends--> ended
//!     '--stop-------------------------------------------------------------> ended
//! ```
//!
//! A guest whose workload comes late is held without one at first: it takes no identity and does not start
//! before the workload is there, nor after it has refused another.

use crate::board::Board;
use crate::child::{Launch, Output, Reaper};
use crate::console::say;
use crate::kernel_log::{KernelLog, More};
use crate::machine::Machine;
use crate::ready::Checker;
use crate::ring::Ring;
use crate::workload::WorkloadCell;
use crate::{identity, notify, program, refusal};
use hearth_guest::{
    Command, Config, Ending, Exit, Identity, OomKill, Phase, ReadyCheck, Stage, Stream, Workload,
};
use rustix::process::{Pid, WaitStatus};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

/// Events that wait for the supervisor; who sends one more waits too.
const EVENTS_MAX: usize = 32;
/// How long the pipes may take to drain once every process is killed.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// Bytes read from a pipe at a time.
const PIPE_BYTES: usize = 16 * 1024;
/// Name of the notify socket in the run directory.
const NOTIFY_NAME: &str = "notify.sock";
/// What the report says of a notify check that has not passed.
const NOT_NOTIFIED: &str = "the app has not said that it is ready";

/// Messages to the supervisor.
#[derive(Debug)]
pub(crate) enum Event {
    /// The host said this.
    Command(Command),
    /// Ctrl-Alt-Del: a host that could not reach the control stream.
    CtrlAltDel,
    /// The readiness check passed.
    Ready,
    /// The readiness check failed, for this reason.
    NotReady(String),
    /// The kernel has killed a process for lack of memory. If it was the command, this comes before
    /// its end.
    OomKill(OomKill),
    /// The command ended.
    Ended(WaitStatus),
}

/// Runs one command from its start to its end.
pub(crate) struct Supervisor<M> {
    instance: String,
    rootfs: String,
    stage: Stage,
    workload: WorkloadCell,
    /// Signal and seconds of a stop that does not say them.
    config_stop: (u8, u32),
    /// That of the config, until it is taken.
    first_identity: Option<Identity>,
    machine: M,
    run_dir: PathBuf,
    reaper: Arc<Reaper>,
    board: Arc<Board>,
    ring: Arc<Ring>,
    sender: SyncSender<Event>,
    events: Receiver<Event>,
    identity: Option<Identity>,
    main: Option<Main>,
    stop: Option<Stop>,
}

/// The command while it runs.
struct Main {
    pid: Pid,
    /// Whether the kernel's log names it as killed for lack of memory.
    oom_killed: bool,
    /// Disconnects when both pipes are at their end.
    drained: Receiver<()>,
}

/// A stop that was asked for.
struct Stop {
    /// When SIGKILL is due; `None` once it was sent.
    kill_at: Option<Instant>,
}

impl<M: Machine> Supervisor<M> {
    /// A supervisor that holds the command of `config`. The identity file and the notify socket
    /// go to `run_dir`.
    pub(crate) fn new(
        config: Config,
        machine: M,
        run_dir: PathBuf,
        reaper: Arc<Reaper>,
        ring: Arc<Ring>,
    ) -> Supervisor<M> {
        let (sender, events) = sync_channel(EVENTS_MAX);
        let config_stop = (config.stop_signal, config.stop_timeout_s);
        let Config { instance, rootfs, stage, workload, identity: first_identity, .. } = config;
        let workload = WorkloadCell::new(workload);
        let board = Arc::new(Board::new(instance.clone(), workload.report()));
        Supervisor {
            instance,
            rootfs,
            stage,
            workload,
            config_stop,
            first_identity,
            machine,
            run_dir,
            reaper,
            board,
            ring,
            sender,
            events,
            identity: None,
            main: None,
            stop: None,
        }
    }

    /// Where the reports are.
    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Where events go.
    pub(crate) fn sender(&self) -> SyncSender<Event> {
        self.sender.clone()
    }

    /// Takes the identity of the config and starts the command unless it is to be held.
    ///
    /// # Errors
    /// How it ended, where it could not be started.
    pub(crate) fn begin(&mut self) -> Result<(), Ending> {
        match self.first_identity.take() {
            Some(identity) => {
                self.take_identity(identity);
            }
            None => self.machine.set_hostname(&self.instance),
        }
        self.start_unheld()
    }

    /// Starts the command if it is not to be held. Without a workload it is.
    fn start_unheld(&mut self) -> Result<(), Ending> {
        match self.stage {
            Stage::App => self.start(),
            Stage::Init => Ok(()),
        }
    }

    /// Follows events until the command has ended and its output is in the ring.
    pub(crate) fn run(mut self) -> Exit {
        let ending = loop {
            let done = match self.next() {
                None => {
                    self.kill();
                    Ok(())
                }
                Some(event) => self.take(event),
            };
            if let Err(ending) = done {
                break ending;
            }
        };
        let main = self.main.take();
        if let Some(main) = &main {
            self.machine.kill_everything(main.pid);
            // Nothing is ever sent: it disconnects, or the time expires.
            let _ = main.drained.recv_timeout(DRAIN_LIMIT);
        }
        let killed = ending == Ending::Signal(libc::SIGKILL as u8);
        Exit {
            ending,
            stop_requested: self.stop.is_some(),
            out_of_memory: killed && main.is_some_and(|main| main.oom_killed),
            oom_kills: Some(self.board.report().oom_kills),
        }
    }

    /// The next event; `None` when SIGKILL is due.
    fn next(&self) -> Option<Event> {
        let kill_at = self.stop.as_ref().and_then(|stop| stop.kill_at);
        let event = match kill_at {
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match event {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the supervisor holds a sender"),
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Ending> {
        match event {
            Event::Command(Command::Identity { identity, go, clock_ns }) => {
                self.machine.set_clock(clock_ns);
                if !self.workload.is_agreed() {
                    // The host sends it again, behind the workload.
                    self.board.update(|_| ());
                    return Ok(());
                }
                if self.take_identity(identity) && go {
                    self.start()?;
                }
                Ok(())
            }
            Event::Command(Command::Workload { generation, workload }) => {
                self.workload.take(generation, workload);
                let workload = self.workload.report();
                self.board.update(|report| report.workload = workload);
                self.start_unheld()
            }
            Event::Command(Command::Stop { timeout_s, signal }) => {
                self.request_stop(signal, timeout_s)
            }
            // Answered by the control stream.
            Event::Command(Command::Clock { .. } | Command::Hello(_)) => Ok(()),
            Event::CtrlAltDel => {
                let (signal, timeout_s) = self.config_stop;
                self.request_stop(signal, timeout_s)
            }
            Event::Ready => {
                self.board.update(|report| (report.ready, report.ready_detail) = (true, None));
                Ok(())
            }
            Event::NotReady(detail) => {
                self.board.update(|report| report.ready_detail = Some(detail));
                Ok(())
            }
            Event::OomKill(kill) => {
                self.take_oom_kill(kill);
                Ok(())
            }
            Event::Ended(status) => Err(ending(status)),
        }
    }

    /// Writes the identity file. Updates the board in any case: it is how the host learns what this
    /// guest holds. Answers whether the identity is this one now.
    fn take_identity(&mut self, new: Identity) -> bool {
        let accepted = identity::accepts(self.identity.as_ref(), &new);
        if !accepted {
            say(format_args!("refused the identity of {} {}", new.job_id, new.generation));
        } else if self.identity.as_ref() != Some(&new) {
            if let Err(error) = identity::write(&self.run_dir, &new) {
                say(format_args!("cannot write the identity file: {error}"));
                self.board.update(|_| ());
                return false;
            }
            self.machine.set_hostname(&new.job_id);
            self.identity = Some(new);
        }
        let identity = self.identity.clone();
        self.board.update(|report| report.identity = identity);
        accepted
    }

    fn take_oom_kill(&mut self, kill: OomKill) {
        let pid = i32::try_from(kill.pid).ok().and_then(Pid::from_raw);
        match &mut self.main {
            Some(main) if pid == Some(main.pid) => main.oom_killed = true,
            _ => self.board.update(|report| report.oom_kills.add(kill)),
        }
    }

    /// The stop signal now, SIGKILL later. A second request may only bring SIGKILL nearer.
    fn request_stop(&mut self, signal: u8, timeout_s: u32) -> Result<(), Ending> {
        let at = Instant::now() + Duration::from_secs(u64::from(timeout_s));
        let first = self.stop.is_none();
        let stop = self.stop.get_or_insert(Stop { kill_at: Some(at) });
        stop.kill_at = stop.kill_at.map(|earlier| earlier.min(at));
        self.board.update(|report| report.phase = Phase::Stopping);
        match &self.main {
            // Held: there is nothing to signal, and nothing to wait for.
            None => Err(Ending::Signal(signal)),
            Some(main) => {
                if first {
                    // Its workers are its own to end: a supervisor or a server drains them first.
                    self.reaper.signal(main.pid, signal);
                    // A stopped command would never see it.
                    self.reaper.signal(main.pid, libc::SIGCONT as u8);
                }
                Ok(())
            }
        }
    }

    fn kill(&mut self) {
        if let (Some(stop), Some(main)) = (&mut self.stop, &self.main) {
            stop.kill_at = None;
            self.reaper.kill_group(main.pid);
        }
    }

    /// Starts the command, once it is known what that is. It is started once only.
    fn start(&mut self) -> Result<(), Ending> {
        let Some(workload) = self.workload.get().filter(|_| self.main.is_none()) else {
            return Ok(());
        };
        let (env, check) = (self.env(workload), check(workload).cloned());
        if let Some(ReadyCheck::Notify) = check {
            self.listen_for_notify()?;
        }
        let log = self.watch_kernel_log()?;
        let main = self.spawn(workload, &env).map_err(Ending::NotStarted)?;
        let (pid, reaper, sender) = (main.pid, Arc::clone(&self.reaper), self.sender.clone());
        self.main = Some(main);
        in_background(move || {
            if let Some(status) = reaper.wait(pid, None) {
                if let Some(log) = log {
                    log.read(|kill| drop(sender.send(Event::OomKill(kill))));
                }
                let _ = sender.send(Event::Ended(status));
            }
        })?;
        let detail = check == Some(ReadyCheck::Notify);
        let ready = check.is_none();
        self.board.update(|report| {
            report.phase = Phase::Running;
            report.ready = ready;
            report.ready_detail = detail.then(|| NOT_NOTIFIED.to_owned());
        });
        match check {
            None | Some(ReadyCheck::Notify) => Ok(()),
            Some(check) => self.check_until_ready(check, env),
        }
    }

    /// Reports what the kernel kills for lack of memory from now on. A kernel without a log for
    /// processes leaves the cause of a SIGKILL open.
    fn watch_kernel_log(&self) -> Result<Option<Arc<KernelLog>>, Ending> {
        let log = match self.machine.kernel_log().and_then(KernelLog::new) {
            Ok(log) => Arc::new(log),
            Err(error) => {
                say(format_args!("cannot read the kernel's log: {error}"));
                return Ok(None);
            }
        };
        let (watched, sender) = (Arc::clone(&log), self.sender.clone());
        in_background(move || {
            let mut more = More::Later;
            while more == More::Later {
                watched.wait();
                more = watched.read(|kill| drop(sender.send(Event::OomKill(kill))));
            }
        })?;
        Ok(Some(log))
    }

    fn env(&self, workload: &Workload) -> BTreeMap<String, String> {
        let mut env = workload.env.clone();
        env.entry("PATH".to_owned()).or_insert_with(|| program::DEFAULT_PATH.to_owned());
        env.entry("HOME".to_owned()).or_insert_with(|| "/root".to_owned());
        if let Some(ReadyCheck::Notify) = check(workload) {
            let path = self.run_dir.join(NOTIFY_NAME).display().to_string();
            env.insert("HEARTH_NOTIFY".to_owned(), path);
        }
        env
    }

    fn listen_for_notify(&self) -> Result<(), Ending> {
        let sender = self.sender.clone();
        let heard = move || drop(sender.send(Event::Ready));
        notify::listen(&self.run_dir.join(NOTIFY_NAME), heard)
            .map_err(|error| Ending::SetUp(format!("cannot make the notify socket: {error}")))
    }

    fn check_until_ready(
        &self,
        check: ReadyCheck,
        env: BTreeMap<String, String>,
    ) -> Result<(), Ending> {
        let (rootfs, reaper) = (self.rootfs.clone(), Arc::clone(&self.reaper));
        let checker = Checker { check, rootfs, env, reaper };
        let sender = self.sender.clone();
        in_background(move || {
            let mut told = String::new();
            let passed = checker.until_passed(|reason| {
                if told == reason {
                    return true;
                }
                reason.clone_into(&mut told);
                sender.send(Event::NotReady(reason.to_owned())).is_ok()
            });
            if passed {
                let _ = sender.send(Event::Ready);
            }
        })
    }

    fn spawn(&self, workload: &Workload, env: &BTreeMap<String, String>) -> Result<Main, String> {
        let rootfs = &self.rootfs;
        let name = workload.cmd.first().map_or("", String::as_str);
        let path = env.get("PATH").map_or(program::DEFAULT_PATH, String::as_str);
        let file = program::resolve(name, path, rootfs)?;
        let argv = workload.cmd.as_slice();
        let launch = Launch { file: &file, argv, env, output: Output::Pipes };
        let child = self.reaper.spawn(&launch);
        let child = child.map_err(|error| refusal::why_refused(&file, &error, rootfs))?;
        let (at_end, drained) = channel();
        let pumps = [
            child.stdout.map(|pipe| self.pump(pipe, Stream::Stdout, at_end.clone())),
            child.stderr.map(|pipe| self.pump(pipe, Stream::Stderr, at_end)),
        ];
        if let Some(error) = pumps.into_iter().flatten().find_map(Result::err) {
            self.reaper.kill_group(child.pid);
            return Err(format!("{name}: its output cannot be read: {error}"));
        }
        Ok(Main { pid: child.pid, oom_killed: false, drained })
    }

    /// Moves a pipe into the ring until its end, then drops `at_end`.
    fn pump(
        &self,
        mut pipe: impl Read + Send + 'static,
        stream: Stream,
        at_end: Sender<()>,
    ) -> std::io::Result<()> {
        let ring = Arc::clone(&self.ring);
        let pump = move || {
            let mut buffer = vec![0; PIPE_BYTES];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => ring.push(stream, &buffer[..read]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            drop(at_end);
        };
        std::thread::Builder::new().spawn(pump).map(drop)
    }
}

fn check(workload: &Workload) -> Option<&ReadyCheck> {
    workload.ready.as_ref().map(|ready| &ready.check)
}

fn in_background(work: impl FnOnce() + Send + 'static) -> Result<(), Ending> {
    let thread = std::thread::Builder::new().spawn(work);
    thread.map(drop).map_err(|error| Ending::SetUp(format!("cannot start a thread: {error}")))
}

fn ending(status: WaitStatus) -> Ending {
    // Linux gives codes and signals of one byte.
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Code(code as u8),
        (None, signal) => Ending::Signal(signal.unwrap_or(0) as u8),
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
