//! Where the search for data pages has got to.

use alloc::vec::Vec;

use memory::{PAGE_SIZE, PageRange, RangeSet};

/// Walks the lazy ranges in pieces. A piece that held nothing is followed by a larger one, so that a terabyte
/// of untouched reservation takes a few scans.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    /// The lazy ranges; of the one at `at` what is left.
    ranges: Vec<PageRange>,
    at: usize,
    piece_pages: u64,
    smallest_pages: u64,
    asked: Option<PageRange>,
}

/// The answer to a scan is not about what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WrongScan;

impl Scan {
    pub(super) fn new(lazy: &RangeSet, piece_bytes: u64) -> Self {
        let smallest_pages = (piece_bytes / PAGE_SIZE).max(1);
        Self {
            ranges: lazy.runs().collect(),
            at: 0,
            piece_pages: smallest_pages,
            smallest_pages,
            asked: None,
        }
    }

    /// The next piece to look at, unless one is under way or none is left.
    pub(super) fn next(&mut self) -> Option<PageRange> {
        if self.asked.is_some() {
            return None;
        }
        let (piece, _) = self.ranges.get(self.at)?.split_at_pages(self.piece_pages);
        self.asked = Some(piece);
        Some(piece)
    }

    /// Takes note that `scanned` has been looked at.
    pub(super) fn done(&mut self, scanned: PageRange, found_data: bool) -> Result<(), WrongScan> {
        let fits = |asked: &PageRange| {
            scanned.start() == asked.start() && asked.covers(scanned) && !scanned.is_empty()
        };
        self.asked.take().filter(fits).ok_or(WrongScan)?;
        let range = self.ranges.get_mut(self.at).ok_or(WrongScan)?;
        (_, *range) = range.split_at_pages(scanned.pages());
        if range.is_empty() {
            self.at += 1;
        }
        self.piece_pages = if found_data { self.smallest_pages } else { self.piece_pages.saturating_mul(4) };
        Ok(())
    }

    /// Whether every lazy range has been looked at.
    pub(super) fn is_complete(&self) -> bool {
        self.at == self.ranges.len()
    }
}
