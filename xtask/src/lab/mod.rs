//! The lab: real Firecracker for a machine whose KVM can't boot Linux.
//!
//! QEMU emulates a machine whose CPU has AMD's virtualization; a Linux in it has a working
//! `/dev/kvm`. Its root is this machine's, read-only, under a layer in memory. What must be fresh
//! (the clone, the target directory, the cache) is mounted once more without a cache. State is on
//! a disk of its own that outlives the lab. It is slow, and it is the real thing.
//!
//! Commands reach it over SSH on a port of 127.0.0.1, with keys made for this one boot.
//!
//! The lab runs with the rights of the user who started it, and root in it can write what that
//! user can write: it keeps guests apart from the machine, not the developer from their files.

mod boots;
mod initramfs;
mod link;
mod machine;
mod qemu;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) use boots::{Boots, boots};
pub(crate) use link::{Forward, SSH_FAILED, Session, Streams};
pub(crate) use machine::Machine;

use crate::places::Places;
use crate::terminal::say;
use crate::{kernel, packages, program};
use link::Link;
use qemu::Qemu;

/// From power-on to the first command: 5 s on a quiet machine, several times that on a busy one.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);
/// From the request to power off to the end of the process.
const POWER_OFF_GRACE: Duration = Duration::from_secs(15);
/// From the end of its connections to the end of a machine that dies.
const DEATH_GRACE: Duration = Duration::from_secs(2);
/// What the disk for state may grow to; it is sparse.
const DISK_BYTES: u64 = 20 << 30;

/// The lab of one clone.
#[derive(Debug)]
pub(crate) struct Lab {
    places: Places,
    /// Keys, console, disk, and who runs it. 0700.
    dir: PathBuf,
}

impl Lab {
    /// The lab of this clone, running or not.
    pub(crate) fn of(places: &Places) -> Result<Self> {
        let dir = places.cache.join("lab").join(places.clone_key());
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .with_context(|| format!("cannot close {} to others", dir.display()))?;
        Ok(Self { places: places.clone(), dir })
    }

    /// The machine, if it runs.
    pub(crate) fn machine(&self) -> Result<Option<Machine>> {
        Machine::running(&self.dir)
    }

    /// Starts the lab unless it runs, and returns when it takes commands.
    pub(crate) fn up(&self) -> Result<()> {
        let _lock = self.lock()?;
        if let Some(machine) = self.machine()? {
            return self.link(&machine).open();
        }
        packages::ensure(packages::IMAGES)?;
        packages::ensure(packages::LAB)?;
        let qemu = Qemu::ensure(&self.places)?;
        let kernel = kernel::ensure(&self.places)?;
        say("lab: starting a machine emulated by QEMU, with real KVM and Firecracker in it; \
             everything in it is several times slower than on hardware");
        let started = Instant::now();
        // Kept to find out why the previous lab ended.
        let _ = fs::rename(self.console(), self.dir.join("console.old.log"));
        let keys = link::Keys::make(&self.dir)?;
        initramfs::write(&kernel, &keys, &self.dir.join("initrd"))?;
        self.make_disk()?;
        let machine = Machine::start(&qemu, &kernel, &self.dir)?;
        self.await_commands(&machine)?;
        say(format_args!(
            "lab: up after {:.1} s ({} MiB; `cargo xtask lab down` ends it)",
            started.elapsed().as_secs_f32(),
            machine.memory_mib
        ));
        Ok(())
    }

    /// Runs a command in the lab, which is started when it is down, and returns its exit status.
    pub(crate) fn run(&self, session: &Session) -> Result<i32> {
        self.up()?;
        self.connected()?.run(session, &self.places)
    }

    /// As [`Lab::run`], with why the lab was lost under the command if it was.
    pub(crate) fn run_watched(&self, session: &Session) -> Result<(i32, Option<String>)> {
        let status = self.run(session)?;
        let lost = if status == SSH_FAILED { self.lost()? } else { None };
        Ok((status, lost))
    }

    /// Makes a port of the lab's 127.0.0.1 reachable at this machine's 127.0.0.1, for every local user: in
    /// the lab the connections are those of root's sshd.
    pub(crate) fn forward(&self, forward: Forward) -> Result<()> {
        self.up()?;
        self.connected()?.forward(forward)?;
        say(format_args!(
            "lab: every local user who connects to 127.0.0.1:{} is root's client in the lab",
            forward.here
        ));
        Ok(())
    }

    /// Ends a forwarding; it is not an error if it does not exist.
    pub(crate) fn unforward(&self, forward: Forward) -> Result<()> {
        match self.machine()? {
            Some(machine) => self.link(&machine).unforward(forward),
            None => Ok(()),
        }
    }

    /// Powers the lab off, with its disk synced; by force when it does not go by itself. Returns
    /// whether there was one.
    pub(crate) fn down(&self) -> Result<bool> {
        let _lock = self.lock()?;
        let Some(machine) = self.machine()? else {
            return Ok(false);
        };
        let link = self.link(&machine);
        link.power_off();
        if !machine.process.ended_within(POWER_OFF_GRACE) {
            say("lab: it does not power off; ending its process");
            machine.process.kill()?;
        }
        link.close();
        Machine::forget(&self.dir)?;
        Ok(true)
    }

