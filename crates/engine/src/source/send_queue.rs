//! Which pages are sent next, and which need not be sent at all.

use alloc::collections::VecDeque;

use memory::{Addr, PageRange, PageSet, RangeSet};
use protocol::Channel;

use super::SourceAction;

/// What the source knows of its pages after the stop. Before `Run` it holds the eager pages only.
#[derive(Clone, Debug, Default)]
pub(super) struct SendQueue {
    /// Everything that the destination may ask for: eager and lazy.
    served: RangeSet,
    /// Lazy pages that have been looked at.
    scanned: RangeSet,
    /// Lazy pages of which the destination has not been told, over a lost link.
    rescan: RangeSet,
    /// Scanned pages that hold data.
    data: PageSet,
    /// Pages to push.
    to_push: PageSet,
    /// Pages that went out before the scan came by; the scan does not put them into the queue again.
    sent_unscanned: PageSet,
    /// Pages that were pushed while the process runs at the destination: they arrive there as long as the link holds.
    pushed: PageSet,
    /// Where the push goes on: behind the last page that somebody waited for.
    cursor: Addr,
}

impl SendQueue {
    /// A queue with the eager pages in it. The destination has those that are `kept`.
    pub(super) fn new(eager: &[PageRange], lazy: RangeSet, kept: &[PageRange]) -> Self {
        let mut sent_unscanned = PageSet::new();
        // The program stands still: what will never be scanned (nothing is, where all pages come first) would cost it as much
        // time as it has memory.
        for range in kept.iter().filter(|range| lazy.first_in(**range).is_some()) {
            sent_unscanned.insert(*range);
        }
        let mut queue = Self {
            served: lazy,
            scanned: RangeSet::new(),
            rescan: RangeSet::new(),
            data: PageSet::new(),
            to_push: PageSet::new(),
            sent_unscanned,
            pushed: PageSet::new(),
            cursor: Addr(0),
        };
        for range in eager {
            queue.served.insert(*range);
            queue.to_push.insert(*range);
        }
        queue
    }

    /// Whether everything known has been sent.
    pub(super) fn is_empty(&self) -> bool {
        self.to_push.is_empty()
    }

    /// The next run to push.
    pub(super) fn next(&mut self, max_pages: u64) -> Option<PageRange> {
        let run = self.to_push.next_run(self.cursor, max_pages);
        let run = run.or_else(|| self.to_push.next_run(Addr(0), max_pages))?;
        self.cursor = run.end();
        self.mark_sent(run);
        Some(run)
    }

    /// This run is pushed while the process runs at the destination.
    pub(super) fn pushed(&mut self, run: PageRange) {
        self.pushed.insert(run);
    }

    /// Nothing that was pushed counts as being on its way any more.
    pub(super) fn forget_pushed(&mut self) {
        self.pushed = PageSet::new();
    }

    /// Adds to `answers` how a request for `pages` is answered; false if it names pages that are not served.
    ///
    /// Somebody waits for the first one, which may overtake what has been pushed. What has been pushed of the others is not
    /// sent twice: over a slow link, whoever walks on just ahead of the push would have everything sent twice.
    pub(super) fn answer(&mut self, pages: PageRange, answers: &mut VecDeque<SourceAction>) -> bool {
        if pages.is_empty() || !self.served.covers(pages) {
            return false;
        }
        let mut zero: RangeSet = self.scanned.runs_in(pages).collect();
        for run in self.data.runs_in(pages) {
            zero.remove(run);
        }
        let mut read: RangeSet = [pages].into_iter().collect();
        for run in self.pushed.runs_in(pages.split_at_pages(1).1) {
            read.remove(run);
            answers.push_back(SourceAction::SendPushed(run));
        }
        for pages in zero.runs() {
            read.remove(pages);
            answers.push_back(SourceAction::SendZero(pages));
        }
        for pages in read.runs() {
            self.mark_sent(pages);
            answers.push_back(SourceAction::SendPages { channel: Channel::Fault, pages });
        }
        self.cursor = pages.end();
        true
    }

    /// Nobody knows what of all that was sent has arrived; the destination will tell.
    pub(super) fn forget_sent(&mut self) {
        self.to_push = PageSet::new();
        self.rescan = RangeSet::new();
        self.sent_unscanned = PageSet::new();
        self.forget_pushed();
    }

