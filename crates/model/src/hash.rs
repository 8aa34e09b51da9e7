//! The spec hash: BLAKE3 over the canonical bytes of what decides the inside of a microVM.

use crate::spec::{Boot, Images, ReadyCheck, Spec};
use std::fmt;

/// BLAKE3 of a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Names the inside of a microVM. Two specs with one hash may share a pool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpecHash(pub [u8; 32]);

impl Digest {
    /// Reads 64 hex digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Digest> {
        parse_hex(hex).map(Digest)
    }
}

impl SpecHash {
    /// Reads 64 hex digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<SpecHash> {
        parse_hex(hex).map(SpecHash)
    }

    /// All 64 hex digits, for storage.
    #[must_use]
    pub fn to_hex(&self) -> String {
        Digest(self.0).to_string()
    }
}

fn parse_hex(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    // A pair of them may begin with a sign for `from_str_radix`.
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Two hex digits for each byte; each row of the database has some of these.
fn hex(bytes: &[u8; 32], digits: &[u8; 16]) -> [u8; 64] {
    let mut hex = [0; 64];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(bytes) {
        pair[0] = digits[usize::from(byte >> 4)];
        pair[1] = digits[usize::from(byte & 0xf)];
    }
    hex
}

fn write_hex(hex: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(std::str::from_utf8(hex).map_err(|_| fmt::Error)?)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&hex(&self.0, b"0123456789abcdef"), f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Shown as 16 upper-case hex digits.
impl fmt::Display for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&hex(&self.0, b"0123456789ABCDEF")[..16], f)
    }
}

impl fmt::Debug for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

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
