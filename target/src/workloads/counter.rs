//! `counter`: the demonstration. Whoever reads its output sees whether a number was lost or repeated.

use std::time::Duration;

use anyhow::Result;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

use crate::pattern::Resident;
use crate::progress::Progress;

/// Pages of resident memory that are verified between two numbers.
const PAGES_PER_NUMBER: usize = 64;

/// Prints 0, 1, 2 … and verifies its memory on the way, all of it at the end.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let interval = Duration::from_millis(progress.options().interval_ms);
    let mut resident = Resident::new(progress.options().resident_mib, progress.options().content);
    while progress.goes_on() {
        let number = progress.count_round();
        progress.say(&number.to_string())?;
        resident.verify_some(PAGES_PER_NUMBER)?;
        // A signal ends the pause early, which does no harm.
        let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &interval.into());
    }
    resident.verify_all()
}
