//! What is to be done to the program's memory: installs, zero fills, poison.
//!
//! Places are looked up when an action is handed out, never before: between two actions the loop hands in what
//! the program does to its mappings, and a place that was right a moment ago may hold something else.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use memory::{Addr, PageRange};
use protocol::Channel;

use super::space::Space;
use super::{Content, DestinationAction, SpaceId};

type Spaces = BTreeMap<SpaceId, Space>;

/// Work that waits to be handed out. Source addresses, unless it says current.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    /// The page frames in the receive buffers, at most one of each channel; the one that came last is installed first.
    frames: Vec<Frame>,
    /// Current pages without content that threads have touched.
    fills: VecDeque<(SpaceId, PageRange)>,
    /// Wanted pages that will never come.
    poison: VecDeque<(SpaceId, PageRange)>,
    /// The fill or poison that was handed out last, until the next one.
    in_hand: Option<InHand>,
}

/// What is left to install of a page frame.
#[derive(Clone, Debug)]
struct Frame {
    channel: Channel,
    pages: PageRange,
    content: Content,
    rest: VecDeque<(SpaceId, PageRange)>,
}

#[derive(Clone, Copy, Debug)]
enum InHand {
    /// The current page that was touched.
    Fill(PageRange),
    /// Pages of the source, and where they were.
    Poison { pages: PageRange, at: PageRange },
}

impl Work {
    /// A page frame is in the receive buffer of `channel`, to be installed in each of `spaces` that wants it.
    pub(super) fn take_frame(
        &mut self,
        (channel, pages): (Channel, PageRange),
        content: Content,
        spaces: impl Iterator<Item = SpaceId>,
    ) {
        let rest = spaces.map(|id| (id, pages)).collect();
        self.frames.push(Frame { channel, pages, content, rest });
    }

    /// The frames in hand concern one more space.
    pub(super) fn share_frames(&mut self, with: SpaceId) {
        for frame in &mut self.frames {
            frame.rest.push_back((with, frame.pages));
        }
    }

    /// The install that was handed out last was put off.
    pub(super) fn install_again(&mut self, id: SpaceId, pages: PageRange) {
        if let Some(frame) = self.frames.last_mut() {
            frame.rest.push_front((id, pages));
        }
    }

    /// The receive buffers may be used again.
    pub(super) fn drop_frames(&mut self) {
        self.frames.clear();
    }

    /// Somebody touched a current page that seems to hold nothing.
    pub(super) fn fill(&mut self, id: SpaceId, page: PageRange) {
        self.fills.push_back((id, page));
    }

    /// These pages will never come.
    pub(super) fn poison(&mut self, id: SpaceId, pages: PageRange) {
        self.poison.push_back((id, pages));
    }

    /// The fill or poison in hand was put off, from the current range `at` on.
    pub(super) fn fill_again(&mut self, id: SpaceId, at: PageRange) {
        match self.in_hand {
            Some(InHand::Fill(page)) => self.fills.push_back((id, page)),
            Some(InHand::Poison { pages, at: whole }) => {
                let done = (at.start().0.saturating_sub(whole.start().0)) / memory::PAGE_SIZE;
                self.poison.push_back((id, pages.split_at_pages(done).1.split_at_pages(at.pages()).0));
            }
            None => {}
        }
    }

    /// The next piece of the frames in hand, at most `most_pages` of what nobody has asked for.
    pub(super) fn next_install(&mut self, spaces: &Spaces, most_pages: u64) -> Option<DestinationAction> {
        while let Some(frame) = self.frames.last_mut() {
            let (channel, content) = (frame.channel, frame.content);
            let most = if channel == Channel::Push { most_pages } else { u64::MAX };
            if let Some((space, pages, at)) = next_piece(spaces, &mut frame.rest, most) {
                return Some(DestinationAction::Install { space, channel, pages, at, content });
            }
            self.frames.pop();
        }
        None
    }

    /// The next pages to give up, at most `most_pages`.
    pub(super) fn next_poison(&mut self, spaces: &Spaces, most_pages: u64) -> Option<DestinationAction> {
        let (space, pages, at) = next_piece(spaces, &mut self.poison, most_pages)?;
        self.in_hand = Some(InHand::Poison { pages, at });
        Some(DestinationAction::Poison { space, at })
    }

    /// The next zero fill; or the touched page, if the program has moved wanted pages there since.
    pub(super) fn next_fill(&mut self, spaces: &Spaces, block_pages: u64) -> Option<NextFill> {
        while let Some((id, page)) = self.fills.pop_front() {
            let Some(space) = spaces.get(&id) else { continue };
            let Some(at) = space.zero_block(page, block_pages) else {
                return Some(NextFill::Wanted(id, page.start()));
            };
            self.in_hand = Some(InHand::Fill(page));
            return Some(NextFill::Fill(DestinationAction::ZeroFill { space: id, at }));
        }
        None
    }
}

/// What has become of a touched page that seemed to hold nothing.
#[derive(Debug)]
pub(super) enum NextFill {
    /// It holds nothing still.
    Fill(DestinationAction),
    /// It has come to be wanted: as good as a fresh fault.
    Wanted(SpaceId, Addr),
}

/// Takes the first piece out of `queue` that its space wants, as (space, source, current).
fn next_piece(
    spaces: &Spaces,
    queue: &mut VecDeque<(SpaceId, PageRange)>,
    most_pages: u64,
) -> Option<(SpaceId, PageRange, PageRange)> {
    while let Some((id, range)) = queue.pop_front() {
        let Some(space) = spaces.get(&id) else { continue };
        let Some((pages, at)) = space.first_wanted(range).and_then(|wanted| space.place(wanted)) else {
            continue;
        };
        let (pages, at) = (pages.split_at_pages(most_pages).0, at.split_at_pages(most_pages).0);
        if let Some(rest) = PageRange::new(pages.end(), range.end()).filter(|rest| !rest.is_empty()) {
            queue.push_front((id, rest));
        }
        return Some((id, pages, at));
    }
    None
}
