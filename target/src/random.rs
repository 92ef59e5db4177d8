//! Numbers that look random and are the same in every run (splitmix64).

/// A stream of numbers that its seed decides.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream that belongs to `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number of the stream.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        index(self.next(), bound)
    }
}

/// A number that depends on every bit of `value`.
pub(crate) fn mix(value: u64) -> u64 {
    let mixed = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// `value` as an index below `bound`, which is not 0.
pub(crate) fn index(value: u64, bound: usize) -> usize {
    usize::try_from(value % bound as u64).expect("it is below bound, which is a usize")
}
