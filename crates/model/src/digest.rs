//! Digests, and how they are written: of files, and of what decides the inside of a microVM.

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
