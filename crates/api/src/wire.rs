//! The JSON objects of the API.

use crate::document::Spec;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::fmt;
use utoipa::ToSchema;

/// The media type of streamed JSON lines.
pub const NDJSON: &str = "application/x-ndjson";

/// The media type of server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";

/// A job: the answer to POST, GET, stop and start, and an element of `/stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its name.
    pub job_id: String,
    /// The microVM that serves it or will, `vm-…`; null while there is none.
    #[schema(required = true)]
    pub vm_id: Option<String>,
    /// Its tenant.
    pub tenant: String,
    /// What it does.
    pub status: JobStatus,
    /// Why, or what it waits for; a sentence.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// Since when, RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub since: String,
    /// Grows with every accepted change.
    pub generation: u64,
    /// The code with which its command exited last, where it exited with one.
    #[schema(required = true)]
    pub exit_code: Option<u8>,
    /// How its last microVM of this generation exited; null if none has.
    #[serde(default)]
    #[schema(required = true)]
    pub exit: Option<Exit>,
    /// `false` while its microVM runs unconfined: outside of a jail. Not there otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub confined: Option<bool>,
    /// What it runs.
    #[schema(value_type = Spec)]
    pub spec: Value,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits; the reason says for what.
    Pending,
    /// Its instance boots, or is not ready yet.
    Starting,
    /// Runs, and is ready.
    Running,
    /// Its instance is being stopped.
    Stopping,
    /// Stopped on request, and kept.
    Stopped,
    /// Its command exited with 0.
    Completed,
    /// Ended otherwise.
    Failed,
}

impl JobStatus {
    /// All there are, in the order of a job's life.
    pub const ALL: [JobStatus; 7] = [
        JobStatus::Pending,
        JobStatus::Starting,
        JobStatus::Running,
        JobStatus::Stopping,
        JobStatus::Stopped,
        JobStatus::Completed,
        JobStatus::Failed,
    ];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            JobStatus::Pending => "pending",
            JobStatus::Starting => "starting",
            JobStatus::Running => "running",
            JobStatus::Stopping => "stopping",
            JobStatus::Stopped => "stopped",
            JobStatus::Completed => "completed",
            JobStatus::Failed => "failed",
        }
    }

    /// Whether nothing more happens to the job unless somebody asks.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, JobStatus::Stopped | JobStatus::Completed | JobStatus::Failed)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The body of `POST /vms`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateVm {
    /// The job's name; one is generated if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Its tenant; the job's name if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What it runs.
    pub spec: Value,
}

/// The answer to a DELETE that could not finish at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// The job that is going.
    pub job_id: String,
    /// The microVM that is being stopped.
    #[schema(required = true)]
    pub vm_id: Option<String>,
    /// `stopping`.
    pub status: JobStatus,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The elements.
    pub items: Vec<T>,
    /// The cursor of the next page, for the `after` parameter; null at the end.
    #[schema(required = true)]
    pub next: Option<String>,
}

/// The answer to `GET /stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Totals.
    pub summary: Summary,
    /// All jobs, by id.
    pub jobs: Vec<Job>,
    /// All pools that have microVMs or should have some.
    #[serde(default)]
    #[schema(required = true)]
    pub pools: Vec<Pool>,
    /// All pool instances.
    pub warm_pool: Vec<WarmVm>,
    /// What was found on the host and could not be identified, and so is left alone. Sentences.
    pub unidentified: Vec<String>,
    /// The desired-state file; null until the daemon has looked at it.
    #[schema(required = true)]
    pub desired_file: Option<DesiredFile>,
}

/// How the desired-state file stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DesiredFile {
    /// Where it is.
    pub path: String,
    /// Whether it is in force.
    pub status: DesiredFileStatus,
    /// Since when it has this status, RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub since: String,
    /// When it was last loaded; null where it never was by this daemon.
    #[schema(format = DateTime, required = true)]
    pub loaded_at: Option<String>,
    /// Entries of the last load.
    pub entries: usize,
    /// Jobs that the last load made or changed.
    pub applied: usize,
    /// Jobs that the last load deleted.
    pub deleted: usize,
    /// Jobs that the file no longer has and that are kept, since they are too many to delete
    /// unasked.
    pub held: Vec<String>,
    /// Entries that could not be applied, up to 100 of them.
    pub refused: Vec<RefusedEntry>,
    /// How many more entries could not be applied.
    #[serde(default, skip_serializing_if = "crate::problem::is_zero")]
    pub refused_omitted: usize,
    /// What is wrong, with line and column where the text is; a sentence.
    #[schema(required = true)]
    pub problem: Option<String>,
    /// What to do about it.
    #[schema(required = true)]
    pub help: Option<String>,
}

