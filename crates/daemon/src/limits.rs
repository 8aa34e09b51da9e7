//! Every bound of the daemon in one place, with its reason.

use std::time::Duration;

/// Largest request body, in bytes: the largest spec (48 KiB of cmd and env) with room for the rest.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest body of a plan or an apply, in bytes: that of 10,000 jobs like the example's, which is
/// more than a host runs.
pub const DECLARED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of bodies of plans and applies at once. The next one waits for [`DECLARED_WAIT`] and is refused
/// with 503.
pub const DECLARED_BYTES_TOTAL_MAX: usize = 8 * DECLARED_BYTES_MAX;
/// Bodies of plans and applies that are worked on at once: a tree takes many times the memory of its
/// body, and a second processor is left to requests.
pub const DECLARED_TURNS: usize = 1;
/// How long a plan or an apply waits for room for its body, and then for its turn. A body takes a second
/// at most.
pub const DECLARED_WAIT: Duration = Duration::from_secs(10);
/// Problems that are listed of one body or file; the others are counted.
pub const PROBLEMS_MAX: usize = hearth_model::PROBLEMS_MAX;
/// Look-ups of images of one plan or file between which other requests get a turn.
pub const RESOLVES_AT_ONCE: usize = 64;
/// Largest head of a request, in bytes. hyper's smallest is 8 KiB; ids and paths are short.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request: what clients and proxies send has a tenth of it.
pub const HEADERS_MAX: usize = 100;
/// From a connection (or the answer before) to the end of a request's head: longer is idle.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// From a request's head to the end of its body: a local client sends 64 KiB in no time.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long an answer waits for a reader that takes no bytes. Tunnels wait for ever: their
/// ends may mean it.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Answers smaller than this are not compressed: they fit one packet anyway.
pub const COMPRESSED_BYTES_MIN: u64 = 1024;
/// HTTP connections at once, followers of logs included; half of the process's descriptors where that is
/// less. The next one is turned away with 503.
pub const CONNECTIONS_MAX: usize = 1024;
/// Connections that are turned away at once, and an eighth of those that are served where that is less. The
/// next one waits to be accepted.
pub const TURNED_AWAY_MAX: usize = 32;
/// How long a connection that is turned away has for its request.
pub const TURN_AWAY_DEADLINE: Duration = Duration::from_secs(1);
/// Connections at once of callers who are not admitted, and as many of those of whom the user database has to
/// say whether they are. The next one is closed without an answer. They take nothing from the others.
pub const STRANGERS_MAX: usize = 32;
/// Reads of the user database at once: one that hangs takes a thread.
pub const USER_LOOKUPS_MAX: usize = 2;
/// How long a connection waits for the user database, which may be a server.
pub const USER_LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// How long what the user database said holds: a user who leaves the group is not admitted any more then.
pub const USER_MAX_AGE: Duration = Duration::from_secs(10);
/// Users of whom is remembered whether they are members of the group.
pub const USERS_REMEMBERED_MAX: usize = 1024;
/// Forwarded ports at once: each holds a socket to a guest and two buffers.
pub const TUNNELS_MAX: usize = 512;

/// Longest `Idempotency-Key`, in bytes: a UUID has 36.
pub const KEY_BYTES_MAX: usize = 255;

/// Inputs that wait for the engine. A request beyond that is refused with 503.
pub const INPUTS_MAX: usize = 4096;
/// Inputs of one step, which share one commit. At 128 commits a batch the disk is no bottleneck.
pub const BATCH_MAX: usize = 256;
/// How long a request waits for the engine: it answers within a commit, so this means a fault.
pub const REPLY_DEADLINE: Duration = Duration::from_secs(20);
/// How long `/readyz` waits for the engine. A commit that a locked database refuses takes a second; behind one
/// that takes longer the disk hangs, and what probes a daemon has to hear that before it gives up itself.
pub const READY_DEADLINE: Duration = Duration::from_secs(5);

