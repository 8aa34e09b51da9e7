//! What a job runs.

use crate::digest::Digest;
use crate::signal::Signal;
use std::collections::BTreeMap;
use std::fmt;

/// What a job runs. Made by [`Spec::read`], which checks every field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Whether Hearth's init runs in the guest.
    pub boot: Boot,
    /// Root filesystem, a name beneath the images directory. Always there but for raw guests.
    pub rootfs: Option<ImageName>,
    /// Kernel, a name beneath the images directory.
    pub kernel: ImageName,
    /// Program and arguments. Empty only for raw guests.
    pub cmd: Vec<String>,
    /// Environment of the command.
    pub env: BTreeMap<String, String>,
    /// Size of the microVM.
    pub resources: Resources,
    /// What is done when the command ends.
    pub lifecycle: Lifecycle,
    /// Spare instances to keep; `None` keeps none.
    pub warm_pool: Option<WarmPool>,
    /// When the command counts as ready; `None`: as soon as it runs.
    pub ready: Option<Ready>,
    /// How often a failed `job` is run again.
    pub retries: u32,
    /// How long a `job` may run, in seconds.
    pub timeout_s: Option<u32>,
    /// Whether a `job` that has finished is deleted by itself.
    pub auto_remove: bool,
    /// What the command is told to stop with.
    pub stop_signal: Signal,
    /// From the stop signal to SIGKILL, in seconds.
    pub stop_timeout_s: u32,
    /// Size of the scratch disk, in MiB.
    pub disk_mib: u32,
    /// What the user says of the job, by key; lists select by it.
    pub labels: BTreeMap<String, String>,
}

/// Most labels of a job.
pub const LABELS_MAX: usize = 64;
/// Longest name in a label's key and longest value, in bytes: Kubernetes's.
pub const LABEL_BYTES_MAX: usize = 63;
/// Longest prefix of a label's key, in bytes: a DNS name's.
pub const LABEL_PREFIX_BYTES_MAX: usize = 253;

/// Why this can't be the key of a label, if it can't. The rule is Kubernetes's.
#[must_use]
pub fn label_key_fault(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let is_dns_label = |label: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty()
            && label.chars().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_dns_name =
        |name: &str| name.len() <= LABEL_PREFIX_BYTES_MAX && name.split('.').all(is_dns_label);
    if !prefix.is_none_or(is_dns_name) {
        Some(format!(
            "before the `/` stands a DNS name of up to {LABEL_PREFIX_BYTES_MAX} lower-case letters, \
             digits, '-' and '.'"
        ))
    } else if !is_label_text(name) {
        Some(format!("the name must have {LABEL_TEXT}"))
    } else {
        None
    }
}

/// Why this can't be the value of a label, if it can't. The rule is Kubernetes's.
#[must_use]
pub fn label_value_fault(value: &str) -> Option<String> {
    let fits = value.is_empty() || is_label_text(value);
    (!fits).then(|| format!("it must be empty or have {LABEL_TEXT}"))
}

const LABEL_TEXT: &str = "up to 63 letters, digits, '-', '_' and '.', the first and the last of them \
                          a letter or a digit";

fn is_label_text(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_end = |c: char| c.is_ascii_alphanumeric();
    text.len() <= LABEL_BYTES_MAX
        && text.chars().all(plain)
        && text.starts_with(is_end)
        && text.ends_with(is_end)
}

/// How a guest is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Boot {
    /// With Hearth's init: overlay, config, identity, logs, exit codes.
    Init,
    /// The kernel alone, with the rootfs as its root where there is one.
    Raw,
}

/// A name beneath the images directory: no `/`, no leading dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName(String);

impl ImageName {
    /// Checks a name: 1 to 128 letters, digits, `-`, `_`, `.` and `+`, not beginning with a dot.
    ///
    /// # Errors
    /// A sentence that names the rule.
    pub fn parse(text: &str) -> Result<ImageName, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        if text.is_empty() {
            Err("an image name is empty".to_owned())
        } else if text.contains('/') {
            Err(format!(
                "{text:?} is a path; images are named by their file name in the images directory"
            ))
        } else if text.len() > 128 || text.starts_with('.') || !text.chars().all(plain) {
            Err(format!(
                "{text:?} is not an image name: up to 128 letters, digits, '-', '_', '.' and '+', \
                 not beginning with a dot"
            ))
        } else {
            Ok(ImageName(text.to_owned()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Size of a microVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpu: u32,
    /// Memory in MiB, `mem_mb` on the wire.
    pub mem_mib: u32,
}

/// What is done when the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Kept running; a new generation starts beside the old.
    Service,
    /// Kept running; the old generation stops first.
    Daemon,
    /// Runs once per generation.
    Job,
}

/// Spare instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmPool {
    /// How many are kept.
    pub min: u32,
    /// How many there may be.
    pub max: u32,
    /// How far they go.
    pub stage: Stage,
}

/// How far a warm instance goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The guest is up and the command waits for the claim.
    Init,
    /// The command runs and is ready.
    App,
}

