//! `writer`: rewrites random pages of its memory at a held rate, and knows what it has written.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

use crate::gaps::Gaps;
use crate::pattern::{PAGE_WORDS, word};
use crate::progress::Progress;
use crate::random::Random;

/// Words of a page that are compared before it is written.
const COMPARED: usize = 8;
const PAGE_KIB: u64 = 4;

/// Prints `writer N written_kib W largest_gap_us G` in each interval: W is what it has written in all, G the longest time
/// between two pages since the line before.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let options = progress.options();
    let interval = Duration::from_millis(options.interval_ms);
    let mut written = Written::new(options.resident_mib.max(1));
    let mut pace = Pace::new(options.rate_mb);
    let mut random = Random::new(1);
    let mut pages = 0_u64;
    let mut gaps = Gaps::new(interval);
    while progress.goes_on() {
        written.write(random.below(written.versions.len()))?;
        pages += 1;
        if let Some(longest) = gaps.step() {
            let number = progress.count_round();
            let (kib, gap) = (pages * PAGE_KIB, longest.as_micros());
            progress.say(&format!("writer {number} written_kib {kib} largest_gap_us {gap}"))?;
        }
        pace.wait_after_a_page();
    }
    (0..written.versions.len()).try_for_each(|page| written.compare(page, PAGE_WORDS))
}

/// Pages, and how often each has been written.
struct Written {
    words: Vec<u64>,
    versions: Vec<u32>,
}

impl Written {
    fn new(mib: usize) -> Self {
        let pages = mib * 256;
        Self {
            words: (0..pages * PAGE_WORDS).map(|index| word(0, index)).collect(),
            versions: vec![0; pages],
        }
    }

    fn write(&mut self, page: usize) -> Result<()> {
        self.compare(page, COMPARED)?;
        self.versions[page] = self.versions[page].wrapping_add(1);
        let (seed, first) = (self.seed(page), page * PAGE_WORDS);
        for (index, place) in self.words.iter_mut().enumerate().skip(first).take(PAGE_WORDS) {
            *place = word(seed, index);
        }
        Ok(())
    }

    fn compare(&self, page: usize, count: usize) -> Result<()> {
        let (seed, first) = (self.seed(page), page * PAGE_WORDS);
        for (index, found) in self.words.iter().enumerate().skip(first).take(count) {
            let expected = word(seed, index);
            ensure!(*found == expected, "word {index} is {found:#x}, not {expected:#x} as written last");
        }
        Ok(())
    }

    fn seed(&self, page: usize) -> u64 {
        u64::from(self.versions[page]) << 32
    }
}

/// Holds a rate in slices of a millisecond. A slice that was lost is not made up for: what the program could not write is
/// missing in its count.
struct Pace {
    /// Bytes of a slice; none if there is no limit.
    slice_bytes: Option<u64>,
    left: u64,
    slice_end: Instant,
}

impl Pace {
    const SLICE: Duration = Duration::from_millis(1);

    fn new(rate_mb: u64) -> Self {
        let slice_bytes = (rate_mb > 0).then_some(rate_mb * 1000);
        Self { slice_bytes, left: slice_bytes.unwrap_or(0), slice_end: Instant::now() + Self::SLICE }
    }

    fn wait_after_a_page(&mut self) {
        let Some(slice_bytes) = self.slice_bytes else { return };
        let page_bytes = PAGE_KIB << 10;
        if self.left > page_bytes {
            self.left -= page_bytes;
            return;
        }
        // What the last page was too much is taken from the next slice.
        self.left = (self.left + slice_bytes).saturating_sub(page_bytes).max(1);
        let now = Instant::now();
        if let Some(rest) = self.slice_end.checked_duration_since(now) {
            // A signal ends the pause early, which does no harm.
            let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &rest.into());
        }
        // Waking up a little late is made up for.
        self.slice_end = self.slice_end.max(Instant::now() - Self::SLICE) + Self::SLICE;
    }
}