/// Whether the desired-state file is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DesiredFileStatus {
    /// There is none, and the settings name none.
    Absent,
    /// It is loaded as it stands.
    Loaded,
    /// It can't be read or has problems: the last good state stays in effect.
    Failed,
    /// It is loaded but for deletions, which are too many to be made unasked.
    Held,
}

impl DesiredFileStatus {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DesiredFileStatus::Absent => "absent",
            DesiredFileStatus::Loaded => "loaded",
            DesiredFileStatus::Failed => "failed",
            DesiredFileStatus::Held => "held",
        }
    }
}

impl fmt::Display for DesiredFileStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An entry that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedEntry {
    /// Its job.
    pub job_id: String,
    /// Why; a sentence.
    pub reason: String,
}

/// The body of `POST /plan` and `POST /apply`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// The file that declares them, as an absolute path; `None` where no file does, and so nothing
    /// is deleted for having left one.
    pub source: Option<String>,
    /// The jobs, each with its name.
    pub entries: Vec<CreateVm>,
    /// Whether more than half of the file's jobs may be deleted at once.
    #[serde(default)]
    pub allow_delete: bool,
}

/// What an apply would do, or did: the answer to `POST /plan` and `POST /apply`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Jobs that are made.
    pub create: Vec<String>,
    /// Jobs that are replaced by a new generation.
    pub replace: Vec<ChangedJob>,
    /// Jobs whose policy alone changes: their microVMs stay.
    pub update: Vec<ChangedJob>,
    /// Jobs that are deleted, since the file no longer has them.
    pub delete: Vec<String>,
    /// Jobs that the file no longer has and that stay, since they are too many to delete without
    /// `allow_delete`.
    pub held: Vec<String>,
    /// Jobs that the file no longer has and that stay, since they were changed otherwise since.
    pub kept: Vec<String>,
    /// Entries that are refused.
    pub refused: Vec<RefusedEntry>,
    /// How many entries are as they were.
    pub unchanged: usize,
    /// Pools that no job requests any more.
    pub pools: Vec<DrainedPool>,
}

/// A job that is changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangedJob {
    /// Its name.
    pub job_id: String,
    /// Why, where its spec does not say it; a sentence.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// What its spec says otherwise.
    pub changes: Vec<SpecChange>,
}

/// A field of a spec that is another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpecChange {
    /// Where, as a JSON pointer into the spec.
    pub path: String,
    /// What it was; null where it was not there.
    #[schema(required = true)]
    pub from: Value,
    /// What it becomes; null where it goes.
    #[schema(required = true)]
    pub to: Value,
}

/// A pool that no job requests any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainedPool {
    /// What its instances are made of: 16 upper-case hex digits.
    #[schema(pattern = "^[0-9A-F]{16}$")]
    pub spec_hash: String,
    /// How many instances go.
    pub drained: usize,
}

/// Totals of `/stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// All jobs there are.
    pub total_jobs: usize,
    /// Pool instances that can be claimed now.
    pub total_warm: usize,
}

/// A pool: the warm microVMs of one make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Whose jobs may claim from it; null: the jobs for which no tenant was given.
    #[schema(required = true)]
    pub tenant: Option<String>,
    /// What its microVMs are made of: 16 upper-case hex digits.
    #[schema(pattern = "^[0-9A-F]{16}$")]
    pub spec_hash: String,
    /// Their root filesystem; null for raw guests without one.
    #[schema(required = true)]
    pub rootfs: Option<String>,
    /// How many jobs want warm microVMs of it.
    pub jobs: usize,
    /// How many microVMs it should have: the largest `min` of these jobs.
    pub target: u32,
    /// How many can be claimed now.
    pub warm: usize,
    /// How many are on their way.
    pub starting: usize,
    /// How often a job got a warm microVM, since the daemon's start.
    pub hits: u64,
    /// How often a job booted a microVM of its own because none was warm, since the daemon's start.
    pub misses: u64,
}

