//! Numbers from a seed: the same seed gives the same world on every machine.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose who moves next.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A number from `low` to `high`, both included.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in `percent` of all cases.
    pub const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, or `None` if there are none.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let index = usize::try_from(self.below(choices.len() as u64)).ok()?;
        choices.get(index).copied()
    }
}

/// Where choices come from: a seed, or whatever else can count.
pub trait Choices {
    /// A number below `bound`; 0 if `bound` is 0.
    fn below(&mut self, bound: u64) -> u64;

    /// Whether there is more to choose.
    fn goes_on(&self) -> bool;

    /// True in `percent` of all cases.
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, or `None` if there are none.
    fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let index = usize::try_from(self.below(choices.len() as u64)).ok()?;
        choices.get(index).copied()
    }
}

impl Choices for Random {
    fn below(&mut self, bound: u64) -> u64 {
        Self::below(self, bound)
    }

    fn goes_on(&self) -> bool {
        true
    }
}

/// Choices that are written down beforehand, as a fuzzer writes them: a byte for each, eight for a large one, and
/// nothing but zeros behind the end.
#[derive(Clone, Debug)]
pub struct Tape<'bytes>(pub &'bytes [u8]);

impl Choices for Tape<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        let width = if bound <= 256 { 1 } else { 8 };
        let (now, later) = self.0.split_at(width.min(self.0.len()));
        self.0 = later;
        let number = now.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        if bound == 0 { 0 } else { number % bound }
    }

    fn goes_on(&self) -> bool {
        !self.0.is_empty()
    }
}
