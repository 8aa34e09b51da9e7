//! One cgroup (v2) for each instance, where the daemon may make them, with limits of what its Firecracker may take.
//!
//! ```text
//!   <where cgroup2 is mounted>/hearth/<device>-<inode of the state directory>/<instance>
//! ```
//!
//! So each daemon has a directory of its own, whatever its state directory is called, and a
//! cgroup in it that the daemon does not know is a leftover.

use super::errors;
use crate::HostError;
use hearth_model::{InstanceId, Machine};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the kernel says is mounted (proc_pid_mounts(5)).
const MOUNTS: &str = "/proc/self/mounts";

/// How often a cgroup that should be empty is looked at before that is an error.
const LOOKS_MAX: u32 = 100;
const LOOK_PAUSE: Duration = Duration::from_millis(5);

const NOT_MOUNTED: &str = "microVMs have no limits: cgroup version 2 is not mounted";
/// What is limited, if the kernel has it for this hierarchy: version 1 may have it instead.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// What a Firecracker takes beside its guest's memory: itself 3 MiB, page tables of it and of the guest a 256th
/// of the guest's memory, what the kernel keeps of a microVM, and files on their way to a disk, which can wait. A
/// Linux guest that used all of its 128 MiB took 132 (`memory.peak`, in the lab).
const OVERHEAD_MIB: u64 = 32;
const OVERHEAD_PART: u64 = 128;
/// Threads of Firecracker and of the kernel for a microVM, beside its vCPUs. There are four.
const THREADS: u64 = 16;
/// The share of one vCPU where processors are short: what the kernel gives a cgroup by default.
const WEIGHT: u64 = 100;
const WEIGHT_MAX: u64 = 10_000;

/// Where the cgroups of all instances of a state directory are.
#[derive(Debug)]
pub(super) struct Cgroups {
    dir: PathBuf,
    /// Which of [`CONTROLLERS`] there are.
    controllers: Vec<&'static str>,
}

/// The limits of a microVM: files of its cgroup, by their controller, with what is written to them.
fn limits(machine: &Machine) -> [(&'static str, &'static str, u64); 4] {
    let memory = u64::from(machine.resources.mem_mib);
    let bytes = (memory + OVERHEAD_MIB + memory / OVERHEAD_PART) << 20;
    let vcpus = u64::from(machine.resources.vcpu);
    [
        ("memory", "memory.max", bytes),
        ("memory", "memory.swap.max", 0),
        ("pids", "pids.max", vcpus + THREADS),
        ("cpu", "cpu.weight", (vcpus * WEIGHT).min(WEIGHT_MAX)),
    ]
}

impl Cgroups {
    /// # Errors
    /// Why there can be none: instances run in the daemon's then, without limits.
    pub(super) fn open(state: &Path) -> Result<Cgroups, String> {
        match Cgroups::make_parent(state) {
            Ok(Some(cgroups)) => Ok(cgroups),
            Ok(None) => Err(NOT_MOUNTED.to_owned()),
            Err(error) => Err(format!("microVMs have no limits: cannot make cgroups: {error}")),
        }
    }

    fn make_parent(state: &Path) -> io::Result<Option<Cgroups>> {
        let Some(mount) = mount(&fs::read_to_string(MOUNTS)?) else { return Ok(None) };
        let state = fs::metadata(state)?;
        let all = mount.join("hearth");
        let dir = all.join(format!("{:x}-{:x}", state.dev(), state.ino()));
        let trial = dir.join("trial");
        fs::create_dir_all(&trial)?;
        for above in [&mount, &all, &dir] {
            for controller in CONTROLLERS {
                // What is missing then is missing in the trial.
                let _ = fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let there = fs::read_to_string(trial.join("cgroup.controllers"))?;
        let tried = hearth_firecracker::try_cgroup(fs::File::open(&trial)?.as_fd());
        remove_once_empty(&trial)?;
        tried?;
        Ok(Some(Cgroups { dir, controllers: controllers(&there) }))
    }

    /// Which limits there are not, if any.
    pub(super) fn unlimited(&self) -> Option<String> {
        unlimited(&self.controllers)
    }

    /// Makes the cgroup of an instance, with its limits. One that can't have its limits is not made.
    pub(super) fn make(&self, id: &InstanceId, machine: &Machine) -> Result<PathBuf, HostError> {
        let cgroup = self.dir.join(id.as_str());
        let made = fs::create_dir_all(&cgroup).map_err(errors::file("make", &cgroup));
        let limited = made.and_then(|()| self.limit(&cgroup, machine));
        if let Err(error) = limited {
            let _ = fs::remove_dir(&cgroup);
            return Err(error);
        }
        Ok(cgroup)
    }

    fn limit(&self, cgroup: &Path, machine: &Machine) -> Result<(), HostError> {
        for (controller, name, value) in limits(machine) {
            let file = cgroup.join(name);
            // A kernel without swap has no limit of it.
            if self.controllers.contains(&controller) && (value > 0 || file.exists()) {
                fs::write(&file, value.to_string()).map_err(errors::file("write", &file))?;
            }
        }
        Ok(())
    }

    /// Why the kernel killed what was in the cgroup of an instance, if it did. For before it is removed.
    pub(super) fn killed(&self, id: &InstanceId) -> Option<String> {
        let cgroup = self.dir.join(id.as_str());
        let events = fs::read_to_string(cgroup.join("memory.events")).ok()?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        if kills == "0" {
            return None;
        }
        let max = fs::read_to_string(cgroup.join("memory.max")).unwrap_or_default();
        let max = max.trim().parse::<u64>().map_or(max.clone(), |max| format!("{} MiB", max >> 20));
        Some(format!("killed by the host: it took more memory than its limit, {max}"))
    }

    /// Removes the cgroup of an instance whose process is gone. Succeeds where there is none.
    pub(super) fn remove(&self, id: &InstanceId) -> Result<(), HostError> {
        let cgroup = self.dir.join(id.as_str());
        remove_once_empty(&cgroup).map_err(errors::file("remove", &cgroup))
    }

    /// Removes those that belong to no instance. What has a process in it can't be removed, and is said.
    pub(super) fn sweep(&self, is_known: impl Fn(&str) -> bool) -> Result<(), HostError> {
        for entry in fs::read_dir(&self.dir).map_err(errors::file("read", &self.dir))? {
            let entry = entry.map_err(errors::file("read", &self.dir))?;
            let is_cgroup = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_cgroup || is_known(&entry.file_name().to_string_lossy()) {
                continue;
            }
            if let Err(error) = fs::remove_dir(entry.path()) {
                tracing::warn!(cgroup = %entry.path().display(), %error, "left alone");
            }
        }
        Ok(())
    }
}

/// Which limits there will not be here, if any; for where no daemon runs. Changes nothing.
pub(super) fn unlimited_here() -> Option<String> {
    let there = fs::read_to_string(MOUNTS)
        .ok()
        .and_then(|mounts| fs::read_to_string(mount(&mounts)?.join("cgroup.controllers")).ok());
    match there {
        Some(there) => unlimited(&controllers(&there)),
        None => Some(NOT_MOUNTED.to_owned()),
    }
}

/// Those of [`CONTROLLERS`] that a `cgroup.controllers` names.
fn controllers(there: &str) -> Vec<&'static str> {
    let is_there = |one: &&str| there.split_whitespace().any(|word| word == *one);
    CONTROLLERS.into_iter().filter(is_there).collect()
}

/// Which limits there are not, if any are missing, with the remedy.
fn unlimited(controllers: &[&str]) -> Option<String> {
    let is_missing = |one: &&str| !controllers.contains(one);
    let missing: Vec<_> = CONTROLLERS.into_iter().filter(is_missing).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "microVMs have no limits of {}: cgroup version 2 has no such controller here, as where version 1 \
             has it (boot with cgroup_no_v1=all)",
            missing.join(", ")
        )
    })
}

