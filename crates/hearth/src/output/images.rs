//! What `hearth image` prints.

use super::Output;
use super::paint::span;
use hearth_api::{Image, Images, Pruned};

/// Digits of a digest that are shown: as many as those of a spec hash.
const SHORT: usize = 16;

impl Output {
    pub(crate) fn images(&self, images: &Images) {
        if self.printed(images) {
            return;
        }
        self.rows(
            ["IMAGE", "SIZE", "IN USE", "LAST USED"],
            images.items.iter().map(|image| {
                let used = match image.in_use {
                    true => "now".to_owned(),
                    false => format!("{} ago", span(image.unused_s)),
                };
                let in_use = if image.in_use { "yes" } else { "no" };
                [name(image).into(), size(image.bytes).into(), in_use.into(), used.into()]
            }),
        );
    }

    pub(crate) fn pruned(&self, pruned: &Pruned) {
        if self.printed(pruned) {
            return;
        }
        let (verb, freed) = match pruned.dry_run {
            true => ("would remove", "would free"),
            false => ("removed", "freed"),
        };
        for image in &pruned.removed {
            self.line(format_args!("{verb} {} ({})", name(image), size(image.bytes)));
        }
        self.line(format_args!("{freed} {}", size(pruned.freed_bytes)));
    }
}

fn name(image: &Image) -> String {
    image.name.chars().take(SHORT).collect()
}

fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..0x10_0000 => format!("{} KiB", bytes / KIB),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes >> 30, (bytes >> 20) % 1024 * 10 / 1024),
    }
}
