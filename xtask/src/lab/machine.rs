//! The emulated machine: one QEMU process that outlives the command which started it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::qemu::Qemu;
use crate::kernel::Kernel;
use crate::process::Process;
use crate::program;

/// Thirty Linux guests fit; more would not help, since the emulated CPUs are the limit.
const MEMORY_MIB_MAX: u64 = 7 * 1024;
const CPUS_MAX: usize = 4;
const RECORD: &str = "machine.json";

/// A running lab, as the state directory records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// QEMU.
    pub(crate) process: Process,
    /// The port of 127.0.0.1 that reaches the lab's SSH.
    pub(crate) ssh_port: u16,
    /// What it was given.
    pub(crate) memory_mib: u64,
}

impl Machine {
    /// The machine that `dir` records, if it still runs.
    pub(super) fn running(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let machine: Self = serde_json::from_slice(&text)
            .with_context(|| format!("cannot understand {}", path.display()))?;
        Ok(Some(machine).filter(|machine| machine.process.is_running()))
    }

    /// Starts QEMU in a session of its own and records it in `dir`.
    pub(super) fn start(qemu: &Qemu, kernel: &Kernel, dir: &Path) -> Result<Self> {
        let memory_mib = memory_mib()?;
        // A port that is free now may be taken before QEMU binds it: another try gets another.
        for _ in 0..3 {
            let ssh_port = free_port()?;
            if let Some(machine) = spawn(qemu, kernel, dir, memory_mib, ssh_port)? {
                let record = serde_json::to_vec(&machine).context("cannot record the lab")?;
                super::write_private(&dir.join(RECORD), &record)?;
                return Ok(machine);
            }
        }
        let log = fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
        bail!("QEMU did not start: {}", program::last_lines(&log, 3));
    }

    /// Removes the record.
    pub(super) fn forget(dir: &Path) -> Result<()> {
        let path = dir.join(RECORD);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }
}

/// Starts QEMU; none when it ended at once, as it does when the port was taken.
fn spawn(
    qemu: &Qemu,
    kernel: &Kernel,
    dir: &Path,
    memory_mib: u64,
    ssh_port: u16,
) -> Result<Option<Machine>> {
    let log = File::create(dir.join("qemu.log")).context("cannot create QEMU's log")?;
    let errors = log.try_clone().context("cannot share QEMU's log")?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from).min(CPUS_MAX);
    let cpus = qemu.cpus(cpus);
    // `-cpu` of QEMU, to try one without some features of its virtualization: `max,vgif=off`.
    let cpu = std::env::var("HEARTH_LAB_CPU").unwrap_or_else(|_| "max".to_owned());
    let mut qemu = qemu.command();
    qemu.args(["-name", "hearth-lab", "-M", "q35", "-nodefaults", "-no-user-config"])
        .args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", &cpu])
        .args(["-smp", &cpus.to_string(), "-m", &memory_mib.to_string()])
        .args(["-display", "none", "-monitor", "none", "-no-reboot"])
        .arg("-serial")
        .arg(format!("file:{}", escaped(&dir.join("console.log"))))
        .arg("-kernel")
        .arg(&kernel.vmlinux)
        .arg("-initrd")
        .arg(dir.join("initrd"))
        .args(["-append", KERNEL_ARGUMENTS])
        .arg("-netdev")
        .arg(format!("user,id=net,hostfwd=tcp:127.0.0.1:{ssh_port}-10.0.2.15:22"))
        .args(["-device", "virtio-net-pci,netdev=net,romfile="])
        .args(["-device", "virtio-rng-pci"])
        // Only the power of the whole machine could lose what its page cache holds.
        .arg("-drive")
        .arg(format!(
            "if=none,id=state,format=raw,cache=unsafe,discard=unmap,file={}",
            escaped(&dir.join("disk.img"))
        ))
        .args(["-device", "virtio-blk-pci,drive=state"])
        .args(["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"])
        .args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"])
        .args(["-fsdev", "local,id=fresh,path=/,security_model=none,multidevs=remap"])
        .args(["-device", "virtio-9p-pci,fsdev=fresh,mount_tag=fresh"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    let mut child = qemu.spawn().context("cannot start QEMU")?;
    let settled = Instant::now() + Duration::from_millis(500);
    while Instant::now() < settled {
        if child.try_wait().context("cannot wait for QEMU")?.is_some() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let process = Process::of(child.id()).context("cannot look at QEMU")?;
    Ok(Some(Machine { process, ssh_port, memory_mib }))
}

/// Quiet, because each line on the emulated console costs time; a panic ends the process; version
/// 1 cgroups are off, so that version 2 has all controllers.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on \
                                mitigations=off cgroup_no_v1=all";

/// QEMU's options separate their parts by commas; a comma in a path is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    Ok(listener.local_addr().context("cannot find a free port")?.port())
}

/// Half of this machine's memory, within bounds; `HEARTH_LAB_MEMORY_MIB` says otherwise.
fn memory_mib() -> Result<u64> {
    if let Ok(wanted) = std::env::var("HEARTH_LAB_MEMORY_MIB") {
        return wanted.parse().context("HEARTH_LAB_MEMORY_MIB is not a number");
    }
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total_kib: u64 = total
        .and_then(|total| total.trim().strip_suffix("kB"))
        .and_then(|total| total.trim().parse().ok())
        .context("/proc/meminfo has no MemTotal")?;
    Ok((total_kib / 1024 / 2).min(MEMORY_MIB_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Machine {
        let process = Process::of(std::process::id()).unwrap();
        Machine { process, ssh_port: 1, memory_mib: 1 }
    }

    #[test]
    fn a_record_of_a_lab_that_is_gone_is_no_lab() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Machine::running(dir.path()).unwrap(), None);
        let mut ended = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let gone = Machine { process: Process::of(ended.id()).unwrap(), ..own() };
        ended.kill().unwrap();
        ended.wait().unwrap();
        fs::write(dir.path().join(RECORD), serde_json::to_vec(&gone).unwrap()).unwrap();
        assert_eq!(Machine::running(dir.path()).unwrap(), None);
        fs::write(dir.path().join(RECORD), serde_json::to_vec(&own()).unwrap()).unwrap();
        assert_eq!(Machine::running(dir.path()).unwrap(), Some(own()));
    }

    #[test]
    fn unreadable_record_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RECORD), "{").unwrap();
        assert!(Machine::running(dir.path()).is_err());
    }
}