/// When a command counts as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// What is checked.
    pub check: ReadyCheck,
    /// How long it may take, in seconds.
    pub timeout_s: u32,
}

/// What is checked, inside the guest, on its loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyCheck {
    /// GET answers 2xx or 3xx.
    Http {
        /// TCP port.
        port: u16,
        /// Path, beginning with `/`.
        path: String,
    },
    /// A connection is accepted.
    Tcp {
        /// TCP port.
        port: u16,
    },
    /// The command exits with 0.
    Exec(Vec<String>),
    /// The app says so on the socket named by `HEARTH_NOTIFY`.
    Notify,
}

/// The digests of what a spec names, resolved once per generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Images {
    /// Of the kernel.
    pub kernel: Digest,
    /// Of the kernel's modules, where it was imported with some.
    pub modules: Option<Digest>,
    /// Of the root filesystem.
    pub rootfs: Option<Digest>,
}

impl Images {
    /// The digests, the kernel's first.
    pub fn digests(&self) -> impl Iterator<Item = Digest> + use<> {
        [Some(self.kernel), self.modules, self.rootfs].into_iter().flatten()
    }
}

/// What a look-up of a spec's images comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The digests.
    Known(Images),
    /// An image is being read; look again.
    Preparing(ImageProgress),
}

/// How far the reading of an image has come that is not in the store yet. Shown as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageProgress {
    /// Which image.
    pub image: ImageName,
    /// Bytes that were read, holes included.
    pub done_bytes: u64,
    /// Bytes that it has; 0 while that is not known.
    pub total_bytes: u64,
}

impl fmt::Display for ImageProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: u64 = 1024 * 1024;
        const GIB: u64 = 1024 * MIB;
        let ImageProgress { image, done_bytes, total_bytes } = self;
        let (unit, name) = if *total_bytes >= GIB { (GIB, "GiB") } else { (MIB, "MiB") };
        let (done, total) = (done_bytes / unit, total_bytes.div_ceil(unit));
        match total_bytes {
            0 => write!(f, "preparing image {image} (not opened yet)"),
            _ => write!(f, "preparing image {image} ({done} of {total} {name})"),
        }
    }
}

impl Lifecycle {
    /// All lifecycles.
    pub const ALL: [Lifecycle; 3] = [Lifecycle::Service, Lifecycle::Daemon, Lifecycle::Job];

    /// Reads the name on the wire.
    #[must_use]
    pub fn parse(name: &str) -> Option<Lifecycle> {
        Lifecycle::ALL.into_iter().find(|lifecycle| lifecycle.as_str() == name)
    }

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Lifecycle::Service => "service",
            Lifecycle::Daemon => "daemon",
            Lifecycle::Job => "job",
        }
    }
}

impl Spec {
    /// How far an instance goes before it is assigned an identity.
    #[must_use]
    pub fn pool_stage(&self) -> Stage {
        self.warm_pool.map_or(Stage::default_for(self.lifecycle), |pool| pool.stage)
    }

    /// What its scratch disk may take, in MiB. A raw guest has none.
    #[must_use]
    pub fn scratch_mib(&self) -> u64 {
        match self.boot {
            Boot::Init => u64::from(self.disk_mib),
            Boot::Raw => 0,
        }
    }

    /// How many spare instances this spec asks for: minimum and maximum.
    #[must_use]
    pub fn pool_bounds(&self) -> (u32, u32) {
        self.warm_pool.map_or((0, 0), |pool| (pool.min, pool.max))
    }
}

impl Stage {
    /// `app` for services; `init` for the rest, so that nothing consumes or runs twice.
    #[must_use]
    pub fn default_for(lifecycle: Lifecycle) -> Stage {
        match lifecycle {
            Lifecycle::Service => Stage::App,
            Lifecycle::Daemon | Lifecycle::Job => Stage::Init,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Init => "init",
            Stage::App => "app",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ImageName, ImageProgress};

    #[test]
    fn progress_is_told_in_units_that_fit_the_image() {
        let image = ImageName::parse("web.ext4").expect("a name");
        let shown = |done_bytes, total_bytes| {
            ImageProgress { image: image.clone(), done_bytes, total_bytes }.to_string()
        };
        assert_eq!(shown(0, 0), "preparing image web.ext4 (not opened yet)");
        assert_eq!(shown(0, 1), "preparing image web.ext4 (0 of 1 MiB)");
        assert_eq!(shown(5 << 20, 64 << 20), "preparing image web.ext4 (5 of 64 MiB)");
        assert_eq!(shown(13 << 30, 40 << 30), "preparing image web.ext4 (13 of 40 GiB)");
    }
}
