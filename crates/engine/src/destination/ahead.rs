//! Pages that come while the process still runs at the source: where they are, and which of them hold at the end.

use alloc::string::String;
use alloc::vec::Vec;

use memory::{Addr, PageRange, PageSet, RangeSet, USER_END};
use protocol::{Channel, MAX_PAGES_PER_FRAME};

use super::{Content, Destination, DestinationAction, Phase};
use crate::Failure;

/// Pages taken ahead. Those of them that nobody wrote are zero: nothing has been mapped there but fresh memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    /// The source has sent what they hold.
    held: PageSet,
    /// Bytes were written there, good or stale by now.
    written: PageSet,
    /// The source has sent what it sends ahead: what comes now belongs to the stopped process.
    is_closed: bool,
}

impl Ahead {
    /// Whether more may come.
    pub(super) const fn is_open(&self) -> bool {
        !self.is_closed
    }

    /// What of the pages that the source says still hold is really here; and what has to be dropped.
    pub(super) fn close(&self, kept: &[PageRange], eager: &[PageRange]) -> (RangeSet, Vec<PageRange>) {
        let mut holds = RangeSet::new();
        for run in kept.iter().flat_map(|run| self.held.runs_in(*run)) {
            holds.insert(run);
        }
        for run in eager {
            holds.remove(*run);
        }
        // Between what is held, run by run: the program stands still, and a copy to take that out of is as large as its memory.
        let mut stale = Vec::new();
        let mut from = Addr(0);
        for held in holds.runs() {
            stale.extend(self.written_between(from, held.start()));
            from = held.end();
        }
        stale.extend(self.written_between(from, Addr(USER_END)));
        (holds, stale)
    }

    fn written_between(&self, from: Addr, to: Addr) -> impl Iterator<Item = PageRange> + '_ {
        PageRange::new(from, to).into_iter().flat_map(|gap| self.written.runs_in(gap))
    }
}

impl Destination {
    /// Pages came that nobody has asked for: the process runs at the source.
    pub(super) fn taken_ahead(&mut self, channel: Channel, pages: PageRange, content: Content) {
        let most = self.config.data_pages;
        let Phase::Reserved { ahead, .. } = &mut self.phase else { return };
        let fits = channel == Channel::Push && !pages.is_empty() && pages.pages() <= MAX_PAGES_PER_FRAME;
        if !fits || ahead.held.len() + pages.pages() > most {
            return self.broke_protocol("pages ahead that nobody can take");
        }
        let stores: Vec<PageRange> = match content {
            Content::Data => Vec::from([pages]),
            // What was never written is zero.
            Content::Zero => ahead.written.runs_in(pages).collect(),
            Content::Lost => {
                ahead.held.remove(pages);
                return;
            }
        };
        ahead.held.insert(pages);
        for pages in stores {
            ahead.written.insert(pages);
            self.actions.push_back(DestinationAction::Store { pages, content });
        }
    }

    /// Every page of a round is there: each was stored before the next frame was looked at.
    pub(super) fn round_ended(&mut self, last: bool) {
        let takes_ahead = self.config.takes_ahead;
        match &mut self.phase {
            Phase::Reserved { ahead, .. } if takes_ahead && ahead.is_open() => {
                ahead.is_closed = last;
                if !last {
                    self.actions.push_back(DestinationAction::SendRoundTaken);
                }
            }
            // The switchover has overtaken it, on another connection.
            Phase::Listening(_)
            | Phase::Ready(_)
            | Phase::Resuming { .. }
            | Phase::Postcopy { .. }
            | Phase::Paused { .. }
                if takes_ahead && last => {}
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Listening(_)
            | Phase::Ready(_)
            | Phase::Resuming { .. }
            | Phase::Postcopy { .. }
            | Phase::Paused { .. }
            | Phase::Lost { .. }
            | Phase::Completed
            | Phase::Aborted => self.broke_protocol("the end of a round that nobody has begun"),
        }
    }

    /// The process is changed so much that pages which were here ahead are not here any more.
    pub(super) fn remade(&mut self, pages: &[PageRange]) {
        let all_follow = self.with_pages(|page_map, _| page_map.want_again(pages));
        if all_follow == Some(false) {
            self.abort(Failure::Local(String::from("pages that were sent ahead have no place any more")));
        }
    }
}
