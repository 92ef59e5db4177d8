//! A lost link: what was asked for does not come, and over the next link the source is told what is lacking.

use alloc::vec::Vec;

use memory::{PageRange, PageSet};
use protocol::MAX_PAGES_PER_LIST;

use super::{Desk, PageMap};
use crate::destination::DestinationAction;
use crate::destination::space::Space;
use crate::destination::work::Work;
use crate::ranges::spans;

/// A settled stretch of so many pages is taken out of what the source has to look at, rather than listed page by page.
const LONG_STRETCH_PAGES: u64 = 4096;

impl PageMap {
    /// The link is lost: nothing that was asked for comes.
    pub(in crate::destination) fn pause(&mut self) {
        self.faults.pause();
    }

    /// Somebody else goes on with these pages.
    pub(in crate::destination) fn taken_over(&mut self) {
        self.work = Work::default();
        self.spaces.values_mut().for_each(Space::forget_waiting);
    }

    /// A new link stands: asks for what threads wait for, then tells what is lacking.
    pub(in crate::destination) fn recover(&mut self, desk: &mut Desk<'_>) {
        self.open(desk);
        let (arrived, missing) = (self.settled_unscanned(), self.missing());
        desk.actions.extend(self.unscanned.runs().map(DestinationAction::SendUnscanned));
        for (arrived, pages) in [(true, arrived), (false, missing)] {
            let lists = spans(pages, MAX_PAGES_PER_LIST).into_iter();
            desk.actions.extend(lists.map(|pages| DestinationAction::SendList { arrived, pages }));
        }
    }

    /// Pages that nobody wants any more, in ranges that the source has not looked at. Long stretches need not be
    /// looked at.
    fn settled_unscanned(&mut self) -> Vec<PageRange> {
        let mut arrived = self.unscanned.clone();
        for run in self.spaces.values().flat_map(|space| space.unknown().runs()) {
            arrived.remove(run);
        }
        let (long, short) = arrived.runs().partition::<Vec<_>, _>(|run| run.pages() >= LONG_STRETCH_PAGES);
        for run in long {
            self.unscanned.remove(run);
        }
        short
    }

    /// Pages that hold data and have not been asked for.
    fn missing(&self) -> Vec<PageRange> {
        let mut missing = PageSet::new();
        for run in self.spaces.values().flat_map(|space| space.outstanding().runs()) {
            missing.insert(run);
        }
        self.faults.in_flight().runs().for_each(|run| _ = missing.remove(run));
        missing.runs().collect()
    }
}
