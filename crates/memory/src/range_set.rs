//! A set of pages kept as ranges: a terabyte of reservation is one entry.

use crate::sorted_map::SortedMap;
use crate::{Addr, PageRange};

/// A set of pages as maximal ranges: cheap where pages come in long stretches, one entry a stretch. Where
/// they come singly, [`crate::PageSet`] is the better home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start → end; ranges neither overlap nor touch.
    ranges: SortedMap,
    pages: u64,
}

impl RangeSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: SortedMap::new(), pages: 0 }
    }

    /// How many pages are in the set.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether no page is in the set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Whether the page that holds `addr` is in the set.
    #[must_use]
    pub fn contains(&self, addr: Addr) -> bool {
        self.at_or_below(addr).is_some_and(|(_, end)| addr < end)
    }

    /// Whether every page of `range` is in the set; true for an empty range.
    #[must_use]
    pub fn covers(&self, range: PageRange) -> bool {
        range.is_empty() || self.at_or_below(range.start()).is_some_and(|(_, end)| range.end() <= end)
    }

    /// Adds every page of `range`.
    pub fn insert(&mut self, range: PageRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start(), range.end());
        while let Some((near, far)) = self.at_or_below(end) {
            if far < start {
                break;
            }
            self.take(near, far);
            (start, end) = (start.min(near), end.max(far));
        }
        self.put(start, end);
    }

    /// Removes every page of `range`; returns how many were there.
    pub fn remove(&mut self, range: PageRange) -> u64 {
        let before = self.pages;
        if range.is_empty() {
            return 0;
        }
        // The end of a range that is not empty lies above address 0.
        while let Some((near, far)) = self.at_or_below(Addr(range.end().0 - 1)) {
            if far <= range.start() {
                break;
            }
            self.take(near, far);
            self.put(range.end(), far);
            if near < range.start() {
                self.put(near, range.start());
                break;
            }
        }
        before - self.pages
    }

    /// The first maximal run of pages within `range`.
    #[must_use]
    pub fn first_in(&self, range: PageRange) -> Option<PageRange> {
        let around = self.at_or_below(range.start()).filter(|(_, end)| range.start() < *end);
        let (start, end) = match around {
            Some(around) => around,
            None => self.ranges.at_or_above(range.start().0).map(addresses)?,
        };
        PageRange::new(start, end)?.intersection(range)
    }

    /// The maximal runs of pages within `range`, in ascending order.
    pub fn runs_in(&self, range: PageRange) -> impl Iterator<Item = PageRange> + '_ {
        let mut rest = range;
        core::iter::from_fn(move || {
            let run = self.first_in(rest)?;
            rest = PageRange::new(run.end(), range.end())?;
            Some(run)
        })
    }

    /// Every maximal run of pages, in ascending order.
    pub fn runs(&self) -> impl Iterator<Item = PageRange> + '_ {
        self.ranges.iter().filter_map(|(start, end)| PageRange::new(Addr(start), Addr(end)))
    }

    /// The last range that starts at or below `addr`.
    fn at_or_below(&self, addr: Addr) -> Option<(Addr, Addr)> {
        self.ranges.at_or_below(addr.0).map(addresses)
    }

    fn take(&mut self, start: Addr, end: Addr) {
        self.ranges.remove(start.0);
        self.pages -= pages(start, end);
    }

    fn put(&mut self, start: Addr, end: Addr) {
        if start < end {
            self.ranges.insert(start.0, end.0);
            self.pages += pages(start, end);
        }
    }
}

impl FromIterator<PageRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = PageRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

const fn addresses((start, end): (u64, u64)) -> (Addr, Addr) {
    (Addr(start), Addr(end))
}

const fn pages(start: Addr, end: Addr) -> u64 {
    end.0.saturating_sub(start.0) >> crate::PAGE_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;

    fn range(start: u64, pages: u64) -> PageRange {
        PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
    }

    #[test]
    fn neighbours_become_one_range_and_a_hole_makes_two() {
        let mut set: RangeSet = [range(10, 5), range(20, 5), range(15, 5)].into_iter().collect();
        assert_eq!(set.runs().collect::<alloc::vec::Vec<_>>(), [range(10, 15)]);
        assert!(set.covers(range(10, 15)) && !set.covers(range(10, 16)));
        assert_eq!(set.remove(range(12, 2)), 2);
        assert_eq!(set.runs_in(range(11, 4)).collect::<alloc::vec::Vec<_>>(), [range(11, 1), range(14, 1)]);
        assert_eq!(set.pages(), 13);
    }
}
