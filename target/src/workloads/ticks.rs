//! `ticks`: looks at the monotonic clock without pause and prints how long it was away at most.

use std::time::Duration;

use anyhow::Result;

use crate::gaps::Gaps;
use crate::pattern::Resident;
use crate::progress::Progress;

/// Prints `ticks N largest_gap_us G` in each interval, G being the largest gap since the line before.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let interval = Duration::from_millis(progress.options().interval_ms);
    let resident = Resident::new(progress.options().resident_mib);
    let mut gaps = Gaps::new(interval);
    while progress.goes_on() {
        if let Some(longest) = gaps.step() {
            let number = progress.count_round();
            progress.say(&format!("ticks {number} largest_gap_us {}", longest.as_micros()))?;
        }
    }
    resident.verify_all()
}
