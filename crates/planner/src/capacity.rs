//! What fits on a host.

use hearth_model::Resources;
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
}

/// What an instance takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in MiB, the overhead included.
    pub memory_mib: u64,
}

impl Capacity {
    /// What an instance of this size takes.
    #[must_use]
    pub fn need(&self, resources: Resources) -> Need {
        Need {
            vcpus: u64::from(resources.vcpu),
            memory_mib: u64::from(resources.mem_mib) + self.overhead_mib,
        }
    }

    /// All there is.
    #[must_use]
    pub fn total(&self) -> Need {
        Need { vcpus: self.vcpus, memory_mib: self.memory_mib }
    }
}

impl Need {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Need) -> Need {
        Need { vcpus: self.vcpus + other.vcpus, memory_mib: self.memory_mib + other.memory_mib }
    }

    /// What is left without the other.
    #[must_use]
    pub fn minus(self, other: Need) -> Need {
        Need {
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
        }
    }

    /// Whether it fits into the other.
    #[must_use]
    pub fn fits(self, room: Need) -> bool {
        self.vcpus <= room.vcpus && self.memory_mib <= room.memory_mib
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} vCPU and {} MiB", self.vcpus, self.memory_mib)
    }
}
