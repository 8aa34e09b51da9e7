//! Which copies of images are in use, and which of the others go. Decided on what is committed; the host
//! removes them after that.

use crate::ask::ImagePlan;
use crate::engine::Engine;
use hearth_model::{ImageUses, KeepImages, StoredImage};
use hearth_planner::images_to_remove;

impl Engine {
    pub(crate) fn plan_images(&self, stored: &[StoredImage], keep: KeepImages) -> ImagePlan {
        let uses = ImageUses::of(self.fleet.jobs().values(), self.fleet.instances().values());
        let name = |image: &StoredImage| image.name.clone();
        ImagePlan {
            used: stored.iter().filter(|image| uses.has(image)).map(name).collect(),
            remove: images_to_remove(stored, &uses, keep).into_iter().map(name).collect(),
        }
    }
}
