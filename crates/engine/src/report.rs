//! What a migration tells of itself at the end: phases, pages, faults, events, losses.

mod latency;

use alloc::vec::Vec;
use core::time::Duration;

use memory::PageRange;

pub use latency::Latency;

/// The destination's side of the report. The source's is `protocol::SourceReport`; downtime and bytes on the
/// wire need both.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// How long each phase took; zero for a phase that was not reached or is not over.
    pub phases: PhaseDurations,
    /// From the first input to the last page, or to the end of the migration.
    pub total: Duration,
    /// From `Switchover` received to the first thread at work: the part of the downtime that this side sees. The
    /// whole downtime is longer by the source's parking and capturing.
    pub downtime: Duration,
    /// Pages that arrived and were wanted.
    pub pages: PageCounts,
    /// From a fault seen to its page installed.
    pub fault_latency: Latency,
    /// What the program did to its mappings while pages were missing.
    pub events: EventCounts,
    /// How often the link was lost and found again.
    pub recoveries: u64,
    /// What could not be had.
    pub lost: LostPages,
}

/// How long each phase took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PhaseDurations {
    /// From `Reserve` received to `Reserved` sent; the program runs.
    pub reserve: Duration,
    /// From `Reserved` sent to `Switchover` received.
    pub wait: Duration,
    /// Building mappings, descriptors and threads.
    pub map: Duration,
    /// From there until the last eager page was in place and `Ready` was sent.
    pub eager: Duration,
    /// From `Ready` sent to `Run` received.
    pub commit: Duration,
    /// From `Run` received to the threads let go.
    pub resume: Duration,
    /// From there to the last page, while the link stood.
    pub postcopy: Duration,
    /// Without a link.
    pub paused: Duration,
}

/// Pages by cause and by kind; each page of the source counts once in either, when it first arrives and is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageCounts {
    /// Cause: came while the process ran at the source, and still held when it had stopped.
    pub ahead: u64,
    /// Cause: had to be in place before the program went on.
    pub eager: u64,
    /// Cause: a thread waited.
    pub fault: u64,
    /// Cause: asked for together with a page for which a thread waited, or left over at the end.
    pub prefetch: u64,
    /// Cause: pushed before anybody asked.
    pub push: u64,
    /// Kind: bytes on the wire.
    pub data: u64,
    /// Kind: all zero, a few bytes on the wire.
    pub zero: u64,
    /// Kind: unreadable at the source.
    pub lost: u64,
    /// Never on the wire: unchanged pages of files that are the same here. Given in from outside.
    pub same_file: u64,
    /// Never on the wire: pages of registered mappings that hold nothing.
    pub holes: u64,
    /// Arrived though nobody wanted them (any more): requested and pushed at once, or dropped by the program.
    pub unwanted: u64,
    /// Touches of pages without content, answered here.
    pub zero_fills: u64,
}

/// What the program did to its mappings while pages were missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EventCounts {
    /// Faults seen, including those answered with zeros.
    pub faults: u64,
    /// `mremap`
    pub remaps: u64,
    /// `madvise(MADV_DONTNEED)` and its kin.
    pub removes: u64,
    /// `munmap`
    pub unmaps: u64,
    /// `fork`
    pub forks: u64,
    /// Installations that the kernel put off because mappings were changing.
    pub retries: u64,
}

/// Pages that neither side has (any more): a touch is answered by SIGBUS.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LostPages {
    /// Where they were at the source; the first ones, up to `Config::lost_ranges`.
    pub ranges: Vec<PageRange>,
    /// How many ranges there were.
    pub range_count: u64,
    /// How many pages they hold together; what was not yet looked at counts whole.
    pub pages: u64,
}

/// How far a migration has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Data pages in place.
    pub done_pages: u64,
    /// Data pages known so far.
    pub total_pages: u64,
    /// Whether `total_pages` is the last word.
    pub total_is_known: bool,
}

impl LostPages {
    pub(crate) fn add(&mut self, range: PageRange, most_ranges: usize) {
        self.range_count += 1;
        self.pages += range.pages();
        if self.ranges.len() < most_ranges {
            self.ranges.push(range);
        }
    }
}
