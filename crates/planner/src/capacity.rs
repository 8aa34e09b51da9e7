//! What fits on a host.

use hearth_model::{Resources, Spec};
use std::fmt;

/// What the host can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Virtual CPUs: the host's, times the overcommit.
    pub vcpus: u64,
    /// Memory in MiB, less the reserve.
    pub memory_mib: u64,
    /// Memory that each instance costs beside its own, in MiB.
    pub overhead_mib: u64,
    /// What scratch disks may take in all, in MiB; `None` where they may take what they like.
    pub scratch_mib: Option<u64>,
}

/// What an instance takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in MiB, the overhead included.
    pub memory_mib: u64,
    /// What scratch disks may take, in MiB; 0 where they may take what they like.
    pub scratch_mib: u64,
}

impl Capacity {
    /// What an instance of this spec takes.
    #[must_use]
    pub fn need(&self, spec: &Spec) -> Need {
        let scratch_mib = self.scratch_mib.map_or(0, |_| spec.scratch_mib());
        Need { scratch_mib, ..self.need_of(spec.resources) }
    }

    /// What an instance of this size takes beside its scratch disk.
    #[must_use]
    pub fn need_of(&self, resources: Resources) -> Need {
        Need {
            vcpus: u64::from(resources.vcpu),
            memory_mib: u64::from(resources.mem_mib) + self.overhead_mib,
            scratch_mib: 0,
        }
    }

    /// All there is.
    #[must_use]
    pub fn total(&self) -> Need {
        Need {
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            scratch_mib: self.scratch_mib.unwrap_or(0),
        }
    }
}

impl Need {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Need) -> Need {
        Need {
            vcpus: self.vcpus + other.vcpus,
            memory_mib: self.memory_mib + other.memory_mib,
            scratch_mib: self.scratch_mib + other.scratch_mib,
        }
    }

    /// What is left without the other.
    #[must_use]
    pub fn minus(self, other: Need) -> Need {
        Need {
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            scratch_mib: self.scratch_mib.saturating_sub(other.scratch_mib),
        }
    }

    /// Whether it fits into the other.
    #[must_use]
    pub fn fits(self, room: Need) -> bool {
        self.vcpus <= room.vcpus
            && self.memory_mib <= room.memory_mib
            && self.scratch_mib <= room.scratch_mib
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scratch_mib {
            0 => write!(f, "{} vCPU and {} MiB", self.vcpus, self.memory_mib),
            disk => {
                write!(f, "{} vCPU, {} MiB and {disk} MiB of disk", self.vcpus, self.memory_mib)
            }
        }
    }
}
