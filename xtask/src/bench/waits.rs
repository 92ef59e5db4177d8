//! How long a program has waited for its memory, as `target chase --waits` tells it itself.

use std::collections::BTreeMap;
use std::time::Instant;

use super::programs::Line;

/// How often it has waited how long, in microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Waits(BTreeMap<u64, u64>);

impl Waits {
    /// Those that a program tells in `text` behind so many of its lines `from`, up to the line that it began at the
    /// `to`th.
    pub(super) fn between(text: &str, from: usize, to: usize) -> Self {
        let (mut said, mut waits) = (0, Self::default());
        let at = Instant::now();
        for line in text.lines() {
            if Line::read(line, at).is_some() {
                said += 1;
            } else if from < said && said <= to + 1 {
                waits.add(line);
            }
        }
        waits
    }

    /// Adds what stands in `NAME N waits US:TIMES …`; any other line says nothing of it.
    fn add(&mut self, line: &str) {
        let Some((_, waits)) = line.split_once(" waits") else { return };
        let pairs = waits.split_whitespace().filter_map(|wait| wait.split_once(':'));
        for (us, times) in
            pairs.filter_map(|(us, times)| Some((us.parse().ok()?, times.parse::<u64>().ok()?)))
        {
            *self.0.entry(us).or_default() += times;
        }
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The time that so many per cent of them did not exceed, in microseconds; none if there were none.
    pub(super) fn percentile(&self, percent: u64) -> Option<u64> {
        let due = (self.count() * percent).div_ceil(100);
        let mut so_far = 0;
        let found = self.0.iter().find(|(_, times)| {
            so_far += **times;
            so_far >= due
        });
        found.map(|(us, _)| *us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "chase 0 steps 9 largest_gap_us 3\nchase 0 waits 8:1000\nchase 1 steps 20 largest_gap_us 3\n\
                        chase 1 waits 8:90 16:9 512:1\nchase 2 steps 30 largest_gap_us 3\nchase 2 waits\n\
                        chase 3 steps 40 largest_gap_us 3\nchase 3 waits 4096:1";

    #[test]
    fn waits_of_the_lines_between_add_up() {
        let waits = Waits::between(TEXT, 1, 2);
        assert_eq!(waits.count(), 100);
        assert_eq!([50, 90, 99, 100].map(|percent| waits.percentile(percent)), [8, 8, 16, 512].map(Some));
        assert_eq!(Waits::between(TEXT, 1, 3).percentile(100), Some(4096));
    }

    #[test]
    fn who_does_not_wait_has_no_percentile() {
        let waits = Waits::between("ticks 0 largest_gap_us 7\nticks 1 largest_gap_us 7", 0, 2);
        assert_eq!((waits.count(), waits.percentile(99)), (0, None));
    }
}
