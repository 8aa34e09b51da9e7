//! What can be said on the command line.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use hearth_api::Endpoint;
use hearth_daemon::Listen;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 an error, with its reason on stderr; 2 wrong usage.
`hearth run --wait` passes the job's own exit code on, and exits with 125 where the job failed
without one.

Try: hearth serve --host sim, and in another terminal: hearth ps";

/// Keeps Firecracker microVMs running, and keeps spare ones warm.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Args {
    /// The daemon to talk to: http://HOST:PORT or unix:///PATH
    #[arg(long, global = true, env = "HEARTH_URL", default_value = hearth_api::DEFAULT_URL)]
    pub(crate) url: Endpoint,
    /// How to show things
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How things are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For people with wide screens
    Wide,
    /// For programs: the API's JSON
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon
    Serve(ServeArgs),
    /// Check a desired-state file: every problem in one run
    Validate {
        /// The file
        file: PathBuf,
    },
    /// Run one job
    Run(RunArgs),
    /// List the jobs
    #[command(visible_alias = "list")]
    Ps,
    /// Show one job
    Get {
        /// Its id
        job: String,
    },
    /// Show the jobs and the warm pools
    Stats,
    /// Show the output of a job
    Logs {
        /// Its id
        job: String,
        /// Go on with new lines until the job has ended
        #[arg(short, long)]
        follow: bool,
        /// Only this many of the last lines
        #[arg(long, value_name = "N")]
        tail: Option<usize>,
    },
    /// Delete jobs
    Rm {
        /// Their ids
        #[arg(required_unless_present = "all")]
        jobs: Vec<String>,
        /// All jobs there are
        #[arg(long, conflicts_with = "jobs")]
        all: bool,
        /// Wait until they are gone
        #[arg(long)]
        wait: bool,
    },
    /// End a job's microVM and keep the job
    Stop {
        /// Its id
        job: String,
    },
    /// Start a stopped job, or run a finished one again
    Start {
        /// Its id
        job: String,
    },
    /// Show what happened, to one job or to all
    Events {
        /// The job's id
        job: Option<String>,
        /// At most this many of the newest
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Make a TCP port of a guest reachable on 127.0.0.1
    PortForward {
        /// The job's id
        job: String,
        /// LOCAL:GUEST, or one port for both; LOCAL 0 takes a free one
        ports: PortPair,
    },
    /// Kernels for guests
    Kernel {
        #[command(subcommand)]
        command: KernelCommand,
    },
    /// Show the versions of this program and of the daemon
    Version,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServeArgs {
    /// Where to listen: a loopback address or unix:///PATH
    #[arg(long, env = "HEARTH_LISTEN", default_value = "127.0.0.1:8088")]
    pub(crate) listen: Listen,
    /// Where the state lives [default: /var/lib/hearth as root, else in $XDG_STATE_HOME]
    #[arg(long, env = "HEARTH_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The desired-state file; FC_EX_CP_DESIRED_VMS_CONFIG is taken as well
    /// [default: config/desired_vms.exs, where it is there]
    #[arg(long, env = "HEARTH_DESIRED", value_name = "FILE")]
    pub(crate) desired: Option<PathBuf>,
    /// Kernels and root filesystems [default: images in the state directory]
    #[arg(long, env = "HEARTH_IMAGES", value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// The Firecracker binary [default: from PATH]
    #[arg(long, env = "HEARTH_FIRECRACKER", value_name = "FILE")]
    pub(crate) firecracker: Option<PathBuf>,
    /// What runs the microVMs
    #[arg(long, env = "HEARTH_HOST", value_enum, default_value_t = HostKind::Linux)]
    pub(crate) host: HostKind,
    /// How long a simulated microVM takes to boot, in milliseconds
    #[arg(long, env = "HEARTH_SIM_BOOT_MS", default_value_t = 200, value_name = "MS")]
    pub(crate) sim_boot_ms: u64,
    /// Let the file delete more than half of its jobs at once
    #[arg(long, env = "HEARTH_ALLOW_DELETE")]
    pub(crate) allow_delete: bool,
    /// Virtual CPUs that are handed out for each processor
    #[arg(long, env = "HEARTH_VCPUS_PER_CPU", value_name = "N",
          default_value_t = hearth_daemon::limits::VCPUS_PER_CPU)]
    pub(crate) vcpus_per_cpu: u32,
    /// Memory that is never handed out, in MiB
    #[arg(long, env = "HEARTH_MEMORY_RESERVE_MB", value_name = "MIB",
          default_value_t = hearth_daemon::limits::MEMORY_RESERVE_MIB)]
    pub(crate) memory_reserve_mb: u64,
    /// How the log on stderr is written
    #[arg(long, env = "HEARTH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or by module
    #[arg(long, env = "HEARTH_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

/// What runs the microVMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostKind {
    /// Real Firecracker on this machine
    Linux,
    /// MicroVMs in memory: nothing really runs
    Sim,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// The job's id [default: one is made up]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Its tenant [default: the job's id]
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Root filesystem, a name in the images directory
    #[arg(long)]
    pub(crate) rootfs: String,
    /// Kernel, a name in the images directory
    #[arg(long, default_value = "vmlinux")]
    pub(crate) kernel: String,
    /// Virtual CPUs
    #[arg(long, default_value_t = 1)]
    pub(crate) vcpu: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 128, value_name = "MIB")]
    pub(crate) mem: u32,
    /// An environment variable: KEY=VALUE, or KEY to pass this shell's on
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// service, daemon or job
    #[arg(long, default_value = "job")]
    pub(crate) lifecycle: String,
    /// Show the job's output, wait for its end and exit with its code
    #[arg(long)]
    pub(crate) wait: bool,
    /// Delete the job after its end
    #[arg(long, requires = "wait")]
    pub(crate) rm: bool,
    /// Program and arguments, after --
    #[arg(last = true, required = true)]
    pub(crate) cmd: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Import a distribution's kernel: the ELF image and the modules that guests need
    Import(ImportArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImportArgs {
    /// From a Debian package [default: Debian's current kernel, by apt]
    #[arg(long, value_name = "FILE", conflicts_with = "vmlinuz")]
    pub(crate) from_deb: Option<PathBuf>,
    /// From a kernel file
    #[arg(long, value_name = "FILE", requires = "modules")]
    pub(crate) vmlinuz: Option<PathBuf>,
    /// Its modules: a directory such as /lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "vmlinuz")]
    pub(crate) modules: Option<PathBuf>,
    /// Where to [default: images in the daemon's default state directory]
    #[arg(long, env = "HEARTH_IMAGES", value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// Its name there
    #[arg(long, default_value = "vmlinux")]
    pub(crate) name: String,
}

/// Two TCP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortPair {
    /// On 127.0.0.1.
    pub(crate) local: u16,
    /// On the guest's loopback.
    pub(crate) guest: u16,
}

impl std::str::FromStr for PortPair {
    type Err = String;

    fn from_str(text: &str) -> Result<PortPair, String> {
        let port = |text: &str| {
            text.parse::<u16>().map_err(|_| format!("{text:?} is not a port; write LOCAL:GUEST"))
        };
        let (local, guest) = text.split_once(':').unwrap_or((text, text));
        match (port(local)?, port(guest)?) {
            (_, 0) => Err("the guest's port can't be 0".to_owned()),
            (local, guest) => Ok(PortPair { local, guest }),
        }
    }
}