/// Removes a cgroup whose processes have ended: a thread may be in it for a moment more. Succeeds where it
/// is gone.
fn remove_once_empty(cgroup: &Path) -> io::Result<()> {
    let mut looks = 0..LOOKS_MAX;
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && looks.next().is_some() => {
                std::thread::sleep(LOOK_PAUSE);
            }
            removed => return removed,
        }
    }
}

impl Drop for Cgroups {
    /// Leaves no directory behind that has nothing in it. It is refused where there are instances.
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Where cgroup2 is mounted: at `/sys/fs/cgroup`, or beside version 1 in a directory there.
fn mount(mounts: &str) -> Option<PathBuf> {
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let mount = mounts.find_map(|mut fields| {
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then_some(place)
    })?;
    Some(PathBuf::from(mount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_model::machine::{Origin, Vsock};
    use hearth_model::{Digest, Resources};

    fn machine() -> Machine {
        let kernel = Digest([0; 32]);
        Machine {
            origin: Origin::Boot { kernel, modules: None, initrd: None },
            resources: Resources { vcpu: 2, mem_mib: 512 },
            drives: Vec::new(),
            vsock: Vsock { guest_cid: 3 },
            entropy: false,
        }
    }

    #[test]
    fn controllers_that_are_missing_are_named() {
        assert_eq!(unlimited(&controllers("cpuset cpu io memory hugetlb pids\n")), None);
        let missing = unlimited(&controllers("hugetlb cpuset memory")).expect("some are missing");
        assert!(missing.starts_with("microVMs have no limits of pids, cpu: "), "{missing}");
    }

    #[test]
    fn limits_follow_from_the_size_of_the_machine() {
        let expected = [
            ("memory", "memory.max", 548 << 20),
            ("memory", "memory.swap.max", 0),
            ("pids", "pids.max", 18),
            ("cpu", "cpu.weight", 200),
        ];
        assert_eq!(limits(&machine()), expected);
    }

    #[test]
    fn version_2_is_found_alone_and_beside_version_1() {
        let alone = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(mount(alone), Some(PathBuf::from("/sys/fs/cgroup")));
        let beside = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount(beside), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\n"), None);
    }

    #[test]
    fn what_belongs_to_no_instance_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = Cgroups { dir: dir.path().to_owned(), controllers: Vec::new() };
        let made = |id: &str| cgroups.make(&InstanceId::parse(id).unwrap(), &machine()).unwrap();
        let (known, left) = (made("known"), made("left"));
        cgroups.sweep(|id| id == "known").unwrap();
        assert!(known.is_dir() && !left.exists());
        cgroups.remove(&InstanceId::parse("known").unwrap()).unwrap();
        cgroups.remove(&InstanceId::parse("known").unwrap()).unwrap();
        assert!(!known.exists());
        fs::create_dir(left.parent().unwrap().join("left")).unwrap();
        fs::write(left.join("busy"), "").unwrap();
        let refused = cgroups.remove(&InstanceId::parse("left").unwrap()).unwrap_err();
        assert!(refused.to_string().contains("left"), "{refused}");
    }
}
