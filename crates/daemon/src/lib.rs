//! `hearth serve`: the threads, timers, files and sockets around the engine.
//!
//! ```text
//!   http ----\                 .-- replies --> http
//!   desired --+--> handle --> core (one thread, owns the engine, commits)
//!   observer-/        ^        '-- actions --> executor --> Host
//!                     '------------------ done ---'
//! ```
//!
//! It decides nothing about jobs: that is the engine's. It never prints: what a person should see
//! is returned or logged. Ending it leaves every microVM running.

mod admission;
mod backup;
mod boot;
mod caller;
mod clock;
mod convert;
mod core;
mod desired;
pub mod doctor;
mod executor;
mod followed;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod images;
pub mod limits;
mod listen;
mod observer;
mod ownership;
mod source;
mod state_dir;
mod stop;
mod watchdog;

pub use backup::{BackupError, Restored, backup, restore};
pub use boot::{Daemon, Exit, start};
pub use desired::{DEFAULT_DESIRED, DesiredPath};
pub use hearth_engine::{DiskOvercommit, Retention};
pub use hearth_host::linux::FIRST_USER as JAIL_USERS;
pub use hearth_model::KeepImages;
pub use listen::{Listen, ListenError};
pub use source::source_of;
pub use state_dir::{StateDirError, default_state_dir, in_use};

use std::path::PathBuf;
use std::time::Duration;

/// What a daemon is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: Listen,
    /// Who may use it.
    pub callers: Callers,
    /// Where its state lives. Made if it is absent.
    pub state_dir: PathBuf,
    /// The images directory; `images` in the state directory where `None`.
    pub images: Option<PathBuf>,
    /// Largest image that may be used, in GiB.
    pub image_max_gib: u64,
    /// The desired-state file.
    pub desired: DesiredPath,
    /// Whether a file may delete most of its jobs at once.
    pub deletions: MassDeletion,
    /// What runs the microVMs.
    pub host: HostChoice,
    /// How far the host's processors and memory are handed out.
    pub overcommit: Overcommit,
    /// How long finished jobs, events and logs are kept.
    pub retention: Retention,
    /// How long unused copies of images are kept.
    pub keep_images: KeepImages,
}

/// Who may use a daemon, beside root and its own user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callers {
    /// The group whose members may, by name or number; empty for none.
    pub group: String,
    /// Whether every local user may, over the loopback.
    pub open_loopback: bool,
}

/// What a desired-state file may delete by leaving jobs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MassDeletion {
    /// Up to half of its jobs; more is held and shown.
    Held,
    /// As many as it leaves out.
    Allowed,
}

/// What runs the microVMs.
#[derive(Clone, Debug)]
pub enum HostChoice {
    /// Real Firecracker on this machine.
    Linux {
        /// The binary; the one in `PATH` where `None`.
        firecracker: Option<PathBuf>,
        /// The first of the users that microVMs are confined to; unconfined where `None`.
        jail_users: Option<u32>,
    },
    /// Nothing real: microVMs in memory, for trying the API out and for tests.
    Sim {
        /// How long a microVM takes to boot.
        boot: Duration,
    },
}

/// How far the host's processors, memory and disk are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overcommit {
    /// Virtual CPUs for each processor of the host.
    pub vcpus_per_cpu: u32,
    /// MiB of memory that are reserved for the host.
    pub memory_reserve_mib: u64,
    /// What becomes of instances whose scratch disks may come to take more than there is.
    pub disk: DiskOvercommit,
}

impl Default for Overcommit {
    fn default() -> Overcommit {
        Overcommit {
            vcpus_per_cpu: limits::VCPUS_PER_CPU,
            memory_reserve_mib: limits::MEMORY_RESERVE_MIB,
            disk: DiskOvercommit::Warn,
        }
    }
}

/// Why a daemon could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The state directory could not be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The address could not be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The database could not be used.
    #[error("cannot start from the state in {state_dir}")]
    Store {
        /// Which state.
        state_dir: PathBuf,
        /// Why.
        source: Box<hearth_store::StoreError>,
    },
    /// The database can't be replaced by the backup that waits.
    #[error("cannot restore the database from the backup that waits")]
    Restore(#[from] Box<BackupError>),
    /// The host cannot run microVMs.
    #[error("cannot use this machine as a host")]
    Host {
        /// Why, and what to do.
        source: hearth_host::HostError,
    },
    /// The operating system refused something that it never should.
    #[error("cannot {operation}")]
    System {
        /// What was being done.
        operation: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
