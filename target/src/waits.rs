//! How long a workload has waited for its memory, as it sees it itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Memory that is there is touched in a fraction of this; memory that somebody has to bring takes longer, in µs.
const LEAST_US: u64 = 8;
/// Bits of a time that are kept: it is at most an eighth too small.
const BITS: u32 = 4;

/// How often how long, since it was told last.
#[derive(Debug, Default)]
pub(crate) struct Waits(BTreeMap<u64, u64>);

impl Waits {
    /// Notes how long a touch took, if that was a wait.
    pub(crate) fn note(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if us >= LEAST_US {
            *self.0.entry(rounded(us)).or_default() += 1;
        }
    }

    /// ` US:TIMES` for each time in microseconds that there was, and begins anew.
    pub(crate) fn take(&mut self) -> String {
        let mut text = String::new();
        for (us, times) in std::mem::take(&mut self.0) {
            let _ = write!(text, " {us}:{times}");
        }
        text
    }
}

fn rounded(us: u64) -> u64 {
    let dropped = (u64::BITS - us.leading_zeros()).saturating_sub(BITS);
    us >> dropped << dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waits_are_told_each_once_and_rounded_down_a_little() {
        let mut waits = Waits::default();
        for us in [0, 7, 8, 9, 9, 100, 103, 1_000_000] {
            waits.note(Duration::from_micros(us));
        }
        assert_eq!(waits.take(), " 8:1 9:2 96:2 983040:1");
        assert_eq!(waits.take(), "");
    }
}