/// A pool instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WarmVm {
    /// What it is made of: 16 upper-case hex digits.
    #[schema(pattern = "^[0-9A-F]{16}$")]
    pub spec_hash: String,
    /// `warm-…`.
    pub vm_id: String,
    /// Whose jobs may claim it; null: the jobs for which no tenant was given.
    #[schema(required = true)]
    #[serde(default)]
    pub tenant: Option<String>,
    /// `warm` when it can be claimed, else `starting` or `stopping`.
    pub status: String,
    /// Why, where it is not warm.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// What it runs.
    #[schema(value_type = Spec)]
    pub spec: Value,
}

/// A line of a job's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When the host received it, RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub at: String,
    /// The microVM it came from.
    pub vm_id: String,
    /// `stdout`, `stderr`, or `hearth` for what the host itself has to say.
    pub stream: String,
    /// The line without its end.
    pub text: String,
    /// Whether the line continues in the next record of this microVM and stream, if there is one: the
    /// app has not ended it yet, or it is longer than a record.
    #[serde(default)]
    #[schema(required = true)]
    pub partial: bool,
    /// Its place in the microVM's log; a reader continues after it with `after=VM_ID:CURSOR`.
    pub cursor: u64,
}

/// A record of a job's output as JSON lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum LogRecord {
    /// A line.
    Line(LogLine),
    /// Nothing was written for a while.
    Heartbeat(Heartbeat),
}

/// A sign of life in a followed log, every 15 s while nothing is written, so that no proxy takes the
/// connection for a dead one. Readers ignore it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Heartbeat {
    /// When it was sent, RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub heartbeat: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows with every event.
    pub id: u64,
    /// When, RFC 3339 UTC.
    #[schema(format = DateTime)]
    pub at: String,
    /// The job it is about.
    #[schema(required = true)]
    pub job_id: Option<String>,
    /// The microVM it is about: its suffix, under which it was warm and served.
    #[schema(required = true)]
    pub instance: Option<String>,
    /// The generation it served.
    #[schema(required = true)]
    pub generation: Option<u64>,
    /// Who asked for it, for a change that was asked for: `accepted`, `deleted`, `loaded`, and `error`
    /// of a desired-state file. What follows from a change has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// What happened.
    pub kind: EventKind,
    /// The same as a sentence, for people.
    pub message: String,
    /// How the microVM exited, for `exited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// The last processes that were killed, oldest first, for `oom-kill`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub killed: Vec<KilledProcess>,
    /// How many were killed, for `oom-kill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed_count: Option<u32>,
    /// What the job does now, for `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
    /// Why, for `stopping` and for a `status` that has a reason; a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happened:
///
/// - `accepted`: a change of a job was accepted, or its deletion
/// - `adopted`: a microVM that the database did not name was adopted as it runs
/// - `claimed`: a warm microVM was claimed for a job
/// - `creating`: a microVM is being created, for a job or a pool
/// - `deleted`: a job is deleted with its microVMs
/// - `error`: something failed
/// - `exited`: a microVM exited; `exit` says how
/// - `loaded`: a desired-state file or an apply changed jobs
/// - `oom-kill`: a guest's kernel killed processes for lack of memory; `killed` names the last
/// - `status`: a job has another status
/// - `stopping`: Hearth stops a microVM; `reason` says why
/// - `unknown`: a kind that this version does not know
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the list above, which openapi.json has")]
pub enum EventKind {
    Accepted,
    Adopted,
    Claimed,
    Creating,
    Deleted,
    Error,
    Exited,
    Loaded,
    OomKill,
    Status,
    Stopping,
    Unknown,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [EventKind; 12] = [
        EventKind::Accepted,
        EventKind::Adopted,
        EventKind::Claimed,
        EventKind::Creating,
        EventKind::Deleted,
        EventKind::Error,
        EventKind::Exited,
        EventKind::Loaded,
        EventKind::OomKill,
        EventKind::Status,
        EventKind::Stopping,
        EventKind::Unknown,
    ];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Accepted => "accepted",
            EventKind::Adopted => "adopted",
            EventKind::Claimed => "claimed",
            EventKind::Creating => "creating",
            EventKind::Deleted => "deleted",
            EventKind::Error => "error",
            EventKind::Exited => "exited",
            EventKind::Loaded => "loaded",
            EventKind::OomKill => "oom-kill",
            EventKind::Status => "status",
            EventKind::Stopping => "stopping",
            EventKind::Unknown => "unknown",
        }
    }

    /// The kind of a word; [`EventKind::Unknown`] for one that a newer daemon may have.
    #[must_use]
    pub fn of(word: &str) -> EventKind {
        let known = EventKind::ALL.into_iter().find(|kind| kind.as_str() == word);
        known.unwrap_or(EventKind::Unknown)
    }
}

