//! The VMM: Firecracker's API types and client, how its process is spawned, identified, adopted
//! and ended, its vsock and its console. Knows no job and no tenant.
//!
//! ```text
//!   Spawn::launch ──> Process (pidfd) ──exited()──> ProcessExit
//!        │              └─ identity() ──> Identity, kept by the caller; Process::adopt(Identity)
//!        ├─> Client     configuration before boot, actions after
//!        └─> Console    what the guest printed on its serial port
//!   vsock::connect      to a port of the guest
//! ```
//!
//! Everything that one Firecracker owns lies in one working [`Directory`], by names relative to
//! it, which is the root of its jail. Nothing here ends a process whose identity is in doubt.

#[cfg(test)]
mod attacks;
mod child;
mod client;
mod console;
mod directory;
mod fork;
#[cfg(fuzzing)]
pub mod fuzzing;
mod jail;
pub mod names;
mod process;
mod spawn;
mod version;
pub mod vsock;
mod workplace;

pub use child::try_cgroup;
pub use client::{
    Action, ApiError, BODY_BYTES_MAX, BootSource, CALL_DEADLINE, Client, Drive, InstanceInfo,
    MachineConfig, MicroVmState, RateLimiter, START_DEADLINE, TokenBucket, Vsock,
};
pub use console::{CONSOLE_BYTES_MAX, Console, escaped};
pub use directory::{Directory, SOCKET_PATH_BYTES_MAX};
pub use jail::try_jail;
pub use process::{AdoptError, Identity, Process, ProcessExit, boot_id};
pub use spawn::{Confinement, Launched, Spawn, SpawnError};
pub use version::{Concern, ProbeError, VERSION_MIN, Version};
pub use workplace::Workplace;
