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
    pub(crate) fn instance(&mut self) -> InstanceId {
        let name = digits(self.next(), 10);
        InstanceId::parse(&name).expect("the alphabet is that of instance ids")
    }

    /// Ten letters and digits that sort behind those of a smaller `order`, up to 2 thousand millions:
    /// rows that are made one after the other lie beside each other in the database, which a commit
    /// of many is several times faster by.
    pub(crate) fn name_in_order(&mut self, order: u64) -> String {
        digits(order, 6) + &digits(self.next(), 4)
    }
}

/// The last so many digits of a number to the base of 36.
fn digits(mut number: u64, count: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = vec!['0'; count];
    for digit in digits.iter_mut().rev() {
        *digit = char::from(DIGITS[usize::try_from(number % 36).unwrap_or(0)]);
        number /= 36;
    }
    digits.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn names_sort_in_their_order_and_differ_within_it() {
        let mut random = Random::new(1);
        let mut names: Vec<String> =
            [0, 1, 35, 36, 999_999, 36_u64.pow(6) - 1].map(|at| random.name_in_order(at)).into();
        assert!(names.is_sorted(), "{names:?}");
        names.push(random.name_in_order(0));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 7);
        assert!(names.iter().all(|name| name.len() == 10));
    }
}