/// Actions on the host at once. Creations are bounded by the planner as well; stops wait for
/// guests and cost nothing while they do.
pub const ACTIONS_MAX: usize = 64;
/// Longest look at the host, on hardware.
pub const OBSERVE_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks at the host, at everything where that is cheap: what no event told of is seen
/// by then, and the engine acts on no look that is several times as old.
pub const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// After a whole look the next one waits at least so many times as long as it took: with what the
/// engine then makes of it, looking takes well under 1 % of a processor, however many microVMs there are.
pub const OBSERVE_REST_FACTOR: u32 = 1000;
/// And no longer than this, however long it was held up.
pub const OBSERVE_REST_MAX: Duration = Duration::from_secs(10);
/// Shortest time between two looks, so that a storm of events costs no more than this.
pub const OBSERVE_GAP_MIN: Duration = Duration::from_millis(10);
/// Longest wait of a request for its images. What takes longer continues after it, and the job waits.
pub const IMAGE_WAIT: Duration = Duration::from_secs(1);
/// Largest image that may be used, in GiB, unless a setting says otherwise: its digest takes half a
/// minute of a processor.
pub const IMAGE_MAX_GIB: u64 = 64;
/// Longest assignment of an identity to a guest, on hardware.
pub const ASSIGN_DEADLINE: Duration = Duration::from_secs(10);
/// What a stop may take beyond the job's own grace, on hardware.
pub const STOP_SLACK: Duration = Duration::from_secs(20);
/// Longest clean-up of an ended instance, on hardware.
pub const REMOVE_DEADLINE: Duration = Duration::from_secs(30);
/// Longest connection to a port of a guest, on hardware.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// From one reading of a followed log to the next, while lines come without a pause: a person does not see the
/// difference to at once. A line behind a pause is read at once.
pub const FOLLOW_READS_APART: Duration = Duration::from_millis(50);
/// Longest record of a log, in bytes of the app's output; a longer line continues in the next one.
pub use hearth_host::LOG_LINE_BYTES_MAX;
/// Most lines that `tail` can ask for.
pub const TAIL_MAX: usize = 1_000_000;

/// How long a finished job with `auto_remove` is kept after its end and its last follower: a client
/// that waits asks for its exit code within milliseconds, and for a daemon that was away each half second.
pub const AUTO_REMOVE_AFTER: Duration = Duration::from_secs(10);

/// Jobs on one page of a list, and the most that can be asked for.
pub const PAGE_ITEMS: usize = 1000;
/// Followers of logs and events at once. Together with [`TUNNELS_MAX`] they leave half of the
/// connections to requests.
pub const STREAMS_MAX: usize = 512;
/// Events that are held for followers who have not taken them yet. Who falls further behind reads
/// them from the database, which holds 10,000.
pub const EVENTS_BUFFERED: usize = 1024;
/// How often a follower of events, or of a log as JSON lines, hears that it is not forgotten: below the minute or so after
/// which proxies and NATs drop what is silent.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Events of one answer, unless told otherwise.
pub const EVENTS_DEFAULT: usize = 100;
/// Most events of one answer.
pub const EVENTS_MAX: usize = 1000;

/// From the start of a daemon to its first look for unused copies of images: a start has other things to do.
pub const IMAGES_FIRST: Duration = Duration::from_secs(60);
/// And then from one look to the next, by which the ages of copies are wrong at most.
pub const IMAGES_EVERY: Duration = Duration::from_secs(60 * 60);
/// How long a removal of unused copies waits for requests that look images up: they take no longer.
pub const IMAGES_QUIET_WAIT: Duration = Duration::from_secs(2);
/// How long it waits then for the engine, while such requests wait for it.
pub const IMAGES_PLAN_WAIT: Duration = Duration::from_secs(1);

/// How often the desired-state file is looked at where nothing hints at a change: where it can't be
/// watched, such as on a network's file system, a change is seen by then.
pub const DESIRED_EVERY: Duration = Duration::from_secs(1);
/// How long nothing happens to the desired-state file before it is looked at: editors write in steps.
pub const DESIRED_SETTLE: Duration = Duration::from_millis(50);
/// Longest time from the first change of the desired-state file to the look at it: a person does not
/// see the difference to at once.
pub const DESIRED_SETTLE_MAX: Duration = Duration::from_millis(150);
/// Shortest time between two looks at the desired-state file.
pub const DESIRED_GAP_MIN: Duration = Duration::from_millis(10);
/// Longest look at the desired-state file: a network's file system may hang.
pub const DESIRED_DEADLINE: Duration = Duration::from_secs(10);
/// How long a file must not have changed before it may delete jobs: an editor or a copy may be
/// halfway through it.
pub const DESIRED_QUIET: Duration = Duration::from_secs(2);

