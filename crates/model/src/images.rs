//! The copies of images that a host keeps, and for how long it keeps unused ones.

use crate::desired::{Instance, Job, Resolution};
use crate::digest::Digest;
use crate::spec::Images;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long an unused copy is kept while a job waits for its images: it may be the one.
const AWAITED_FOR: Duration = Duration::from_secs(60 * 60);

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

/// What uses copies of images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUses {
    /// The digests that jobs and instances name.
    pub named: BTreeSet<Digest>,
    /// Whether the digests of some job are not known yet.
    pub awaited: bool,
}

impl ImageUses {
    /// What jobs and instances use. A job that has ended or was stopped can run again, so that it counts.
    pub fn of<'a>(
        jobs: impl Iterator<Item = &'a Job>,
        instances: impl Iterator<Item = &'a Instance>,
    ) -> ImageUses {
        let mut uses = ImageUses::default();
        let mut named = BTreeSet::new();
        let mut name = |images: &Images| named.extend(images.digests());
        for job in jobs {
            match &job.progress.resolution {
                Resolution::Known { images, .. } => name(images),
                Resolution::Preparing(_) => uses.awaited = true,
                // It is looked up again before it is needed.
                Resolution::Failed(_) => {}
            }
        }
        instances.for_each(|instance| name(&instance.images));
        ImageUses { named, ..uses }
    }

    /// Whether a copy is in use.
    #[must_use]
    pub fn has(&self, image: &StoredImage) -> bool {
        let named = image.digest.is_some_and(|digest| self.named.contains(&digest));
        named || image.linked || (self.awaited && image.unused_for < AWAITED_FOR)
    }
}
