//! Which copies of images are in use, and which of the others go. Decided on what is committed; the host
//! removes them after that.

use crate::engine::Engine;
use crate::input::ImagePlan;
use hearth_model::{Images, Instance, Job, KeepImages, Resolution, StoredImage};
use hearth_planner::{ImageUses, images_to_remove};
use std::collections::BTreeSet;

/// What jobs and instances use. A job that has ended or was stopped can run again, so that it counts.
pub(crate) fn uses<'a>(
    jobs: impl Iterator<Item = &'a Job>,
    instances: impl Iterator<Item = &'a Instance>,
) -> ImageUses {
    let mut uses = ImageUses::default();
    let mut named = BTreeSet::new();
    let mut name = |images: &Images| {
        named.insert(images.kernel);
        named.extend(images.modules.into_iter().chain(images.rootfs));
    };
    for job in jobs {
        match &job.resolution {
            Resolution::Known { images, .. } => name(images),
            Resolution::Preparing(_) => uses.awaited = true,
            // It is looked up again before it is needed.
            Resolution::Failed(_) => {}
        }
    }
    instances.for_each(|instance| name(&instance.images));
    ImageUses { named, ..uses }
}

impl Engine {
    pub(crate) fn plan_images(&self, stored: &[StoredImage], keep: KeepImages) -> ImagePlan {
        let uses = uses(self.fleet.jobs().values(), self.fleet.instances().values());
        let name = |image: &StoredImage| image.name.clone();
        ImagePlan {
            used: stored.iter().filter(|image| uses.has(image)).map(name).collect(),
            remove: images_to_remove(stored, &uses, keep).into_iter().map(name).collect(),
        }
    }
}