/// How long open requests may take once the daemon ends. The parts of an end stay well under the 10 s
/// after which a service manager kills.
pub const DRAIN_HTTP: Duration = Duration::from_secs(2);
/// How long actions under way may take once the daemon ends.
pub const DRAIN_ACTIONS: Duration = Duration::from_secs(4);
/// How long all tasks may take once the daemon ends: a disk or a network may hang under one of them.
pub const DRAIN_TASKS: Duration = Duration::from_secs(5);
/// How long the last commit may take once the daemon ends.
pub const DRAIN_CORE: Duration = Duration::from_secs(2);

/// Virtual CPUs for each processor of the host: most guests sleep most of the time.
pub const VCPUS_PER_CPU: u32 = 8;
/// MiB of memory that are reserved for the host: the daemon, the kernel and the page cache need some.
pub const MEMORY_RESERVE_MIB: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_lists_every_bound_as_it_is() {
        let page = include_str!("../../../docs/api.md");
        let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
        let seconds = |duration: Duration| format!("{} s", duration.as_secs());
        let grouped = |count: usize| {
            format!("{},{:03},{:03}", count / 1_000_000, count / 1000 % 1000, count % 1000)
        };
        let body = format!("{}, within {}", kib(BODY_BYTES_MAX), seconds(BODY_DEADLINE));
        let head = format!(
            "{}, {HEADERS_MAX} headers, within {}",
            kib(HEAD_BYTES_MAX),
            seconds(HEAD_DEADLINE)
        );
        let at_once = format!(
            "{} MiB, {DECLARED_TURNS} of them worked on",
            DECLARED_BYTES_TOTAL_MAX / 1024 / 1024
        );
        let asked = format!("{INPUTS_MAX}, {}", seconds(REPLY_DEADLINE));
        let end = format!("{} for requests and streams", seconds(DRAIN_HTTP));
        let silence =
            format!("{} in a row, some 30 s", hearth_planner::Limits::default().silence_max);
        let names = format!("{} characters", hearth_model::ids::NAME_BYTES_MAX);
        let strangers = format!("{STRANGERS_MAX}, {}", seconds(TURN_AWAY_DEADLINE));
        for (bound, value) in [
            ("request body", body),
            ("body of `/plan` and `/apply`", format!("{} MiB", DECLARED_BYTES_MAX / 1024 / 1024)),
            ("bodies of `/plan` and `/apply` at once", at_once),
            ("problems listed of a body or a file", PROBLEMS_MAX.to_string()),
            ("request head", head),
            ("job ids, tenants", names),
            ("`Idempotency-Key`", format!("{KEY_BYTES_MAX} characters; 100,000 keys")),
            ("connections", CONNECTIONS_MAX.to_string()),
            ("connections of callers who are not admitted", strangers),
            ("a reader that takes nothing", seconds(WRITE_DEADLINE)),
            ("a request's wait for an image", seconds(IMAGE_WAIT)),
            ("followed logs and events", STREAMS_MAX.to_string()),
            ("forwarded ports", TUNNELS_MAX.to_string()),
            ("events buffered for followers", EVENTS_BUFFERED.to_string()),
            ("a page of jobs or events", PAGE_ITEMS.max(EVENTS_MAX).to_string()),
            ("lines of `tail`", grouped(TAIL_MAX)),
            ("a record of a log", kib(LOG_LINE_BYTES_MAX)),
            ("a finished job with `auto_remove`", seconds(AUTO_REMOVE_AFTER)),
            ("requests that wait for the database", asked),
            ("`/readyz` and a disk that hangs", seconds(READY_DEADLINE)),
            ("probes that a Firecracker does not answer", silence),
            ("end of the daemon", end),
        ] {
            let row = format!("| {bound} | {value} |");
            assert!(page.contains(&row), "docs/api.md lacks {row}");
        }
    }
}
