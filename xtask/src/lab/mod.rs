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

mod initramfs;
mod link;
mod machine;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) use link::{Forward, Session, Streams};
pub(crate) use machine::Machine;

use crate::places::Places;
use crate::terminal::say;
use crate::{kernel, packages, program};
use link::Link;

/// From power-on to the first command: 5 s on a quiet machine, several times that on a busy one.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);
/// From the request to power off to the end of the process.
const POWER_OFF_GRACE: Duration = Duration::from_secs(15);
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
        let kernel = kernel::ensure(&self.places)?;
        say("lab: starting a machine emulated by QEMU, with real KVM and Firecracker in it; \
             everything in it is several times slower than on hardware");
        let started = Instant::now();
        // What the one before said last, should somebody ask why it is gone.
        let _ = fs::rename(self.console(), self.dir.join("console.old.log"));
        let keys = link::Keys::make(&self.dir)?;
        initramfs::write(&kernel, &keys, &self.dir.join("initrd"))?;
        self.make_disk()?;
        let machine = Machine::start(&kernel, &self.dir)?;
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

    /// Makes a port of the lab's 127.0.0.1 reachable at this machine's 127.0.0.1.
    pub(crate) fn forward(&self, forward: Forward) -> Result<()> {
        self.up()?;
        self.connected()?.forward(forward)
    }

    /// Ends a forwarding; one that is not there is no error.
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
        let last = program::last_lines(&String::from_utf8_lossy(&text), 8);
        let qemu = fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
        let qemu = program::last_lines(&qemu, 3);
        format!("the lab ended. The end of its console ({}):\n{last}\n{qemu}", console.display())
    }
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