    /// What became of the lab when a session ended as ssh does where its connection breaks
    /// ([`SSH_FAILED`]): none when it takes commands, so that the status was the command's own. A
    /// lab that hangs is ended, so that the next command starts a new one.
    pub(crate) fn lost(&self) -> Result<Option<String>> {
        let _lock = self.lock()?;
        let Some(machine) = self.machine()? else {
            return Ok(Some(self.why_it_died()));
        };
        // A machine that dies takes its connections with it a moment before its process ends.
        if !machine.process.ended_within(DEATH_GRACE) {
            let link = self.link(&machine);
            if link.answers() {
                return Ok(None);
            }
            machine.process.kill()?;
            link.close();
        }
        Machine::forget(&self.dir)?;
        Ok(Some(self.why_it_died()))
    }

    /// Whether the lab's kernel says on its console why it died.
    pub(crate) fn panicked(&self) -> bool {
        let console = fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(&console).lines().any(says_why)
    }

    /// Removes the disk with all state that the lab kept. The lab must be down.
    pub(crate) fn wipe(&self) -> Result<()> {
        let _lock = self.lock()?;
        if self.machine()?.is_some() {
            bail!("the lab runs: end it with `cargo xtask lab down` first");
        }
        match fs::remove_file(self.disk()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.disk().display()))
            }
            _ => Ok(()),
        }
    }

    /// The console of the last boot.
    pub(crate) fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    fn connected(&self) -> Result<Link> {
        let machine = self.machine()?.with_context(|| self.why_it_died())?;
        let link = self.link(&machine);
        if !link.is_open() {
            let _lock = self.lock()?;
            link.open()?;
        }
        Ok(link)
    }

    fn link(&self, machine: &Machine) -> Link {
        Link::new(&self.dir, machine.ssh_port)
    }

    fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    fn lock(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    fn make_disk(&self) -> Result<()> {
        let disk = self.disk();
        if disk.exists() {
            return Ok(());
        }
        // Formatted under another name: a disk that is there is a disk that is whole.
        let raw = disk.with_extension("raw");
        let file =
            File::create(&raw).with_context(|| format!("cannot create {}", raw.display()))?;
        file.set_len(DISK_BYTES).with_context(|| format!("cannot size {}", raw.display()))?;
        let mut format = program::command("mke2fs");
        format.args(["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,root_owner=0:0"]);
        program::output(format.arg(&raw))?;
        fs::rename(&raw, &disk).with_context(|| format!("cannot move {}", raw.display()))
    }

    fn await_commands(&self, machine: &Machine) -> Result<()> {
        let link = self.link(machine);
        let deadline = Instant::now() + BOOT_DEADLINE;
        while !self.says_ready() {
            if !machine.process.is_running() {
                Machine::forget(&self.dir)?;
                bail!("{}", self.why_it_died());
            }
            if Instant::now() > deadline {
                machine.process.kill()?;
                Machine::forget(&self.dir)?;
                bail!("the lab was not up within {BOOT_DEADLINE:?}; {}", self.why_it_died());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        loop {
            match link.open() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline || !machine.process.is_running() => {
                    return Err(error).context("the lab is up and takes no commands");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn says_ready(&self) -> bool {
        fs::read(self.console())
            .is_ok_and(|console| String::from_utf8_lossy(&console).contains("lab: ready"))
    }

    fn why_it_died(&self) -> String {
        let console = self.console();
        let text = fs::read(&console).unwrap_or_default();
        let last = final_output(&String::from_utf8_lossy(&text));
        let qemu = fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
        let qemu = program::last_lines(&qemu, 3);
        let words = format!("{last}\n{qemu}");
        format!("the lab ended. Its final output ({}):\n{}", console.display(), words.trim())
    }
}

/// The part of a console that says why it ends there: a kernel's own reason to die is followed by
/// pages of registers, so the lines from that reason on; without one the last lines.
fn final_output(console: &str) -> String {
    const LINES: usize = 8;
    let lines: Vec<_> = console.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.iter().position(|line| says_why(line));
    let first = first.unwrap_or(lines.len().saturating_sub(LINES));
    lines[first..].iter().take(LINES).copied().collect::<Vec<_>>().join("\n")
}

fn says_why(line: &str) -> bool {
    let reasons = ["BUG: ", "Oops", "Kernel panic", "general protection", "int3: "];
    reasons.iter().any(|reason| line.contains(reason))
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let _ = fs::remove_file(path);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab_in(dir: &Path) -> Lab {
        let at = |name: &str| dir.join(name);
        let (repo, cache) = (at("repo"), at("cache"));
        Lab::of(&Places { repo, cache, target: at("target"), build: at("build") }).unwrap()
    }

    #[test]
    fn lost_lab_leaves_its_final_output() {
        let dir = tempfile::tempdir().unwrap();
        let lab = lab_in(dir.path());
        fs::write(lab.console(), "lab: ready\n[ 4.2] Kernel panic - not syncing: test\n").unwrap();
        let why = lab.lost().unwrap().unwrap();
        assert!(why.contains("not syncing: test"), "{why}");
        assert!(why.contains(&lab.console().display().to_string()), "{why}");
    }

    #[test]
    fn reason_of_a_panic_is_shown_without_the_registers() {
        let registers: String = (0..40).map(|n| format!("[ 42.{n}] R{n}: 0000\n")).collect();
        let console = format!(
            "lab: ready\n[ 11.1] kvm [211]: Unhandled WRMSR\n\n\
             [ 42.4] BUG: TASK stack guard page was hit\n{registers}"
        );
        let words = final_output(&console);
        assert!(words.starts_with("[ 42.4] BUG: TASK stack guard page"), "{words}");
        assert_eq!(words.lines().count(), 8);
        assert_eq!(final_output("lab: ready\n\nlast\n"), "lab: ready\nlast");
        assert_eq!(final_output(""), "");
    }
}
