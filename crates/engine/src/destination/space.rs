//! One address space: where its pages are, which are still missing, who waits for them.
//!
//! Three things the kernel's events do not tell, all about pages that are still missing:
//! - `MREMAP_FIXED` over registered memory is told in two halves, and the kernel waits in between. What another thread
//!   does to its mappings in that moment (a fork too) is seen in the wrong order.
//! - `MADV_DONTNEED` keeps the content of shared memory and `MADV_REMOVE` drops it, by the same event. It is taken for
//!   the latter.
//! - `mremap` with an old length of zero maps shared memory a second time, without an event that says so.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use memory::{Addr, AddressMap, PAGE_SIZE, PageRange, PageSet, RangeSet};

use crate::Instant;

/// A page is in one of three states: *wanted* (in `unknown` or `outstanding`), or else *settled*: present, zero
/// or gone. A settled page never becomes wanted again. Source addresses, unless it says `current`.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    /// Where the pages of the source are. What is not in it holds nothing of the source's.
    map: AddressMap,
    /// Wanted, and the source has not said yet whether they hold data.
    unknown: RangeSet,
    /// Wanted, and known to hold data.
    outstanding: PageSet,
    /// Current pages at which threads wait, since when.
    waiting: BTreeMap<Addr, Instant>,
    /// Current ranges that were moved away: an `munmap` of the same range follows as the second half of the
    /// `mremap`, and by then something else may live there. None follows if the old range stays mapped
    /// (`MREMAP_DONTUNMAP`), which no event tells.
    moved_away: VecDeque<PageRange>,
    /// Wanted pages that the kernel had no place for, once.
    doubtful: RangeSet,
}

impl Space {
    /// The stopped process, nothing changed yet; `eager` pages are known to hold data, those that it `holds` are in
    /// place.
    pub(super) fn new(eager: &RangeSet, lazy: &RangeSet, holds: &RangeSet) -> Self {
        let mut space = Self { unknown: lazy.clone(), ..Self::default() };
        for range in lazy.runs().chain(eager.runs()) {
            space.map.insert(range, range.start());
        }
        for range in holds.runs() {
            space.unknown.remove(range);
        }
        for range in eager.runs() {
            space.unknown.remove(range);
            space.outstanding.insert(range);
        }
        space
    }

    /// Pages that were in place are not.
    pub(super) fn want_again(&mut self, pages: PageRange) {
        self.unknown.insert(pages);
    }

    /// Lets go of pages, and returns those of them that are wanted.
    pub(super) fn give_away(&mut self, pages: PageRange) -> Vec<PageRange> {
        let wanted = self.unknown.runs_in(pages).collect();
        self.unknown.remove(pages);
        for (current, _) in self.map.locate(pages) {
            self.map.remove(current);
        }
        wanted
    }

    /// Has `pages` of the source at the current range `at`; `wanted` are those of them that are.
    pub(super) fn take_over(&mut self, at: PageRange, pages: PageRange, wanted: &[PageRange]) {
        self.map.insert(at, pages.start());
        for run in wanted {
            self.unknown.insert(*run);
        }
    }

    /// What a child has at the moment of its making. Nobody waits in it: only the forking thread lives on.
    pub(super) fn child(&self) -> Self {
        Self {
            map: self.map.clone(),
            unknown: self.unknown.clone(),
            outstanding: self.outstanding.clone(),
            ..Self::default()
        }
    }

    /// Whether nothing is wanted any more.
    pub(super) fn is_settled(&self) -> bool {
        self.unknown.is_empty() && self.outstanding.is_empty()
    }

    /// Wanted pages that are known to hold data.
    pub(super) fn outstanding(&self) -> &PageSet {
        &self.outstanding
    }

    /// How many pages the source has not looked at.
    pub(super) const fn unknown_pages(&self) -> u64 {
        self.unknown.pages()
    }

    /// The source page behind a current one.
    pub(super) fn source_of(&self, current: Addr) -> Option<Addr> {
        self.map.source_of(current)
    }

    /// The current extent around a current address.
    pub(super) fn extent_at(&self, current: Addr) -> Option<(PageRange, PageRange)> {
        self.map.extent_at(current)
    }

    pub(super) fn is_wanted(&self, page: Addr) -> bool {
        self.unknown.contains(page) || self.outstanding.contains(page)
    }

    /// The first run of wanted pages in `range`, as far as it is of one sort.
    pub(super) fn first_wanted(&self, range: PageRange) -> Option<PageRange> {
        match (self.unknown.first_in(range), self.outstanding.first_in(range)) {
            (Some(a), Some(b)) => Some(if a.start() < b.start() { a } else { b }),
            (one, other) => one.or(other),
        }
    }

