//! Numbers that look random and depend only on a seed.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }

    /// From a byte to three mebibytes, every order of magnitude alike, and often right at a bound of the engine's.
    pub(crate) fn size(&mut self) -> u64 {
        if self.percent(15) {
            return self.one_of(&[
                1, 65_535, 65_536, 65_537, 131_072, 1_048_575, 1_048_576, 1_048_577, 1_114_112,
            ]);
        }
        let magnitude = 1_u64 << self.below(22);
        (magnitude + self.below(magnitude)).min(3 << 20)
    }
}
