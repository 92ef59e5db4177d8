//! Three connections in each direction: in order within one, in any order between two, until they are cut.

use std::collections::VecDeque;

use memory::PageRange;
use protocol::Channel;

use crate::mm::Version;
use crate::random::Random;

/// What travels to the destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ToDestination {
    Reserve,
    RoundEnd {
        last: bool,
    },
    Switchover,
    Pages {
        pages: PageRange,
        versions: Vec<Version>,
    },
    ZeroPages(PageRange),
    LostPages(PageRange),
    Pushed(PageRange),
    Run {
        epoch: u64,
    },
    PageMap {
        scanned: PageRange,
        data: Vec<PageRange>,
    },
    PageMapDone,
    PushDone,
    Cancel,
    /// The first on a new link.
    Reconnected,
    Closed,
}

impl ToDestination {
    /// Whether the frame answers a page request.
    pub(crate) const fn is_pages(&self) -> bool {
        matches!(self, Self::Pages { .. } | Self::ZeroPages(_) | Self::LostPages(_))
    }
}

/// What travels to the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ToSource {
    Reserved,
    RoundTaken,
    Ready,
    Running { patience_s: u16 },
    PageRequest(PageRange),
    Unscanned(PageRange),
    List { arrived: bool, pages: Vec<PageRange> },
    ListDone,
    Drained,
    Abort,
    Failed,
    Closed,
}

/// One direction of all three connections.
#[derive(Clone, Debug)]
pub(crate) struct Link<M> {
    queues: [VecDeque<(u64, M)>; 3],
    latency_ns: u64,
    jitter_ns: u64,
    /// Nothing more is taken on these connections.
    cut: [bool; 3],
    /// Nothing arrives before this time.
    opened: u64,
}

impl<M> Link<M> {
    pub(crate) fn new(latency_ns: u64, jitter_ns: u64) -> Self {
        Self { queues: Default::default(), latency_ns, jitter_ns, cut: [false; 3], opened: 0 }
    }

    pub(crate) fn send(&mut self, now: u64, random: &mut Random, channel: Channel, message: M) {
        if self.cut[index(channel)] {
            return;
        }
        let queue = &mut self.queues[index(channel)];
        let earliest = queue.back().map_or(self.opened, |(due, _)| *due);
        let due = now + self.latency_ns + random.below(self.jitter_ns + 1);
        queue.push_back((due.max(earliest), message));
    }

    /// When the next message arrives on this connection.
    pub(crate) fn due(&self, channel: Channel) -> Option<u64> {
        self.queues[index(channel)].front().map(|(due, _)| *due)
    }

    /// What has arrived on this connection and not been received.
    pub(crate) fn arrived(&self, channel: Channel, now: u64) -> Option<&M> {
        self.queues[index(channel)].front().filter(|(due, _)| *due <= now).map(|(_, message)| message)
    }

    pub(crate) fn receive(&mut self, channel: Channel) -> Option<M> {
        self.queues[index(channel)].pop_front().map(|(_, message)| message)
    }

    /// Ends all connections in good order: everything that was sent arrives, and then `closing`.
    pub(crate) fn close(&mut self, now: u64, random: &mut Random, closing: &M)
    where
        M: Clone,
    {
        for channel in Channel::ALL {
            self.send(now, random, channel, closing.clone());
        }
        self.cut = [true; 3];
    }

    /// Ends all connections. What is on its way is lost from a random place on; then comes `closing`, or silence.
    pub(crate) fn cut(&mut self, now: u64, random: &mut Random, closing: Option<&M>)
    where
        M: Clone,
    {
        for channel in Channel::ALL {
            self.cut_one(channel, now, random, closing);
        }
    }

    /// Ends one of the connections, and leaves the others as they are.
    pub(crate) fn cut_one(&mut self, channel: Channel, now: u64, random: &mut Random, closing: Option<&M>)
    where
        M: Clone,
    {
        if !self.cut[index(channel)] {
            let queue = &mut self.queues[index(channel)];
            let kept = random.below(queue.len() as u64 + 1);
            queue.truncate(usize::try_from(kept).unwrap_or(0));
            let earliest = queue.back().map_or(now, |(due, _)| *due);
            if let Some(message) = closing.cloned() {
                queue.push_back((earliest + random.below(self.jitter_ns + 1), message));
            }
        }
        self.cut[index(channel)] = true;
    }

    /// The reader hangs up: nothing arrives any more.
    pub(crate) fn hang_up(&mut self) {
        self.queues = Default::default();
        self.cut = [true; 3];
    }

    /// Begins anew with nothing on its way. The first message, on the control connection, comes before all others.
    pub(crate) fn open(&mut self, now: u64, random: &mut Random, first: Option<M>) {
        self.queues = Default::default();
        self.cut = [false; 3];
        if let Some(first) = first {
            self.send(now, random, Channel::Control, first);
        }
        self.opened = self.due(Channel::Control).unwrap_or(now);
    }
}

fn index(channel: Channel) -> usize {
    match channel {
        Channel::Control => 0,
        Channel::Fault => 1,
        Channel::Push => 2,
    }
}
