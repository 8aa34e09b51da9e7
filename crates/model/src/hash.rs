//! The spec hash: BLAKE3 over the canonical bytes of what decides the inside of a microVM.

use crate::digest::{Digest, SpecHash};
use crate::spec::{Boot, Images, ReadyCheck, Spec};

/// The hash of what decides the inside of a microVM: digests, cmd, env, resources, lifecycle,
/// ready, boot and disk. Not in it: `warm_pool`, retries, `auto_remove`,
/// timeouts and the stop signal, which are policy.
#[must_use]
pub fn spec_hash(spec: &Spec, images: &Images) -> SpecHash {
    SpecHash(*blake3::hash(&canonical_bytes(spec, images)).as_bytes())
}

/// Whether two specs differ at most in policy: the same image names, and the same canonical bytes.
#[must_use]
pub fn same_inside(left: &Spec, right: &Spec) -> bool {
    let inside = |spec: &Spec| {
        let rootfs = spec.rootfs.as_ref().map(|_| Digest([0; 32]));
        canonical_bytes(spec, &Images { kernel: Digest([0; 32]), modules: None, rootfs })
    };
    (&left.kernel, &left.rootfs) == (&right.kernel, &right.rootfs) && inside(left) == inside(right)
}

/// The canonical bytes: a version, then every field in a fixed order, texts and lists with their
/// lengths in front, so that no two specs share their bytes.
#[must_use]
pub fn canonical_bytes(spec: &Spec, images: &Images) -> Vec<u8> {
    let mut bytes = Canonical(b"hearth-spec-1".to_vec());
    bytes.number(match spec.boot {
        Boot::Init => 0,
        Boot::Raw => 1,
    });
    bytes.text(&images.kernel.0);
    bytes.optional(images.modules.map(|digest| digest.0));
    bytes.optional(images.rootfs.map(|digest| digest.0));
    bytes.texts(&spec.cmd);
    bytes.number(spec.env.len() as u64);
    for (key, value) in &spec.env {
        bytes.text(key.as_bytes());
        bytes.text(value.as_bytes());
    }
    bytes.number(u64::from(spec.resources.vcpu));
    bytes.number(u64::from(spec.resources.mem_mib));
    bytes.number(u64::from(spec.disk_mib));
    bytes.text(spec.lifecycle.as_str().as_bytes());
    match spec.ready.as_ref().map(|ready| &ready.check) {
        None => bytes.number(0),
        Some(ReadyCheck::Http { port, path }) => {
            bytes.number(1);
            bytes.number(u64::from(*port));
            bytes.text(path.as_bytes());
        }
        Some(ReadyCheck::Tcp { port }) => {
            bytes.number(2);
            bytes.number(u64::from(*port));
        }
        Some(ReadyCheck::Exec(cmd)) => {
            bytes.number(3);
            bytes.texts(cmd);
        }
        Some(ReadyCheck::Notify) => bytes.number(4),
    }
    bytes.0
}

struct Canonical(Vec<u8>);

impl Canonical {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text);
    }

    fn texts(&mut self, texts: &[String]) {
        self.number(texts.len() as u64);
        texts.iter().for_each(|text| self.text(text.as_bytes()));
    }

    fn optional(&mut self, digest: Option<[u8; 32]>) {
        self.text(digest.as_ref().map_or(&[], |digest| digest.as_slice()));
    }
}
