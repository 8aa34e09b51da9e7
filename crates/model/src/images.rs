//! The copies of images that a host keeps, and for how long it keeps unused ones.

use crate::hash::Digest;
use std::time::Duration;

/// A file in the image store of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Its name in the store: that of its digest, or one that begins with a dot.
    pub name: String,
    /// Of which content it is the copy; `None` for what the host has made of copies and makes again.
    pub digest: Option<Digest>,
    /// How many bytes of the disk it takes.
    pub bytes: u64,
    /// How long ago it was used last.
    pub unused_for: Duration,
    /// Whether an instance has it, also one that no database names.
    pub linked: bool,
}

/// How long unused copies are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepImages {
    /// One that was not used for so long goes.
    pub unused_for: Duration,
    /// Unused copies of more bytes than this go, the least recently used first.
    pub bytes: u64,
}

impl KeepImages {
    /// Keeps no unused copy.
    pub const NONE: KeepImages = KeepImages { unused_for: Duration::ZERO, bytes: 0 };
}

impl Default for KeepImages {
    /// A week, so that what runs once a week is not copied each time; 20 GiB, what a small disk can spare.
    fn default() -> KeepImages {
        KeepImages { unused_for: Duration::from_secs(7 * 24 * 3600), bytes: 20 << 30 }
    }
}
