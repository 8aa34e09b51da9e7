//! Every bound of the daemon in one place, with its reason.

use std::time::Duration;

/// Largest request body, in bytes: the largest spec (48 KiB of cmd and env) with room for the rest.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest head of a request, in bytes. hyper's smallest is 8 KiB; ids and paths are short.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// From a connection (or the answer before) to the end of a request's head: longer is idle.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// From a request's head to the end of its body: a local client sends 64 KiB in no time.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// HTTP connections at once, followers of logs included. The next one waits to be accepted.
pub const CONNECTIONS_MAX: usize = 1024;
/// Forwarded ports at once: each holds a socket to a guest and two buffers.
pub const TUNNELS_MAX: usize = 512;

/// Longest `Idempotency-Key`, in bytes: a UUID has 36.
pub const KEY_BYTES_MAX: usize = 255;

/// Inputs that wait for the engine. A request beyond that is refused with 503.
pub const INTAKE_MAX: usize = 4096;
/// Inputs of one step, which share one commit. At 128 commits a batch the disk is no bottleneck.
pub const BATCH_MAX: usize = 256;
/// How long a request waits for the engine: it answers within a commit, so this means trouble.
pub const REPLY_DEADLINE: Duration = Duration::from_secs(20);

/// Actions on the host at once. Creations are bounded by the planner as well; stops wait for
/// guests and cost nothing while they do.
pub const ACTIONS_MAX: usize = 64;
/// Longest look at the host, on hardware.
pub const OBSERVE_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks at everything: what no event told of is seen by then.
pub const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// After a whole look the next one waits at least so many times as long as it took: looking takes
/// no more than 1 % of a processor, however many microVMs there are.
pub const OBSERVE_REST_FACTOR: u32 = 100;
/// Shortest time between two looks, so that a storm of events costs no more than this.
pub const OBSERVE_GAP_MIN: Duration = Duration::from_millis(10);
/// Longest look-up of a job's images, on hardware: BLAKE3 reads several GiB in that time.
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(60);
/// Longest telling of a guest whose it is, on hardware.
pub const TELL_DEADLINE: Duration = Duration::from_secs(10);
/// What a stop may take beyond the job's own grace, on hardware.
pub const STOP_SLACK: Duration = Duration::from_secs(20);
/// Longest clean-up of an ended instance, on hardware.
pub const REMOVE_DEADLINE: Duration = Duration::from_secs(30);
/// Longest connection to a port of a guest, on hardware.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How often a followed log is read: a person does not see the difference to at once.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// How often a follower asks whether its job has ended.
pub const FOLLOW_ASK_EVERY: Duration = Duration::from_secs(1);
/// Longest line that is sent of a log, in bytes; the rest of it is cut.
pub const LOG_LINE_BYTES_MAX: usize = 256 * 1024;
/// Most lines that `tail` can ask for.
pub const TAIL_MAX: usize = 1_000_000;

/// Jobs on one page of a list, and the most that can be asked for.
pub const PAGE_ITEMS: usize = 1000;
/// Events of one answer, unless told otherwise.
pub const EVENTS_DEFAULT: usize = 100;
/// Most events of one answer.
pub const EVENTS_MAX: usize = 1000;

/// How often the desired-state file is looked at where nothing hints at a change: where it can't be
/// watched, such as on a network's file system, a change is seen by then.
pub const DESIRED_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two looks at the desired-state file.
pub const DESIRED_GAP_MIN: Duration = Duration::from_millis(10);
/// Longest look at the desired-state file: a network's file system may hang.
pub const DESIRED_DEADLINE: Duration = Duration::from_secs(10);
/// How long a file must not have changed before it may delete jobs: an editor or a copy may be
/// halfway through it.
pub const DESIRED_QUIET: Duration = Duration::from_secs(2);

/// How long open requests may take once the daemon ends. The three parts of an end stay well
/// under the 10 s after which a service manager kills.
pub const DRAIN_HTTP: Duration = Duration::from_secs(2);
/// How long actions under way may take once the daemon ends.
pub const DRAIN_ACTIONS: Duration = Duration::from_secs(4);
/// How long the last commit may take once the daemon ends.
pub const DRAIN_CORE: Duration = Duration::from_secs(2);

/// Virtual CPUs for each processor of the host: most guests sleep most of the time.
pub const VCPUS_PER_CPU: u32 = 8;
/// MiB of memory that are never handed out: the daemon, the kernel and the page cache need some.
pub const MEMORY_RESERVE_MIB: u64 = 512;
