//! A sparse set of pages: cheap for a few pages in a terabyte of reservation, two bits a page where dense.

use crate::sorted_map::SortedMap;
use crate::{Addr, PAGE_SHIFT, PAGE_SIZE, PageRange};

/// Pages that one chunk describes: as many as a word has bits, 256 KiB of address space.
const CHUNK_PAGES: u64 = 64;

/// A set of pages, kept as one bitmap for each 256 KiB that hold any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSet {
    /// Number of the chunk → bit n for its page n; never 0.
    chunks: SortedMap,
    len: u64,
}

impl PageSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: SortedMap::new(), len: 0 }
    }

    /// How many pages are in the set.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether no page is in the set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the page that holds `addr` is in the set.
    #[must_use]
    pub fn contains(&self, addr: Addr) -> bool {
        let page = addr.0 >> PAGE_SHIFT;
        self.chunks.get(page / CHUNK_PAGES).is_some_and(|bits| bits >> (page % CHUNK_PAGES) & 1 == 1)
    }

    /// Adds every page of `range`; returns how many were not there before.
    pub fn insert(&mut self, range: PageRange) -> u64 {
        let mut added = 0;
        let (first, last) = chunk_bounds(range);
        for chunk in first..last {
            let mask = mask_of(range, chunk);
            let bits = self.chunks.get(chunk).unwrap_or(0);
            added += u64::from((mask & !bits).count_ones());
            self.chunks.insert(chunk, bits | mask);
        }
        self.len += added;
        added
    }

    /// Removes every page of `range`; returns how many were there.
    pub fn remove(&mut self, range: PageRange) -> u64 {
        let mut removed = 0;
        let (mut next, last) = chunk_bounds(range);
        while let Some((chunk, bits)) = self.chunks.at_or_above(next).filter(|(chunk, _)| *chunk < last) {
            next = chunk + 1;
            let mask = mask_of(range, chunk);
            removed += u64::from((bits & mask).count_ones());
            match bits & !mask {
                0 => self.chunks.remove(chunk),
                left => self.chunks.insert(chunk, left),
            }
        }
        self.len -= removed;
        removed
    }

    /// The first run of consecutive pages at or after `from`, cut at `max_pages`.
    #[must_use]
    pub fn next_run(&self, from: Addr, max_pages: u64) -> Option<PageRange> {
        let first = self.next_page(from.page_ceil().0 >> PAGE_SHIFT)?;
        let end = self.next_absent(first, first.saturating_add(max_pages.max(1)));
        PageRange::from_pages(Addr(first << PAGE_SHIFT), end - first)
    }

    /// The first maximal run of consecutive pages within `range`.
    #[must_use]
    pub fn first_in(&self, range: PageRange) -> Option<PageRange> {
        if range.is_empty() { None } else { self.next_run(range.start(), range.pages())?.intersection(range) }
    }

    /// The maximal runs of consecutive pages within `range`, in ascending order.
    pub fn runs_in(&self, range: PageRange) -> impl Iterator<Item = PageRange> + '_ {
        let mut rest = range;
        core::iter::from_fn(move || {
            let run = self.first_in(rest)?;
            rest = PageRange::new(run.end(), range.end())?;
            Some(run)
        })
    }

    /// Every maximal run of consecutive pages, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = PageRange> + '_ {
        let everything = PageRange::new(Addr(0), Addr(crate::USER_END));
        everything.into_iter().flat_map(|all| self.runs_in(all))
    }

    fn next_page(&self, from: u64) -> Option<u64> {
        let (mut chunk, mut bits) = self.chunks.at_or_above(from / CHUNK_PAGES)?;
        // Only the chunk in which the search begins has pages before `from`.
        bits &= !ones(from.saturating_sub(chunk * CHUNK_PAGES));
        if bits == 0 {
            (chunk, bits) = self.chunks.at_or_above(chunk + 1)?;
        }
        Some(chunk * CHUNK_PAGES + u64::from(bits.trailing_zeros()))
    }

    /// The first page from `from` on that is not in the set; `limit` if there is none before it.
    fn next_absent(&self, from: u64, limit: u64) -> u64 {
        let mut at = from;
        while let Some(chunks) = self.chunks.some_at_or_above(at / CHUNK_PAGES) {
            for (chunk, bits) in chunks {
                let absent = if *chunk == at / CHUNK_PAGES { !bits >> (at % CHUNK_PAGES) } else { 1 };
                if absent != 0 || at >= limit {
                    return limit.min(at + u64::from(absent.trailing_zeros()));
                }
                at += CHUNK_PAGES - at % CHUNK_PAGES;
            }
        }
        limit.min(at)
    }
}

/// The chunks that `range` touches, the last one exclusive.
fn chunk_bounds(range: PageRange) -> (u64, u64) {
    let bytes = CHUNK_PAGES * PAGE_SIZE;
    if range.is_empty() { (0, 0) } else { (range.start().0 / bytes, range.end().0.div_ceil(bytes)) }
}

/// The pages of `range` in `chunk`.
fn mask_of(range: PageRange, chunk: u64) -> u64 {
    let before = |addr: Addr| ones((addr.0 >> PAGE_SHIFT).saturating_sub(chunk * CHUNK_PAGES));
    before(range.end()) & !before(range.start())
}

/// The lowest `count` bits.
const fn ones(count: u64) -> u64 {
    if count >= CHUNK_PAGES { u64::MAX } else { (1 << count) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, pages: u64) -> PageRange {
        PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
    }

    #[test]
    fn inserting_and_removing_counts_each_page_once() {
        let mut set = PageSet::new();
        assert_eq!(set.insert(range(500, 600)), 600);
        assert_eq!(set.insert(range(400, 200)), 100);
        assert_eq!(set.remove(range(0, 450)), 50);
        assert_eq!(set.len(), 650);
        assert!(set.contains(Addr(450 * PAGE_SIZE + 17)));
        assert!(!set.contains(Addr(449 * PAGE_SIZE)));
    }

    #[test]
    fn runs_are_maximal_and_ascending() {
        let mut set = PageSet::new();
        set.insert(range(1, 3));
        set.insert(range(510, 4));
        let runs: alloc::vec::Vec<_> = set.runs().collect();
        assert_eq!(runs, [range(1, 3), range(510, 4)]);
        assert_eq!(set.next_run(Addr(2 * PAGE_SIZE), 1), Some(range(2, 1)));
    }
}
