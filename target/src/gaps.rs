//! How long a workload was away between two of its steps.

use std::time::{Duration, Instant};

/// The longest gap since the last report. The clock is the machine's, so two processes on one machine share it: the gap
/// across a move is what a program loses by it.
#[derive(Debug)]
pub(crate) struct Gaps {
    interval: Duration,
    reported: Instant,
    before: Instant,
    longest: Duration,
}

impl Gaps {
    /// Begins now; a report is due every `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        let now = Instant::now();
        Self { interval, reported: now, before: now, longest: Duration::ZERO }
    }

    /// Notes a step; the longest gap since the last report when the next one is due.
    pub(crate) fn step(&mut self) -> Option<Duration> {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.before);
        self.before = now;
        if now - self.reported < self.interval {
            return None;
        }
        self.reported = now;
        Some(std::mem::take(&mut self.longest))
    }
}