    /// The destination has not been told what these pages hold: they are to be looked at again. False if they are
    /// not served.
    pub(super) fn unscanned(&mut self, pages: PageRange) -> bool {
        self.scanned.remove(pages);
        self.rescan.insert(pages);
        self.served.covers(pages)
    }

    /// These pages have arrived, in ranges that are looked at again; or they are missing. False if they are not
    /// served.
    pub(super) fn listed(&mut self, arrived: bool, pages: &[PageRange]) -> bool {
        let set = if arrived { &mut self.sent_unscanned } else { &mut self.to_push };
        pages.iter().all(|run| {
            let served = self.served.covers(*run);
            if served {
                set.insert(*run);
            }
            served
        })
    }

    /// What is to be looked at again.
    pub(super) fn take_unscanned(&mut self) -> RangeSet {
        core::mem::take(&mut self.rescan)
    }

    /// Takes the result of a scan; its data pages are pushed unless they have been sent already.
    pub(super) fn scanned(&mut self, scanned: PageRange, data: &[PageRange]) {
        for run in data {
            self.data.insert(*run);
            self.to_push.insert(*run);
            for sent in self.sent_unscanned.runs_in(*run) {
                self.to_push.remove(sent);
            }
        }
        self.sent_unscanned.remove(scanned);
        self.scanned.insert(scanned);
    }

    fn mark_sent(&mut self, run: PageRange) {
        self.to_push.remove(run);
        // Pages outside the lazy ranges are never scanned; remembering them costs nothing and hurts nobody.
        if !self.scanned.covers(run) {
            self.sent_unscanned.insert(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use memory::PAGE_SIZE;

    fn range(start: u64, pages: u64) -> PageRange {
        PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
    }

    /// What a request for these pages gets.
    fn answers(queue: &mut SendQueue, start: u64, pages: u64) -> Vec<SourceAction> {
        let mut answers = VecDeque::new();
        assert_eq!(queue.answer(range(start, pages), &mut answers), !answers.is_empty());
        answers.into()
    }

    fn read(start: u64, pages: u64) -> SourceAction {
        SourceAction::SendPages { channel: Channel::Fault, pages: range(start, pages) }
    }

    fn zero(start: u64, pages: u64) -> SourceAction {
        SourceAction::SendZero(range(start, pages))
    }

    fn queue() -> SendQueue {
        SendQueue::new(&[], [range(0, 1000)].into_iter().collect(), &[])
    }

    #[test]
    fn pushing_goes_on_behind_the_page_that_was_asked_for() {
        let mut queue = queue();
        queue.scanned(range(0, 1000), &[range(10, 100), range(500, 100)]);
        assert_eq!(queue.next(8), Some(range(10, 8)));
        answers(&mut queue, 520, 2);
        assert_eq!(queue.next(8), Some(range(522, 8)));
        assert_eq!(queue.next(200), Some(range(530, 70)));
        assert_eq!(queue.next(200), Some(range(18, 92)));
        assert_eq!(queue.next(200), Some(range(500, 20)));
        assert_eq!(queue.next(200), None);
    }

    #[test]
    fn a_page_sent_before_the_scan_is_not_pushed_by_it() {
        let mut queue = queue();
        assert_eq!(answers(&mut queue, 10, 2), [read(10, 2)]);
        queue.scanned(range(0, 1000), &[range(9, 4)]);
        assert_eq!(queue.next(8), Some(range(12, 1)));
        assert_eq!(queue.next(8), Some(range(9, 1)));
        assert_eq!(queue.next(8), None);
    }

    #[test]
    fn of_what_is_on_its_way_only_the_awaited_page_goes_once_more() {
        let mut queue = queue();
        queue.scanned(range(0, 1000), &[range(10, 100)]);
        let run = queue.next(20).expect("data");
        queue.pushed(run);
        let pushed = SourceAction::SendPushed(range(21, 9));
        assert_eq!(answers(&mut queue, 20, 30), [pushed, read(20, 1), read(30, 20)]);
        queue.forget_pushed();
        assert_eq!(answers(&mut queue, 20, 30), [read(20, 30)]);
    }

    #[test]
    fn scanned_holes_are_answered_as_zero_and_all_else_is_read() {
        let mut queue = queue();
        queue.scanned(range(0, 20), &[range(10, 2)]);
        let answer = [zero(8, 2), zero(12, 8), read(10, 2), read(20, 4)];
        assert_eq!(answers(&mut queue, 8, 16), answer);
        assert_eq!(answers(&mut queue, 998, 3), []);
    }
}
