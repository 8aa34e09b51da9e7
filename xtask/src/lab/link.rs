//! The way into the lab: one SSH connection that all commands and forwarded ports share.

use std::fmt;
use std::fs::{self, File};
use std::io::IsTerminal;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::write_private;
use crate::places::Places;
use crate::{program, terminal};

/// A socket's path holds no more than this, and SSH adds a suffix of its own while it binds.
const CONTROL_PATH_BYTES_MAX: usize = 107 - 18;

/// What ssh exits with where its connection breaks. A command may end with it too.
pub(crate) const SSH_FAILED: i32 = 255;

/// The keys of one boot.
#[derive(Debug)]
pub(super) struct Keys {
    /// The lab's private key, in dropbear's form.
    pub(super) host: PathBuf,
    user: PathBuf,
}

impl Keys {
    /// Makes new keys in `dir` in place of the old ones.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let keys = Self { host: dir.join("host_key"), user: dir.join("user_key") };
        for old in [&keys.host, &keys.user, &keys.user_public(), &dir.join("user_key.pub")] {
            let _ = fs::remove_file(old);
        }
        let made = program::output(
            program::command("dropbearkey").args(["-t", "ed25519", "-f"]).arg(&keys.host),
        )?;
        let public = made
            .lines()
            .find(|line| line.starts_with("ssh-ed25519 "))
            .context("dropbearkey printed no public key")?;
        let public: Vec<_> = public.split(' ').take(2).collect();
        write_private(&dir.join("known_hosts"), format!("lab {}\n", public.join(" ")).as_bytes())?;
        let mut keygen = program::command("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "hearth-lab", "-f"]);
        program::output(keygen.arg(&keys.user))?;
        Ok(keys)
    }

    pub(super) fn user_public(&self) -> PathBuf {
        self.user.with_extension("pub")
    }
}

/// A port here and the port of the lab's 127.0.0.1 that it leads to: `8088` or `8088:80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) here: u16,
    pub(crate) there: u16,
}

impl FromStr for Forward {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (here, there) = text.split_once(':').unwrap_or((text, text));
        let port = |text: &str| {
            let port = text.parse().ok().filter(|port| *port > 0);
            port.ok_or_else(|| anyhow!("{text:?} is not a port: write 8088 or 8088:80"))
        };
        Ok(Self { here: port(here)?, there: port(there)? })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "127.0.0.1:{}:127.0.0.1:{}", self.here, self.there)
    }
}

/// What the command's streams are.
#[derive(Debug, Clone)]
pub(crate) enum Streams {
    /// This process's own: a terminal if it has one, else each as it is.
    Inherited,
    /// No input; output and errors appended to one file.
    Logged(PathBuf),
}

/// One command in the lab.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The command and its arguments, taken as they are: no shell reads them.
    pub(crate) command: Vec<String>,
    /// Where it runs; `/` when the lab has no such directory.
    pub(crate) directory: PathBuf,
    /// Added to the lab's environment.
    pub(crate) variables: Vec<(String, String)>,
    /// Its input and output.
    pub(crate) streams: Streams,
}

impl Session {
    /// A command in the present directory, with this process's streams and its variables of
    /// Hearth and Rust.
    pub(crate) fn new(command: Vec<String>) -> Result<Self> {
        let ours =
            |name: &str| name.starts_with("HEARTH_") || name.starts_with("RUST_") || name == "TERM";
        Ok(Self {
            command,
            directory: std::env::current_dir().context("there is no present directory")?,
            variables: std::env::vars().filter(|(name, _)| ours(name)).collect(),
            streams: Streams::Inherited,
        })
    }

    /// The session script's arguments as one line for the lab's shell.
    fn line(&self, mode: &str, token: &str, places: &Places) -> String {
        let mut words = vec!["/run/lab/session".to_owned(), mode.to_owned(), token.to_owned()];
        words.push(self.directory.display().to_string());
        words.push(format!("ro:{}", places.cache.display()));
        for dir in [&places.repo, &places.target] {
            words.push(format!("rw:{}", dir.display()));
        }
        words.extend(self.variables.iter().map(|(name, value)| format!("{name}={value}")));
        words.push("--".to_owned());
        words.extend(self.command.iter().cloned());
        // No shell stays in between: a terminal's Ctrl-C would end it, and the status with it.
        format!("exec {}", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
    }
}

/// The connection to one lab.
#[derive(Debug)]
pub(super) struct Link {
    dir: PathBuf,
    port: u16,
}

impl Link {
    pub(super) fn new(dir: &Path, port: u16) -> Self {
        Self { dir: dir.to_owned(), port }
    }

    /// Whether the shared connection is up.
    pub(super) fn is_open(&self) -> bool {
        program::succeeds(&mut self.control("check"))
    }

    /// Whether a command runs to its end, over a connection of its own when the shared one is gone.
    pub(super) fn answers(&self) -> bool {
        program::succeeds(self.ssh().args(["-T", "lab", "true"]))
    }

    /// Makes the shared connection unless it is up.
    pub(super) fn open(&self) -> Result<()> {
        if self.is_open() {
            return Ok(());
        }
        let control = self.control_path();
        if control.as_os_str().len() > CONTROL_PATH_BYTES_MAX {
            bail!(
                "{} is too long for a socket: set HEARTH_CACHE to a shorter path",
                control.display()
            );
        }
        let _ = fs::remove_file(&control);
        let log_path = self.dir.join("ssh.log");
        let log = File::create(&log_path).context("cannot create the log of ssh")?;
        let errors = log.try_clone().context("cannot share the log of ssh")?;
        // It stays behind, so it must hold none of our streams.
        let mut master = self.ssh();
        master.args(["-M", "-N", "-f", "-o", "ControlPersist=yes"]);
        master.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        if !master.arg("lab").status().context("cannot run ssh")?.success() {
            let said = fs::read_to_string(&log_path).unwrap_or_default();
            bail!("cannot connect to the lab: {}", program::last_lines(&said, 2));
        }
        Ok(())
    }

