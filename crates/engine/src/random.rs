//! The engine's source of chance, seeded from outside so that a seed replays a run.

use hearth_model::InstanceId;

/// SplitMix64 (Steele, Lea, Flood 2014): good enough for names, not for secrets.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Ten letters and digits: 51 bits.
    pub(crate) fn name(&mut self) -> String {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut number = self.next();
        (0..10)
            .map(|_| {
                let digit = DIGITS[usize::try_from(number % 36).unwrap_or(0)];
                number /= 36;
                char::from(digit)
            })
            .collect()
    }

    pub(crate) fn instance(&mut self) -> InstanceId {
        InstanceId::parse(&self.name()).expect("the alphabet is that of instance ids")
    }
}
