//! Page requests: which pages have been asked for, why, and which must wait until there is room.

use alloc::collections::VecDeque;

use memory::{Addr, PAGE_SIZE, PageRange, PageSet, RangeSet};
use protocol::MAX_PAGES_PER_FRAME;

use super::prefetch::{self, Prefetch, Walker};
use super::space::Space;
use crate::{Config, Instant};

/// Requests of all address spaces together: a page is on its way once, whoever waits for it. Source addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultTable {
    in_flight: PageSet,
    /// Pages on their way, or about to be, for which a thread waits.
    faulted: PageSet,
    /// To be asked for as soon as there is room.
    deferred: RangeSet,
    /// Pages that come by the push, and for which threads wait: each is asked for by itself.
    overtaking: RangeSet,
    /// Nobody waits for these, but somebody may soon.
    guessed: RangeSet,
    /// When each request was sent; those answered are dropped from the front.
    sent: VecDeque<(Instant, PageRange)>,
    /// When the last fault was.
    last: Option<Instant>,
    /// False until the mappings stand.
    open: bool,
    prefetch: Prefetch,
}

impl FaultTable {
    /// From here on requests go out.
    pub(super) fn open(&mut self) {
        self.open = true;
    }

    /// `walker` waits for `page`, which lies at `current` in `space`. Returns what to ask for at once: the page and
    /// wanted ones behind it. Others of this space that it may touch soon are deferred: another one may not be there yet.
    pub(super) fn fault(
        &mut self,
        config: &Config,
        now: Instant,
        (space, walker): (&Space, Walker),
        (current, page): (PageRange, PageRange),
    ) -> Option<PageRange> {
        self.faulted.insert(page);
        self.last = Some(now);
        if self.in_flight.contains(page.start()) {
            return None;
        }
        if !self.open || self.in_flight.len() >= config.pages_in_flight {
            self.deferred.insert(page);
            return None;
        }
        let guess = self.prefetch.guess(config, walker, page.start());
        let behind = prefetch::pages_behind(guess.behind, space, &self.in_flight, (current, page));
        let ahead = guess.ahead(page).filter(|ahead| space.is_wanted(ahead.start()));
        ahead.for_each(|ahead| self.guessed.insert(ahead));
        let request = PageRange::from_pages(page.start(), 1 + behind).unwrap_or(page);
        self.ask(now, request);
        Some(request)
    }

    /// Whether threads have been waiting for pages just now.
    pub(super) fn is_under_fire(&self, now: Instant, config: &Config) -> bool {
        self.last.is_some_and(|last| now.since(last) < config.under_fire)
    }

    /// Pages are wanted, though nobody waits for them.
    pub(super) fn defer(&mut self, pages: PageRange) {
        self.deferred.insert(pages);
    }

    /// The next deferred request, if there is room: pages that `is_wanted` and that are not on their way.
    pub(super) fn next_deferred(
        &mut self,
        config: &Config,
        now: Instant,
        is_wanted: impl Fn(Addr) -> bool,
    ) -> Option<PageRange> {
        while self.open && self.in_flight.len() < config.pages_in_flight {
            let (waiting, most) = match (self.overtaking.is_empty(), self.deferred.is_empty()) {
                (false, _) => (&mut self.overtaking, 1),
                (true, false) => (&mut self.deferred, MAX_PAGES_PER_FRAME),
                (true, true) => (&mut self.guessed, MAX_PAGES_PER_FRAME),
            };
            let run = waiting.runs().next()?.split_at_pages(most).0;
            let asked = |at: Addr| is_wanted(at) && !self.in_flight.contains(at);
            let mut end = run.start();
            while end < run.end() && asked(end) {
                end = Addr(end.0 + PAGE_SIZE);
            }
            // A page that need not be asked for is dropped with what comes before it.
            let taken = if end < run.end() { Addr(end.0 + PAGE_SIZE) } else { end };
            PageRange::new(run.start(), taken).map(|taken| waiting.remove(taken));
            if let Some(request) = PageRange::new(run.start(), end).filter(|request| !request.is_empty()) {
                self.ask(now, request);
                return Some(request);
            }
        }
        None
    }

    /// The answer for these pages has come.
    pub(super) fn answered(&mut self, pages: PageRange) {
        self.in_flight.remove(pages);
        while let Some((_, front)) = self.sent.front()
            && self.in_flight.first_in(*front).is_none()
        {
            self.sent.pop_front();
        }
    }

    /// These pages come by the push, which the first page of a request overtakes, and no other.
    pub(super) fn pushed(&mut self, pages: PageRange) {
        self.answered(pages);
        for awaited in self.faulted.runs_in(pages) {
            self.overtaking.insert(awaited);
        }
    }

    /// How many of these pages somebody waited for; they are forgotten.
    pub(super) fn take_faulted(&mut self, pages: PageRange) -> u64 {
        self.faulted.remove(pages)
    }

    /// When the oldest request that has no answer yet was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sent.front().map(|(at, _)| *at)
    }

    /// The link is lost: what was asked for does not come. Pages for which threads wait are asked for again.
    pub(super) fn pause(&mut self) {
        self.in_flight = PageSet::new();
        for page in self.faulted.runs() {
            self.deferred.insert(page);
        }
        self.sent.clear();
        self.overtaking = RangeSet::new();
        self.guessed = RangeSet::new();
        self.open = false;
    }

    /// Pages that have been asked for.
    pub(super) const fn in_flight(&self) -> &PageSet {
        &self.in_flight
    }

    /// Drops every request: nobody is there to answer.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    fn ask(&mut self, now: Instant, request: PageRange) {
        self.in_flight.insert(request);
        self.deferred.remove(request);
        self.overtaking.remove(request);
        self.guessed.remove(request);
        self.sent.push_back((now, request));
    }
}
