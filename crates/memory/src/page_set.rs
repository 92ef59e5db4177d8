//! A sparse set of pages: cheap for a few pages in a terabyte of reservation, one bit a page where dense.

use crate::sorted_map::SortedMap;
use crate::{Addr, PAGE_SHIFT, PAGE_SIZE, PageRange};

/// Pages that one chunk describes: 512, so that a chunk is 2 MiB of address space in 64 bytes of bitmap.
const CHUNK_PAGES: u64 = 512;
const WORDS: usize = 8;
const WORD_BITS: u64 = 64;

/// A set of pages, kept as bitmaps of 2 MiB chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSet {
    chunks: SortedMap<[u64; WORDS]>,
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
        self.chunks.get(page / CHUNK_PAGES).is_some_and(|chunk| {
            let (word, bit) = position(page % CHUNK_PAGES);
            chunk.get(word).is_some_and(|bits| bits >> bit & 1 == 1)
        })
    }

    /// Adds every page of `range`; returns how many were not there before.
    pub fn insert(&mut self, range: PageRange) -> u64 {
        let mut added = 0;
        for (chunk, mask) in masks(range) {
            let Some(words) = self.chunks.get_mut(chunk) else {
                added += mask.iter().map(|bits| u64::from(bits.count_ones())).sum::<u64>();
                self.chunks.insert(chunk, mask);
                continue;
            };
            for (word, bits) in words.iter_mut().zip(mask) {
                added += u64::from((bits & !*word).count_ones());
                *word |= bits;
            }
        }
        self.len += added;
        added
    }

    /// Removes every page of `range`; returns how many were there.
    pub fn remove(&mut self, range: PageRange) -> u64 {
        let mut removed = 0;
        let (mut next, last) = chunk_bounds(range);
        while let Some((chunk, _)) = self.chunks.at_or_above(next).filter(|(chunk, _)| *chunk < last) {
            next = chunk + 1;
            let mask = mask_of(range, chunk);
            let Some(words) = self.chunks.get_mut(chunk) else { break };
            for (word, bits) in words.iter_mut().zip(mask) {
                removed += u64::from((bits & *word).count_ones());
                *word &= !bits;
            }
            if words.iter().all(|word| *word == 0) {
                self.chunks.remove(chunk);
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
        let mut next = from / CHUNK_PAGES;
        while let Some((chunk, words)) = self.chunks.at_or_above(next) {
            next = chunk + 1;
            let base = chunk * CHUNK_PAGES;
            for (index, word) in (0_u64..).zip(words) {
                let word_base = base + index * WORD_BITS;
                let skip = from.saturating_sub(word_base);
                let rest = if skip >= WORD_BITS { 0 } else { word >> skip << skip };
                if rest != 0 {
                    return Some(word_base + u64::from(rest.trailing_zeros()));
                }
            }
        }
        None
    }

    /// The first page from `from` on that is not in the set; `limit` if there is none before it.
    fn next_absent(&self, from: u64, limit: u64) -> u64 {
        let mut at = from;
        while at < limit {
            let Some(words) = self.chunks.get(at / CHUNK_PAGES) else {
                break;
            };
            let (word, bit) = position(at % CHUNK_PAGES);
            let absent = words.get(word).map_or(u64::MAX, |bits| !bits >> bit);
            if absent != 0 {
                at += u64::from(absent.trailing_zeros());
                break;
            }
            at += WORD_BITS - bit;
        }
        at.min(limit)
    }
}

fn position(page_in_chunk: u64) -> (usize, u64) {
    // A remainder of 512 divided by 64 is below 8.
    (usize::try_from(page_in_chunk / WORD_BITS).unwrap_or(0), page_in_chunk % WORD_BITS)
}

fn chunk_bounds(range: PageRange) -> (u64, u64) {
    let bytes = CHUNK_PAGES * PAGE_SIZE;
    (range.start().0 / bytes, range.end().0.div_ceil(bytes))
}

fn masks(range: PageRange) -> impl Iterator<Item = (u64, [u64; WORDS])> {
    let (first, last) = if range.is_empty() { (0, 0) } else { chunk_bounds(range) };
    (first..last).map(move |chunk| (chunk, mask_of(range, chunk)))
}

fn mask_of(range: PageRange, chunk: u64) -> [u64; WORDS] {
    let base = chunk * CHUNK_PAGES;
    let low = (range.start().0 >> PAGE_SHIFT).saturating_sub(base).min(CHUNK_PAGES);
    let high = (range.end().0 >> PAGE_SHIFT).saturating_sub(base).min(CHUNK_PAGES);
    let mut mask = [0; WORDS];
    for (index, word) in (0_u64..).zip(&mut mask) {
        let from = low.saturating_sub(index * WORD_BITS).min(WORD_BITS);
        let to = high.saturating_sub(index * WORD_BITS).min(WORD_BITS);
        *word = ones(to) & !ones(from);
    }
    mask
}

const fn ones(count: u64) -> u64 {
    if count >= WORD_BITS { u64::MAX } else { (1 << count) - 1 }
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
