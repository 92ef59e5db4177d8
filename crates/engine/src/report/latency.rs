//! A histogram of bounded size: 32 buckets to each power of two, so that a percentile is exact to 3.2 %, and to a
//! microsecond up to 63.

use core::fmt;
use core::time::Duration;

const BUCKETS_PER_OCTAVE: u64 = 32;
const OCTAVE_BITS: u32 = 5;
/// Up to 2^40 µs; longer ones share the last bucket.
const BUCKETS: usize = 1152;

/// Durations, kept as counts in logarithmic buckets of microseconds.
#[derive(Clone, PartialEq, Eq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
    count: u64,
    total_us: u64,
    max_us: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, total_us: 0, max_us: 0 }
    }
}

impl Latency {
    /// Counts one duration, to the nearest microsecond.
    pub fn record(&mut self, duration: Duration) {
        const HALF: Duration = Duration::from_nanos(500);
        let us = u64::try_from(duration.saturating_add(HALF).as_micros()).unwrap_or(u64::MAX);
        let last = BUCKETS - 1;
        if let Some(bucket) = self.buckets.get_mut(bucket_of(us).min(last)) {
            *bucket += 1;
        }
        self.count += 1;
        self.total_us = self.total_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    /// How many durations were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// All of them together, in microseconds.
    #[must_use]
    pub const fn total_us(&self) -> u64 {
        self.total_us
    }

    /// The longest one, in microseconds.
    #[must_use]
    pub const fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The duration in microseconds that `percent` per cent of all do not exceed; 0 if there are none.
    #[must_use]
    pub fn percentile_us(&self, percent: u64) -> u64 {
        let rank = (self.count * percent.min(100)).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let is_last = bucket + 1 == BUCKETS;
                return if is_last { self.max_us } else { upper_bound_us(bucket).min(self.max_us) };
            }
        }
        self.max_us
    }

    /// The distribution: for each bucket that holds any, the longest duration in microseconds that falls into it (of the
    /// last one, that there was) and how many did.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let bound = |bucket| upper_bound_us(bucket).min(self.max_us);
        let counted = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(move |(bucket, count)| (bound(bucket), *count))
    }

    /// The median, in microseconds.
    #[must_use]
    pub fn p50_us(&self) -> u64 {
        self.percentile_us(50)
    }

    /// The 99th percentile, in microseconds.
    #[must_use]
    pub fn p99_us(&self) -> u64 {
        self.percentile_us(99)
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} times, p50 {} us, p99 {} us, max {} us",
            self.count,
            self.p50_us(),
            self.p99_us(),
            self.max_us
        )
    }
}

/// Values below 64 have a bucket each; from there on the top six bits choose.
fn bucket_of(us: u64) -> usize {
    let bucket = match us.checked_ilog2() {
        Some(log) if log >= OCTAVE_BITS => {
            let shift = log - OCTAVE_BITS;
            u64::from(shift) * BUCKETS_PER_OCTAVE + (us >> shift)
        }
        Some(_) | None => us,
    };
    usize::try_from(bucket).unwrap_or(BUCKETS)
}

/// The largest value that falls into `bucket`.
fn upper_bound_us(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * BUCKETS_PER_OCTAVE {
        return bucket;
    }
    let shift = bucket / BUCKETS_PER_OCTAVE - 1;
    let top = BUCKETS_PER_OCTAVE + bucket % BUCKETS_PER_OCTAVE;
    ((top + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_bounds_it_closely() {
        for us in (0..5000_u64).chain((10..40).map(|bit| (1 << bit) + 17)) {
            let bound = upper_bound_us(bucket_of(us));
            assert!(us <= bound && bound <= us + us / 32, "{us} in a bucket up to {bound}");
        }
    }

    #[test]
    fn a_duration_is_counted_to_the_nearest_microsecond() {
        let mut latency = Latency::default();
        [30_499, 30_500].into_iter().for_each(|ns| latency.record(Duration::from_nanos(ns)));
        assert_eq!(latency.buckets().collect::<Vec<_>>(), [(30, 1), (31, 1)]);
    }

    #[test]
    fn percentiles_are_those_of_the_recorded_values() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|us| latency.record(Duration::from_micros(us)));
        latency.record(Duration::MAX);
        assert!((500..=516).contains(&latency.p50_us()), "{latency:?}");
        assert!((990..=1022).contains(&latency.p99_us()), "{latency:?}");
        assert_eq!((latency.count(), latency.percentile_us(100)), (1001, latency.max_us()));
    }

    #[test]
    fn the_buckets_hold_every_duration_in_order() {
        let mut latency = Latency::default();
        [3, 3, 100, 70_000].into_iter().for_each(|us| latency.record(Duration::from_micros(us)));
        let buckets: Vec<(u64, u64)> = latency.buckets().collect();
        assert_eq!(buckets, [(3, 2), (101, 1), (70_000, 1)]);
    }
}
