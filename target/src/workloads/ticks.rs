//! `ticks`: looks at the monotonic clock without pause and prints how long it was away at most.
//!
//! The clock is the machine's, so two processes on one machine share it: the gap across a move is what a program
//! loses by it.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::pattern::Resident;
use crate::progress::Progress;

/// Prints `ticks N largest_gap_us G` in each interval, G being the largest gap since the line before.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let interval = Duration::from_millis(progress.options().interval_ms);
    let resident = Resident::new(progress.options().resident_mib);
    let mut line = Instant::now();
    let mut before = line;
    let mut largest = Duration::ZERO;
    while progress.goes_on() {
        let now = Instant::now();
        largest = largest.max(now - before);
        before = now;
        if now - line >= interval {
            let number = progress.count_round();
            progress.say(&format!("ticks {number} largest_gap_us {}", largest.as_micros()))?;
            (line, largest) = (now, Duration::ZERO);
        }
    }
    resident.verify_all()
}