    /// Every wanted page in `range`.
    pub(super) fn wanted_in(&self, range: PageRange) -> impl Iterator<Item = PageRange> + '_ {
        self.unknown.runs_in(range).chain(self.outstanding.runs_in(range))
    }

    /// Every wanted page.
    pub(super) fn wanted(&self) -> impl Iterator<Item = PageRange> + '_ {
        self.unknown.runs().chain(self.outstanding.runs())
    }

    /// Where pages of the source are, as (current, source).
    pub(super) fn locate(&self, pages: PageRange) -> Vec<(PageRange, PageRange)> {
        self.map.locate(pages)
    }

    /// The first piece of `wanted` pages that lies in one stretch, as (source, current). Pages that are wanted
    /// are mapped, by construction.
    pub(super) fn place(&self, wanted: PageRange) -> Option<(PageRange, PageRange)> {
        self.map.locate(wanted).first().map(|(current, source)| (*source, *current))
    }

    /// Pages are there, known to be zero, or given up. Returns how many of them were wanted.
    pub(super) fn settle(&mut self, pages: PageRange) -> u64 {
        self.doubtful.remove(pages);
        self.unknown.remove(pages) + self.outstanding.remove(pages)
    }

    /// The source has looked at `scanned`. Returns how many wanted pages turned out to hold data.
    pub(super) fn scanned(&mut self, scanned: PageRange, data: &[PageRange]) -> u64 {
        let mut found = 0;
        for run in data {
            for wanted in self.unknown.runs_in(*run) {
                found += self.outstanding.insert(wanted);
            }
        }
        self.unknown.remove(scanned);
        found
    }

    /// The program dropped the content of a current range.
    pub(super) fn removed(&mut self, current: PageRange) {
        for (_, source) in self.map.remove(current) {
            self.settle(source);
        }
    }

    /// The program unmapped a current range, by `munmap` or as the second half of an `mremap`.
    pub(super) fn unmapped(&mut self, current: PageRange) {
        match self.moved_away.iter().position(|range| *range == current) {
            Some(index) => {
                self.moved_away.remove(index);
            }
            None => self.removed(current),
        }
    }

    /// The program moved a current range.
    pub(super) fn remapped(&mut self, from: PageRange, to: PageRange, most_awaited: usize) {
        let moved = self.map.remove(from);
        self.removed(to);
        for (piece, source) in moved {
            let offset = piece.start().0 - from.start().0;
            match piece.moved_to(Addr(to.start().0 + offset)) {
                Some(place) => self.map.insert(place, source.start()),
                None => _ = self.settle(source),
            }
            self.doubtful.remove(source);
        }
        if self.moved_away.len() >= most_awaited {
            self.moved_away.pop_front();
        }
        self.moved_away.push_back(from);
    }

    /// The kernel has taken pages, or said why not. It refuses to look at any as long as an `munmap` that has begun has
    /// not been read: nothing that was moved away is going to be unmapped any more.
    pub(super) fn all_was_told(&mut self) {
        self.moved_away.clear();
    }

    /// The kernel has no place for these pages, though no event says so. The first time they stay wanted, and the
    /// caller asks for them again; the second time they are gone.
    pub(super) fn has_no_place_for(&mut self, pages: PageRange) -> Vec<PageRange> {
        let mut again = Vec::new();
        let wanted: Vec<_> = self.wanted_in(pages).collect();
        for run in wanted {
            let seen: Vec<_> = self.doubtful.runs_in(run).collect();
            for gone in seen {
                for (current, _) in self.map.locate(gone) {
                    self.removed(current);
                }
            }
            again.extend(self.wanted_in(run));
        }
        for run in &again {
            self.doubtful.insert(*run);
        }
        again
    }

    /// Wanted pages for which there was no place once.
    pub(super) fn had_no_place(&self, pages: PageRange) -> impl Iterator<Item = PageRange> + '_ {
        self.doubtful.runs_in(pages).flat_map(|run| self.wanted_in(run))
    }

    /// A thread waits at a current page.
    pub(super) fn wait_at(&mut self, current: PageRange, now: Instant) {
        self.waiting.entry(current.start()).or_insert(now);
    }

    /// Whoever waits will be told of anew.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Pages that may hold data or not.
    pub(super) const fn unknown(&self) -> &RangeSet {
        &self.unknown
    }

    /// Nobody waits at these current pages any more. Returns since when they did.
    pub(super) fn woken(&mut self, current: PageRange) -> Vec<Instant> {
        let there: Vec<_> = self.waiting.range(current.start()..current.end()).map(|(at, _)| *at).collect();
        there.iter().filter_map(|at| self.waiting.remove(at)).collect()
    }

    /// Wanted pages for which threads wait.
    pub(super) fn awaited(&self) -> impl Iterator<Item = PageRange> + '_ {
        let sources = self.waiting.keys().filter_map(|at| self.map.source_of(*at));
        sources.filter(|page| self.is_wanted(*page)).filter_map(PageRange::page_of)
    }

    /// Takes out the current pages at which threads wait although nothing will arrive there.
    pub(super) fn waiting_in_vain(&mut self) -> Vec<(PageRange, Instant)> {
        let in_vain = |at: &Addr| !self.map.source_of(*at).is_some_and(|source| self.is_wanted(source));
        let there: Vec<_> = self.waiting.keys().copied().filter(in_vain).collect();
        there
            .into_iter()
            .filter_map(|at| Some((PageRange::page_of(at)?, self.waiting.remove(&at)?)))
            .collect()
    }

    /// The settled pages around a current page, within the aligned block of `block_pages` that holds it: what can
    /// be made zero with it. Just the page where nothing of the source's is; `None` if it is wanted.
    pub(super) fn zero_block(&self, page: PageRange, block_pages: u64) -> Option<PageRange> {
        let Some((extent, source)) = self.map.extent_at(page.start()) else {
            return Some(page);
        };
        let shift = |addr: Addr| Addr(addr.0 - extent.start().0 + source.start().0);
        if self.is_wanted(shift(page.start())) {
            return None;
        }
        let block_bytes = block_pages.max(1).saturating_mul(PAGE_SIZE);
        let (mut start, mut end) = (page.start(), page.end());
        let block_start = Addr(start.0 - start.0 % block_bytes);
        let block_end = Addr(block_start.0.saturating_add(block_bytes));
        let first = block_start.max(extent.start());
        let last = block_end.min(extent.end());
        while start > first && !self.is_wanted(shift(Addr(start.0 - PAGE_SIZE))) {
            start = Addr(start.0 - PAGE_SIZE);
        }
        while end < last && !self.is_wanted(shift(end)) {
            end = Addr(end.0 + PAGE_SIZE);
        }
        PageRange::new(start, end)
    }
}