impl<'de> Deserialize<'de> for EventKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EventKind, D::Error> {
        String::deserialize(deserializer).map(|word| EventKind::of(&word))
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who asked for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Caller {
    /// What it is.
    pub kind: CallerKind,
    /// The number of the local user, for `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// How the user is known, for `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_by: Option<KnownBy>,
}

/// What a caller is:
///
/// - `user`: a local user
/// - `desired_file`: the watched desired-state file
/// - `hearth`: Hearth itself
/// - `unknown`: the kernel could not say, or this version does not know the kind
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the list above, which openapi.json has")]
pub enum CallerKind {
    User,
    DesiredFile,
    Hearth,
    #[serde(other)]
    Unknown,
}

/// How a user is known:
///
/// - `peer_credentials`: the kernel names the process at the other end of a Unix socket
/// - `socket_owner`: the kernel names the owner of the client's TCP socket
/// - `unknown`: in a way that this version does not know
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the list above, which openapi.json has")]
pub enum KnownBy {
    PeerCredentials,
    SocketOwner,
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.uid) {
            (CallerKind::User, Some(uid)) => write!(f, "uid {uid}"),
            (CallerKind::User, None) | (CallerKind::Unknown, _) => f.write_str("unknown"),
            (CallerKind::DesiredFile, _) => f.write_str("desired-state file"),
            (CallerKind::Hearth, _) => f.write_str("hearth"),
        }
    }
}

/// A process that a guest's kernel killed for lack of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KilledProcess {
    /// Its number in the guest.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// How the command of a microVM exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exit {
    /// In which way.
    pub kind: ExitKind,
    /// Its exit code, if it exited with one.
    #[schema(required = true)]
    pub code: Option<u8>,
    /// The signal that killed it, if one did.
    #[schema(required = true)]
    pub signal: Option<u8>,
}

/// In which way a command exited:
///
/// - `exited`: with a code
/// - `signaled`: a signal killed it
/// - `oom_killed`: the guest's kernel killed it for lack of memory
/// - `over_limit`: the host killed its microVM, which had exceeded the memory that its cgroup may take
/// - `timed_out`: its job exceeded `timeout_s` and was stopped; `code` or `signal` says how it took that
/// - `never_started`: the microVM or the command could not be started
/// - `unknown`: it could not be learned, for instance since the guest's kernel panicked
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the list above, which openapi.json has")]
pub enum ExitKind {
    Exited,
    Signaled,
    OomKilled,
    OverLimit,
    TimedOut,
    NeverStarted,
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ExitKind::Exited => "exited",
            ExitKind::Signaled => "signaled",
            ExitKind::OomKilled => "oom_killed",
            ExitKind::OverLimit => "over_limit",
            ExitKind::TimedOut => "timed_out",
            ExitKind::NeverStarted => "never_started",
            ExitKind::Unknown => "unknown",
        };
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "{kind} (code {code})"),
            (_, Some(signal)) => write!(f, "{kind} (signal {signal})"),
            _ => f.write_str(kind),
        }
    }
}

/// The answer to `GET /images`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Images {
    /// The copies, by name.
    pub items: Vec<Image>,
}

/// A copy of an image in the state directory of the host, or what was made of some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// The BLAKE3 digest of its content in hex; a name that begins with a dot for what was made of copies.
    pub name: String,
    /// What it takes of the disk.
    pub bytes: u64,
    /// How long it has been unused, in seconds.
    pub unused_s: u64,
    /// Whether a job or a microVM uses it.
    pub in_use: bool,
}

/// The answer to `POST /images/prune`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pruned {
    /// The copies that are gone, or would be.
    pub removed: Vec<Image>,
    /// What they took of the disk.
    pub freed_bytes: u64,
    /// Whether nothing was removed.
    pub dry_run: bool,
}

/// The answer to `GET /healthz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The daemon's version.
    pub version: String,
}

/// The answer to `GET /readyz` once the daemon is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// `ready`.
    pub status: String,
    /// What runs the microVMs.
    pub host: String,
    /// What a user should know of it.
    pub warnings: Vec<String>,
    /// What is wrong with the desired-state file, whose last good state is served, and what to do.
    #[schema(required = true)]
    pub desired_file: Option<String>,
}
