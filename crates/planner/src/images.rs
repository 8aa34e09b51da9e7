//! Which copies of images a host may remove. A copy is in use if a job or an instance of the database
//! names its digest, or if an instance of the host has it, whether or not the database knows of that.

use hearth_model::{ImageUses, KeepImages, StoredImage};

/// The copies that go: those that were not used for long, and of the other unused ones the least recently
/// used, until the rest is small enough. In the order in which they go.
#[must_use]
pub fn images_to_remove<'a>(
    stored: &'a [StoredImage],
    uses: &ImageUses,
    keep: KeepImages,
) -> Vec<&'a StoredImage> {
    let mut unused: Vec<&StoredImage> = stored.iter().filter(|image| !uses.has(image)).collect();
    unused.sort_by(|left, right| {
        right.unused_for.cmp(&left.unused_for).then_with(|| left.name.cmp(&right.name))
    });
    let mut bytes: u64 = unused.iter().map(|image| image.bytes).sum();
    unused.retain(|image| {
        let goes = image.unused_for >= keep.unused_for || bytes > keep.bytes;
        if goes {
            bytes -= image.bytes;
        }
        goes
    });
    unused
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_model::Digest;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn image(name: &str, mib: u64, hours: u64) -> StoredImage {
        StoredImage {
            name: name.to_owned(),
            digest: Some(Digest([name.as_bytes()[0]; 32])),
            bytes: mib << 20,
            unused_for: Duration::from_secs(hours * 3600),
            linked: false,
        }
    }

    fn keep(hours: u64, mib: u64) -> KeepImages {
        KeepImages { unused_for: Duration::from_secs(hours * 3600), bytes: mib << 20 }
    }

    fn check(stored: &[StoredImage], uses: &ImageUses, keep: KeepImages, expected: &[&str]) {
        let gone = images_to_remove(stored, uses, keep);
        assert_eq!(gone.iter().map(|image| image.name.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn unused_copies_go_by_age_and_total_size() {
        let stored = [image("a", 10, 1), image("b", 10, 30), image("c", 10, 3), image("d", 10, 2)];
        let unused = ImageUses::default();
        check(&stored, &unused, keep(24, 1000), &["b"]);
        check(&stored, &unused, keep(24, 25), &["b", "c"]);
        check(&stored, &unused, keep(100, 40), &[]);
        check(&stored, &unused, keep(100, 39), &["b"]);
        check(&stored, &unused, KeepImages::NONE, &["b", "c", "d", "a"]);
        check(&[], &unused, KeepImages::NONE, &[]);
    }

    #[test]
    fn copies_in_use_stay_and_count_for_nothing() {
        let mut stored = [image("a", 500, 90), image("b", 500, 90), image("c", 10, 1)];
        stored[1].linked = true;
        let uses = ImageUses { named: BTreeSet::from([Digest([b'a'; 32])]), awaited: false };
        check(&stored, &uses, KeepImages::NONE, &["c"]);
        check(&stored, &uses, keep(24, 10), &[]);
        stored[0].digest = None;
        check(&stored, &uses, keep(24, 1000), &["a"]);
    }

    #[test]
    fn fresh_copies_stay_while_a_job_waits_for_its_images() {
        let stored = [image("a", 10, 0), image("b", 10, 1)];
        let uses = ImageUses { named: BTreeSet::new(), awaited: true };
        check(&stored, &uses, KeepImages::NONE, &["b"]);
        check(&stored, &ImageUses::default(), KeepImages::NONE, &["b", "a"]);
    }
}