    /// Ends the shared connection.
    pub(super) fn close(&self) {
        // With the lab gone it ends by itself; this is only sooner.
        let _ = program::succeeds(&mut self.control("exit"));
    }

    /// Runs a command to its end and returns its exit status, 128 and the signal's number if a
    /// signal ended it. A signal to this process goes to the command; the second one is SIGKILL.
    pub(super) fn run(&self, session: &Session, places: &Places) -> Result<i32> {
        let interactive =
            matches!(session.streams, Streams::Inherited) && terminal::is_interactive();
        let token = new_token();
        let mut ssh = self.ssh();
        ssh.arg(if interactive { "-tt" } else { "-T" }).arg("lab");
        ssh.arg(session.line(if interactive { "terminal" } else { "plain" }, &token, places));
        match &session.streams {
            Streams::Logged(path) => {
                let log = File::options().create(true).append(true).open(path);
                let log = log.with_context(|| format!("cannot open {}", path.display()))?;
                let errors = log.try_clone().context("cannot share a log")?;
                ssh.stdin(Stdio::null()).stdout(log).stderr(errors);
            }
            // ssh could not read a terminal from outside its foreground group.
            Streams::Inherited if !interactive && std::io::stdin().is_terminal() => {
                ssh.stdin(Stdio::null());
            }
            Streams::Inherited => {}
        }
        if !interactive {
            // The terminal's Ctrl-C must reach the command before it ends the way to it.
            ssh.process_group(0);
        }
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot take signals")?;
        let handle = signals.handle();
        let mut child = ssh.spawn().context("cannot run ssh")?;
        let status = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut repeated = false;
                for signal in &mut signals {
                    self.send(&token, if repeated { "KILL" } else { signal_name(signal) });
                    repeated = true;
                }
            });
            let status = child.wait();
            handle.close();
            status
        });
        let status = status.context("cannot wait for ssh")?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    pub(super) fn forward(&self, forward: Forward) -> Result<()> {
        let mut ssh = self.control("forward");
        program::output(ssh.args(["-L", &forward.to_string()]))
            .map(drop)
            .with_context(|| format!("cannot forward port {} (is it in use?)", forward.here))
    }

    pub(super) fn unforward(&self, forward: Forward) -> Result<()> {
        let mut ssh = self.control("cancel");
        // A forwarding that does not exist is what was asked for.
        let _ = program::succeeds(ssh.args(["-L", &forward.to_string()]));
        Ok(())
    }

    /// Asks the lab to write everything to its disk and power off, and does not wait.
    pub(super) fn power_off(&self) {
        let script = "sync; echo u >/proc/sysrq-trigger; sync; /run/lab/busybox poweroff -f";
        let mut ssh = self.ssh();
        ssh.args(["-T", "lab", script]);
        let _ = program::succeeds(&mut ssh);
    }

    fn send(&self, token: &str, signal: &str) {
        let mut ssh = self.ssh();
        ssh.args(["-T", "lab", "/run/lab/signal", token, signal]).process_group(0);
        let _ = program::succeeds(&mut ssh);
    }

    fn control(&self, operation: &str) -> Command {
        let mut ssh = self.ssh();
        ssh.args(["-O", operation, "lab"]);
        ssh
    }

    fn ssh(&self) -> Command {
        let mut ssh = program::command("ssh");
        let option = |name: &str, path: PathBuf| format!("{name}={}", path.display());
        ssh.args(["-F", "none", "-l", "root", "-p", &self.port.to_string()])
            .args(["-o", "HostName=127.0.0.1", "-o", "HostKeyAlias=lab"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"])
            .args([
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "LogLevel=ERROR",
                "-o",
                "ExitOnForwardFailure=yes",
            ])
            // A lab that says nothing for two minutes hangs: its commands end then, with an error.
            .args(["-o", "ConnectTimeout=30"])
            .args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8"])
            .args(["-o", &option("UserKnownHostsFile", self.dir.join("known_hosts"))])
            .args(["-o", &option("IdentityFile", self.dir.join("user_key"))])
            .args(["-o", &option("ControlPath", self.control_path())]);
        ssh
    }

    fn control_path(&self) -> PathBuf {
        self.dir.join("ssh")
    }
}

/// Unique among all sessions of one lab: this process's id and a count.
fn new_token() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "INT",
        SIGHUP => "HUP",
        _ => "TERM",
    }
}

/// `word` as a shell takes it literally.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        for word in ["", "plain", "two words", "it's", "$HOME `id` \\ \"q\"", "line\nbreak", "''"] {
            let script = format!("printf %s {}", quoted(word));
            assert_eq!(program::output(Command::new("sh").args(["-c", &script])).unwrap(), word);
        }
    }

    #[test]
    fn a_forwarding_is_one_port_or_two() {
        let parsed = |text: &str| text.parse::<Forward>().ok();
        assert_eq!(parsed("8088"), Some(Forward { here: 8088, there: 8088 }));
        assert_eq!(parsed("9000:80"), Some(Forward { here: 9000, there: 80 }));
        for text in ["", "0", "x", "1:2:3", "70000", ":80", "80:"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
