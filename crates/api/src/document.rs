//! What the document of the API says of request bodies. Nothing reads a body by these types: the
//! daemon checks every field itself and names all that is wrong at once. A test holds the two
//! together.
#![allow(dead_code, reason = "only their shape is used")]

use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The body of `POST /vms`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateVm)]
pub struct Create {
    /// The job's name; one is generated if it is absent.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    job_id: Option<String>,
    /// Another name for `job_id`.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    vm_id: Option<String>,
    /// The job's tenant: its name if it is absent; on replacement, what it was.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    tenant: Option<String>,
    /// What it runs.
    spec: Spec,
}

/// The body of `POST /plan` and `POST /apply`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Declared)]
pub struct Declare {
    /// The file that declares them, as an absolute path: what it no longer declares is deleted. Where
    /// it is absent or null, nothing is remembered of the entries and nothing is deleted.
    #[schema(pattern = "^/")]
    source: Option<String>,
    /// The jobs. No two have the same name.
    entries: Vec<Entry>,
    /// Whether more than half of the file's jobs may be deleted at once.
    allow_delete: Option<bool>,
}

/// A declared job: as the body of `POST /vms`, with a name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeclaredJob)]
pub struct Entry {
    /// The job's name; or `vm_id`.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    job_id: Option<String>,
    /// Another name for `job_id`.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    vm_id: Option<String>,
    /// The job's tenant: its name if it is absent; on replacement, what it was.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    tenant: Option<String>,
    /// What it runs.
    spec: Spec,
}

/// What a job runs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The root filesystem: a name in the images directory. Required unless `boot` is `raw`.
    #[schema(nullable = false, pattern = "^[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}$")]
    rootfs: Option<String>,
    /// The kernel: a name in the images directory.
    #[schema(pattern = "^[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}$")]
    kernel: String,
    /// Program and arguments. Required unless `boot` is `raw`.
    #[schema(nullable = false, min_items = 1, max_items = 256)]
    cmd: Option<Vec<String>>,
    /// Environment variables, at most 256 of them.
    #[schema(nullable = false)]
    env: Option<BTreeMap<String, String>>,
    resources: Resources,
    lifecycle: Lifecycle,
    #[schema(nullable = false)]
    warm_pool: Option<WarmPool>,
    #[schema(nullable = false)]
    ready: Option<Ready>,
    #[schema(nullable = false)]
    boot: Option<Boot>,
    /// How often a failed `job` runs again.
    #[schema(nullable = false, minimum = 0, maximum = 100)]
    retries: Option<u32>,
    /// How long a `job` may run, in seconds.
    #[schema(nullable = false, minimum = 1, maximum = 31_536_000)]
    timeout_s: Option<u32>,
    /// Whether a `job` is deleted by itself, once it has finished and its result could be collected.
    #[schema(nullable = false)]
    auto_remove: Option<bool>,
    /// What the command is told to stop with: the name of a signal, with or without `SIG`, or its
    /// number. SIGTERM if it is absent. Not for `boot: "raw"`.
    #[schema(
        nullable = false,
        pattern = "^((SIG)?(HUP|INT|QUIT|ILL|TRAP|ABRT|IOT|BUS|FPE|KILL|USR1|SEGV|USR2|PIPE|ALRM|TERM|STKFLT|CHLD|CLD|CONT|STOP|TSTP|TTIN|TTOU|URG|XCPU|XFSZ|VTALRM|PROF|WINCH|IO|POLL|PWR|SYS|RTMIN(\\+([1-9]|1[0-5]))?|RTMAX(-([1-9]|1[0-4]))?)|[1-9]|[1-5][0-9]|6[0-4])$"
    )]
    stop_signal: Option<String>,
    /// From the stop signal to SIGKILL, in seconds.
    #[schema(nullable = false, minimum = 0, maximum = 3600)]
    stop_timeout_s: Option<u32>,
    /// Size of the scratch disk in MiB.
    #[schema(nullable = false, minimum = 16, maximum = 1_048_576)]
    disk_mb: Option<u32>,
    /// What you say of the job, by key: at most 64 labels, with keys and values as in Kubernetes. They
    /// are policy, and lists select by them.
    #[schema(nullable = false)]
    labels: Option<BTreeMap<String, String>>,
}

/// What a microVM has.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Virtual CPUs.
    #[schema(minimum = 1, maximum = 32)]
    vcpu: u32,
    /// Memory in MiB.
    #[schema(minimum = 1, maximum = 1_048_576)]
    mem_mb: u32,
}

/// How long a job lives.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// Kept running; a new version starts beside the old one.
    Service,
    /// Kept running; the old one stops first.
    Daemon,
    /// Runs once.
    Job,
}

/// Spare microVMs. `max` is at least `min`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmPool {
    /// How many are kept.
    #[schema(nullable = false, minimum = 0, maximum = 1000)]
    min: Option<u32>,
    /// How many there may be.
    #[schema(nullable = false, minimum = 0, maximum = 1000)]
    max: Option<u32>,
    #[schema(nullable = false)]
    stage: Option<Stage>,
}

/// How far a warm microVM goes.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The guest is up, the command is held until the claim.
    Init,
    /// The command runs and is ready.
    App,
}

/// When a microVM is ready: exactly one of http, tcp, exec and notify.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    #[schema(nullable = false)]
    http: Option<HttpCheck>,
    #[schema(nullable = false)]
    tcp: Option<TcpCheck>,
    /// A program in the guest that exits with 0.
    #[schema(nullable = false, min_items = 1)]
    exec: Option<Vec<String>>,
    /// The command says so itself. Only `true` makes sense.
    #[schema(nullable = false)]
    notify: Option<bool>,
    /// How long it may take, in seconds.
    #[schema(nullable = false, minimum = 1, maximum = 86_400)]
    timeout_s: Option<u32>,
}

/// An HTTP server in the guest answers.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    #[schema(minimum = 1, maximum = 65_535)]
    port: u16,
    /// `/` if it is absent.
    #[schema(nullable = false)]
    path: Option<String>,
}

/// A port of the guest accepts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {
    #[schema(minimum = 1, maximum = 65_535)]
    port: u16,
}

/// What boots.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// Hearth's init, with the root filesystem.
    Init,
    /// The kernel alone.
    Raw,
}
