//! What this machine is: which Firecracker, whether its KVM can boot Linux, how fast time passes
//! for a guest, and what it can hold. It changes nothing.

use super::LinuxConfig;
use crate::{HostError, HostFacts};
use hearth_firecracker::Version;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the binary may take to say its version; on a cold disk of an emulated machine it
/// takes a second.
const VERSION_DEADLINE: Duration = Duration::from_secs(30);
/// By how much deadlines are stretched where QEMU emulates the CPU.
const EMULATED_FACTOR: u32 = 10;
/// What a Firecracker takes beside its guest's memory: 2.4 MB were measured; the page tables and
/// buffers of a busy guest are on top.
const OVERHEAD_MIB: u64 = 5;

pub(super) fn probe(config: &LinuxConfig) -> Result<(PathBuf, HostFacts), HostError> {
    let binary = find(&config.firecracker)?;
    let version = Version::probe(&binary, VERSION_DEADLINE).map_err(|error| {
        HostError::permanent("cannot use Firecracker; --firecracker names another").because(error)
    })?;
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let emulated = cpuinfo.contains("QEMU TCG");
    let mut warnings: Vec<String> = version
        .concerns()
        .iter()
        .map(|concern| format!("Firecracker {version} at {}: {concern}", binary.display()))
        .collect();
    warnings.extend(kvm_warning(&cpuinfo));
    if config.jail_users.is_none() {
        let how = match rustix::process::geteuid().is_root() {
            true => "jail is off",
            false => "only root's daemon can confine them",
        };
        warnings.push(format!("microVMs are not confined and have this user's rights: {how}"));
    }
    if emulated {
        warnings.push("this machine's CPU is emulated: everything is slow".to_owned());
    }
    let uname = rustix::system::uname();
    let kernel = uname.release().to_string_lossy();
    let facts = HostFacts {
        description: format!("Firecracker {version} on Linux {kernel}"),
        warnings,
        cpus: std::thread::available_parallelism()
            .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        memory_mib: memory_mib(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        time_factor: config
            .time_factor
            .unwrap_or(if emulated { EMULATED_FACTOR } else { 1 })
            .max(1),
        overhead_mib: OVERHEAD_MIB,
    };
    Ok((binary, facts))
}

/// A path as it is; a bare name from `PATH`.
fn find(binary: &Path) -> Result<PathBuf, HostError> {
    if binary.components().count() > 1 || binary.is_absolute() {
        return std::path::absolute(binary).map_err(super::errors::file("find", binary));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(binary)).find(|at| at.is_file());
    found.ok_or_else(|| {
        HostError::permanent(format!(
            "cannot find {} in PATH; --firecracker names it by its path",
            binary.display()
        ))
    })
}

fn kvm_warning(cpuinfo: &str) -> Option<String> {
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    if !Path::new("/dev/kvm").exists() {
        return Some("there is no /dev/kvm: no microVM can start".to_owned());
    }
    if rustix::fs::access("/dev/kvm", access).is_err() {
        return Some("/dev/kvm can't be opened: is this user in the group kvm?".to_owned());
    }
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    let flags = flags.next().unwrap_or_default();
    let extended = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    (!extended).then(|| {
        "the CPU shows neither vmx nor svm: an ordinary Linux guest will not boot here".to_owned()
    })
}

pub(super) fn memory_mib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = total
        .and_then(|total| total.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0);
    kib / 1024
}
