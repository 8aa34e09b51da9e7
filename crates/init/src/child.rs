//! Processes: starting them, waiting for them, signalling them. One thread reaps every child,
//! the orphans that fall to PID 1 too; nothing else may wait for a process.

use rustix::fs::Mode;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Starts and reaps children. A process has one at most, since it takes every child's status.
pub(crate) struct Reaper {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    /// Children that are waited for, with their status once it is known.
    watched: HashMap<Pid, Option<WaitStatus>>,
    /// Counts starts, so that the reaping thread knows when there is a child again.
    started: u64,
}

/// A program to start. Its working directory is `/`, its stdin is empty.
pub(crate) struct Launch<'a> {
    /// The file to execute.
    pub(crate) file: &'a Path,
    /// Its arguments, the name it is called by first.
    pub(crate) argv: &'a [String],
    /// Its whole environment.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// Where its stdout and stderr go.
    pub(crate) output: Output,
}

/// Where a child's output goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// To pipes that the [`Child`] has. Every user of the guest can open them by name, as in
    /// `echo text > /dev/stdout`.
    Pipes,
    /// Nowhere.
    Nowhere,
}

/// A child that was started.
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Reaper {
    /// Starts the reaping thread.
    ///
    /// # Errors
    /// That of starting a thread.
    pub(crate) fn start() -> std::io::Result<Arc<Reaper>> {
        let reaper =
            Arc::new(Reaper { inner: Mutex::new(Inner::default()), changed: Condvar::new() });
        let reaping = Arc::clone(&reaper);
        std::thread::Builder::new().name("reap".to_owned()).spawn(move || reaping.reap())?;
        Ok(reaper)
    }

    /// Starts a child in a session and process group of its own, with no signal blocked. It must
    /// be waited for by [`Reaper::wait`].
    ///
    /// # Errors
    /// That of fork or exec.
    pub(crate) fn spawn(&self, launch: &Launch<'_>) -> std::io::Result<Child> {
        let mut command = command(launch)?;
        // Held over the start: the reaping thread can't take the status of a child that is not
        // yet in the map, nor that of one whose exec failed, for which std waits itself.
        let mut inner = self.lock();
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        inner.watched.insert(pid, None);
        inner.started += 1;
        self.changed.notify_all();
        Ok(Child { pid, stdout: child.stdout.take(), stderr: child.stderr.take() })
    }

    /// Waits for a child's end, up to `deadline` if there is one. A status is given once.
    pub(crate) fn wait(&self, pid: Pid, deadline: Option<Instant>) -> Option<WaitStatus> {
        let mut inner = self.lock();
        loop {
            if let Some(Some(status)) = inner.watched.get(&pid) {
                let status = *status;
                inner.watched.remove(&pid);
                return Some(status);
            }
            inner = match deadline {
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = self.changed.wait_timeout(inner, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Signals a child, and no process beneath it. `signal` is a number, since realtime signals
    /// have no names in Rust. A child that has been reaped is left alone: its pid may belong to
    /// another process.
    #[allow(unsafe_code)]
    pub(crate) fn signal(&self, pid: Pid, signal: u8) {
        self.if_alive(pid, || {
            // SAFETY: kill takes no pointer.
            unsafe { libc::kill(pid.as_raw_pid(), i32::from(signal)) };
        });
    }

    /// Sends SIGKILL to the process group of a child, and to the child if it has left the group.
    pub(crate) fn kill_group(&self, pid: Pid) {
        self.if_alive(pid, || {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        });
    }

    /// Calls `act` unless the child has been reaped. The lock keeps it from being reaped until then.
    fn if_alive(&self, pid: Pid, act: impl FnOnce()) {
        let inner = self.lock();
        if matches!(inner.watched.get(&pid), Some(None)) {
            act();
        }
    }

    fn reap(&self) {
        loop {
            let started = self.lock().started;
            match ended_child() {
                Some(pid) => {
                    let mut inner = self.lock();
                    let ended = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
                    if let Ok(Some((_, status))) = ended
                        && let Some(watched) = inner.watched.get_mut(&pid)
                    {
                        *watched = Some(status);
                        self.changed.notify_all();
                    }
                }
                None => {
                    let mut inner = self.lock();
                    while inner.started == started {
                        inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a child has ended, and leaves it to be reaped; `None` if there is no child.
#[allow(unsafe_code)]
fn ended_child() -> Option<Pid> {
    loop {
        // SAFETY: a siginfo_t of zeroes is valid; the kernel fills it in.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` outlives the call and is ours alone.
        let result =
            unsafe { libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOWAIT) };
        if result == 0 {
            // SAFETY: after a successful waitid the field is that of a child's end.
            return Pid::from_raw(unsafe { info.si_pid() });
        }
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return None;
        }
    }
}

/// Mode of the pipes: a process of the command that has given up root opens them as another user.
/// Container runtimes do the same.
const PIPE_MODE: Mode = Mode::from_raw_mode(0o666);

/// The command of a launch: a session of its own that blocks no signal, since the init blocks
/// some and a mask is inherited. It executes the file itself: what std would call hands a file
/// that the kernel refuses to the shell.
#[allow(unsafe_code)]
fn command(launch: &Launch<'_>) -> std::io::Result<Command> {
    let output = || match launch.output {
        Output::Pipes => Stdio::piped(),
        Output::Nowhere => Stdio::null(),
    };
    let mut command = Command::new(launch.file);
    command.current_dir("/").stdin(Stdio::null()).stdout(output()).stderr(output());
    let file = CString::new(launch.file.as_os_str().as_bytes())?;
    let argv = Strings::new(launch.argv.iter().cloned())?;
    let env = Strings::new(launch.env.iter().map(|(name, value)| format!("{name}={value}")))?;
    let pipes = launch.output == Output::Pipes;
    let execute = move || {
        rustix::process::setsid()?;
        if pipes {
            rustix::fs::fchmod(rustix::stdio::stdout(), PIPE_MODE)?;
            rustix::fs::fchmod(rustix::stdio::stderr(), PIPE_MODE)?;
        }
        // SAFETY: the calls are async-signal-safe, the set is ours alone, and the strings, which
        // the closure owns, end in a null each, as do their lists.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            libc::execve(file.as_ptr(), argv.list(), env.list());
        }
        Err(std::io::Error::last_os_error())
    };
    // SAFETY: between fork and exec the closure makes async-signal-safe system calls only, and
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(execute) };
    Ok(command)
}

/// Strings as execve takes them: a list of pointers that ends in a null.
struct Strings {
    _owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers are to the heap memory of `_owned`, which moves along, is never changed,
// and is freed with them.
#[allow(unsafe_code)]
unsafe impl Send for Strings {}
// SAFETY: nothing is changed through a shared reference.
#[allow(unsafe_code)]
unsafe impl Sync for Strings {}

impl Strings {
    fn new(strings: impl Iterator<Item = String>) -> std::io::Result<Strings> {
        let owned = strings.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = owned.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Ok(Strings { _owned: owned, pointers })
    }

    fn list(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// The reaper of this test process: all tests share it, since a process can have only one.
#[cfg(test)]
pub(crate) fn shared_reaper() -> Arc<Reaper> {
    static REAPER: std::sync::OnceLock<Arc<Reaper>> = std::sync::OnceLock::new();
    Arc::clone(REAPER.get_or_init(|| Reaper::start().expect("a thread")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};
    use std::time::Duration;

    fn start(file: &str, argv: &[&str]) -> std::io::Result<Child> {
        let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let file = Path::new(file);
        let launch = Launch { file, argv: &argv, env: &env, output: Output::Pipes };
        shared_reaper().spawn(&launch)
    }

    fn shell(script: &str) -> Child {
        start("/bin/sh", &["sh", "-c", script]).expect("started")
    }

    #[test]
    fn a_child_gives_its_status_to_who_waits_for_it() {
        let reaper = shared_reaper();
        let seven = shell("exit 7");
        let killed = shell("kill -9 $$");
        assert_eq!(reaper.wait(killed.pid, None).and_then(|s| s.terminating_signal()), Some(9));
        assert_eq!(reaper.wait(seven.pid, None).and_then(|s| s.exit_status()), Some(7));
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_an_error_and_no_child() {
        let error = start("/no/such", &["such"]).err().expect("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        let error = start("/bin/sh", &["sh", "-c", "nul\0byte"]).err().expect("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }

    /// What a child writes to its stdout until it exits.
    fn output(child: &mut Child) -> String {
        let mut output = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut output).expect("read");
        output
    }

    #[test]
    fn wait_ends_at_its_deadline() {
        let reaper = shared_reaper();
        let child = shell("sleep 600 & wait");
        let soon = Instant::now() + Duration::from_millis(30);
        assert!(reaper.wait(child.pid, Some(soon)).is_none());
        reaper.kill_group(child.pid);
        let status = reaper.wait(child.pid, None).expect("ended");
        assert_eq!(status.terminating_signal(), Some(9));
        reaper.kill_group(child.pid);
    }

    #[test]
    fn signal_reaches_the_process_and_kill_its_group() {
        let reaper = shared_reaper();
        // Of two pending signals a shell takes the one with the lower number first.
        let worker = "trap 'echo terminated' TERM; trap 'echo drained' WINCH; echo up; \
                      while :; do sleep 0.01; done 2>/dev/null";
        let script = format!("trap 'kill -WINCH $!' TERM; ({worker}) & wait; wait");
        let mut child = shell(&script);
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut line = || stdout.next().map(|line| line.expect("text"));
        assert_eq!(line().as_deref(), Some("up"));
        reaper.signal(child.pid, 15);
        assert_eq!(line().as_deref(), Some("drained"));
        reaper.kill_group(child.pid);
        // The worker had stdout too.
        assert_eq!(line(), None);
        let status = reaper.wait(child.pid, None).expect("ended");
        assert_eq!(status.terminating_signal(), Some(9));
    }

    #[test]
    fn realtime_signal_ends_a_child() {
        let reaper = shared_reaper();
        let child = shell("exec sleep 600");
        reaper.signal(child.pid, 37);
        let status = reaper.wait(child.pid, None).expect("ended");
        assert_eq!(status.terminating_signal(), Some(37));
    }

    #[test]
    fn output_can_be_opened_by_name_as_another_user() {
        let write = "echo one > /dev/stdout; echo two >> /dev/stderr; cat /dev/stdin; echo three";
        let mut script = format!("{{ stat -Lc %a /dev/stdout /dev/stderr; {write}; }} 2>&1");
        if rustix::process::geteuid().is_root() {
            let other = "setpriv --reuid=65534 --regid=65534 --clear-groups";
            script = format!("exec 2>&1; {other} sh -c '{script}'");
        }
        assert_eq!(output(&mut shell(&script)), "666\n666\none\ntwo\nthree\n");
    }

    #[test]
    fn child_has_its_own_session_and_default_signals() {
        let reaper = shared_reaper();
        block_a_signal();
        // No shell: some clear the mask themselves.
        let fields = ["cat", "/proc/self/status", "/proc/self/stat"];
        let mut child = start("/bin/cat", &fields).expect("started");
        let output = output(&mut child);
        let field = |name: &str| output.lines().find_map(|line| line.strip_prefix(name));
        let mask = |name| u64::from_str_radix(field(name).expect("a field").trim(), 16);
        assert_eq!(mask("SigBlk:"), Ok(0));
        assert_eq!(mask("SigIgn:").expect("a mask") >> (libc::SIGPIPE - 1) & 1, 0);
        let pid = child.pid.as_raw_nonzero().to_string();
        let stat = output.lines().last().and_then(|line| line.split(") ").nth(1)).expect("stat");
        let ids: Vec<&str> = stat.split(' ').skip(2).take(2).collect();
        assert_eq!(ids, [pid.as_str(), pid.as_str()], "group and session");
        reaper.wait(child.pid, None);
    }

    /// Blocks SIGUSR2 in this thread, as the init blocks SIGINT.
    #[allow(unsafe_code)]
    fn block_a_signal() {
        // SAFETY: the set is ours alone, and a set of zeroes is valid to be filled.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGUSR2);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        }
    }
}
