//! Both engines in one thread, with links that lose nothing and a kernel that never refuses.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::{
    Config, Content, Destination, DestinationAction, DestinationInput, Failure, InstallOutcome, Instant,
    Place, Plan, Source, SourceAction, SourceInput, SpaceId,
};
use memory::{Addr, PAGE_SIZE, PageRange, PageSet};
use protocol::Channel;

/// `pages` pages from page number `start`.
pub(crate) fn range(start: u64, pages: u64) -> PageRange {
    PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
}

/// What the source's memory looks like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) eager: Vec<PageRange>,
    pub(crate) lazy: Vec<PageRange>,
    /// Pages of `lazy` that hold data.
    pub(crate) data: Vec<PageRange>,
    /// Pages that the source cannot read.
    pub(crate) unreadable: PageSet,
}

/// What a page at the destination holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// The bytes of this source page.
    Source(Addr),
    Zero,
    Poison,
}

/// Two endpoints, and everything that either wanted done, in order.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) source: Source,
    pub(crate) destination: Destination,
    pub(crate) now: Instant,
    pub(crate) image: Image,
    /// Current page → what is there, per space.
    pub(crate) held: BTreeMap<(SpaceId, Addr), Held>,
    pub(crate) source_log: Vec<SourceAction>,
    pub(crate) destination_log: Vec<DestinationAction>,
    /// While false, page frames that were pushed after `Run` stay on the way.
    pub(crate) push_flows: bool,
    pub(crate) pushed: VecDeque<DestinationInput>,
    /// While true, what either side says to the other is dropped.
    pub(crate) cut: bool,
    /// The next installs are refused like this.
    pub(crate) refuse: VecDeque<InstallOutcome>,
    /// Where pages belong that are not those of the process itself.
    pub(crate) places: Vec<Place>,
    to_source: VecDeque<SourceInput>,
    to_destination: VecDeque<DestinationInput>,
}

impl Pair {
    /// Without a head start, so that pages flow at once.
    pub(crate) fn new(image: Image) -> Self {
        Self::with_config(image, Config { head_start: Duration::ZERO, ..Config::default() })
    }

    pub(crate) fn with_config(image: Image, config: Config) -> Self {
        let now = Instant(1_000_000_000);
        Self {
            source: Source::new(config, now),
            destination: Destination::new(config, now),
            now,
            image,
            held: BTreeMap::new(),
            source_log: Vec::new(),
            destination_log: Vec::new(),
            push_flows: true,
            pushed: VecDeque::new(),
            cut: false,
            refuse: VecDeque::new(),
            places: Vec::new(),
            to_source: VecDeque::new(),
            to_destination: VecDeque::new(),
        }
    }

    /// Connects and goes as far as it goes.
    pub(crate) fn migrate(&mut self) {
        self.source_does(SourceInput::Connected);
        self.settle();
    }

    /// Goes up to the point where the program runs and no page has been pushed.
    pub(crate) fn migrate_without_push(&mut self) {
        self.push_flows = false;
        self.migrate();
    }

    /// Hands what is on its way to either side, until nothing is.
    pub(crate) fn settle(&mut self) {
        while self.settle_one() {}
    }

    /// Hands over one thing that is on its way; false if nothing is.
    pub(crate) fn settle_one(&mut self) -> bool {
        if let Some(input) = self.to_source.pop_front() {
            self.source_does(input);
        } else if let Some(input) = self.to_destination.pop_front() {
            self.destination_does(input);
        } else if let Some(input) = self.next_pushed() {
            self.destination_does(input);
        } else {
            return false;
        }
        self.now = self.now + Duration::from_micros(1);
        true
    }

    /// Eager pages always flow.
    fn next_pushed(&mut self) -> Option<DestinationInput> {
        let flows = self.push_flows || self.source.may_still_run_here();
        if flows { self.pushed.pop_front() } else { None }
    }

    pub(crate) fn touch(&mut self, space: SpaceId, page: u64) -> Held {
        let addr = Addr(page * PAGE_SIZE);
        if !self.held.contains_key(&(space, addr)) {
            self.destination_does(DestinationInput::Fault { space, addr, thread: 1 });
            self.settle();
        }
        if self.destination.phase() == "completed" {
            // The userfaultfd is closed: the kernel answers with a zero page of its own.
            return self.held.get(&(space, addr)).copied().unwrap_or(Held::Zero);
        }
        *self.held.get(&(space, addr)).expect("a touched page is there when all is quiet")
    }

    /// The link ends at the destination's side, and does not come back in time.
    pub(crate) fn destination_loses_its_source(&mut self) {
        self.destination_does(DestinationInput::Broken(Failure::LinkLost(Channel::Fault)));
        self.now = self.now + Config::default().recovery_deadline;
        self.destination_does(DestinationInput::Tick);
    }

    /// The link ends for both sides, with everything that is on its way; no new one stands until `cut` is false.
    pub(crate) fn lose_link(&mut self) {
        self.cut = true;
        self.to_source.clear();
        self.to_destination.clear();
        self.pushed.clear();
        self.source_does(SourceInput::Broken(Failure::LinkLost(Channel::Push)));
        self.destination_does(DestinationInput::Broken(Failure::LinkLost(Channel::Fault)));
    }

    pub(crate) fn tick_after(&mut self, time: Duration) {
        self.now = self.now + time;
        self.source_does(SourceInput::Tick);
        self.destination_does(DestinationInput::Tick);
        self.settle();
    }

    pub(crate) fn source_does(&mut self, input: SourceInput) {
        self.source.handle(self.now, input);
        while let Some(action) = self.source.poll_action() {
            self.source_log.push(action.clone());
            if let Some(answer) = self.perform_at_source(action) {
                self.source.handle(self.now, answer);
            }
        }
    }

    pub(crate) fn destination_does(&mut self, input: DestinationInput) {
        self.destination.handle(self.now, input);
        while let Some(action) = self.destination.poll_action() {
            self.destination_log.push(action.clone());
            if let Some(answer) = self.perform_at_destination(action) {
                self.destination.handle(self.now, answer);
            }
        }
    }

    fn perform_at_source(&mut self, action: SourceAction) -> Option<SourceInput> {
        let to_destination = match action {
            SourceAction::SendReserve => DestinationInput::ReserveRequested,
            SourceAction::Capture { .. } => {
                let (eager, lazy) = (self.image.eager.clone(), self.image.lazy.clone());
                return Some(SourceInput::Captured { eager, lazy, kept: Vec::new(), content: 0 });
            }
            SourceAction::SendSwitchover => DestinationInput::SwitchoverRequested {
                eager: self.image.eager.clone(),
                lazy: self.image.lazy.clone(),
                kept: Vec::new(),
            },
            SourceAction::SendPages { channel, pages } => {
                let lost = self.image.unreadable.first_in(pages).is_some();
                let content = if lost { Content::Lost } else { Content::Data };
                self.deliver_pages(DestinationInput::PagesArrived { channel, pages, content });
                return Some(SourceInput::Sent(channel));
            }
            SourceAction::SendZero(pages) => {
                let channel = Channel::Fault;
                DestinationInput::PagesArrived { channel, pages, content: Content::Zero }
            }
            SourceAction::SendPushed(pages) => DestinationInput::Pushed(pages),
            SourceAction::SendRun { epoch } => DestinationInput::Run { epoch },
            SourceAction::Scan(scanned) => {
                let data = self.image.data.iter().filter_map(|run| run.intersection(scanned)).collect();
                return Some(SourceInput::Scanned { scanned, data });
            }
            SourceAction::SendPageMap { scanned, data } => DestinationInput::PageMap { scanned, data },
            SourceAction::SendPageMapDone => DestinationInput::PageMapDone,
            SourceAction::SendPushDone => DestinationInput::PushDone,
            SourceAction::SendCancel(failure) => DestinationInput::Broken(failure),
            SourceAction::Reconnect => {
                self.to_destination.clear();
                self.to_source.clear();
                self.pushed.clear();
                if self.cut {
                    return Some(SourceInput::ReconnectFailed(Failure::LinkLost(Channel::Control)));
                }
                self.to_destination.push_back(DestinationInput::Reconnected);
                return Some(SourceInput::Reconnected);
            }
            SourceAction::SendRoundEnd { last } => DestinationInput::RoundEnded { last },
            SourceAction::Sweep => return Some(SourceInput::Swept { written: Vec::new(), lost: Vec::new() }),
            SourceAction::SendReport | SourceAction::Release(_) | SourceAction::End(_) => return None,
        };
        self.deliver(to_destination);
        None
    }

    fn deliver(&mut self, input: DestinationInput) {
        if !self.cut {
            self.to_destination.push_back(input);
        }
    }

    fn deliver_pages(&mut self, input: DestinationInput) {
        let DestinationInput::PagesArrived { channel, .. } = input else { return };
        if channel == Channel::Push && !self.cut {
            self.pushed.push_back(input);
        } else {
            self.deliver(input);
        }
    }

    fn perform_at_destination(&mut self, action: DestinationAction) -> Option<DestinationInput> {
        let to_source = match action {
            DestinationAction::Reserve => return Some(DestinationInput::Reserved),
            DestinationAction::Map => return Some(DestinationInput::Mapped { places: self.places.clone() }),
            DestinationAction::Assemble => return Some(DestinationInput::Assembled),
            DestinationAction::Resume => return Some(DestinationInput::Resumed),
            DestinationAction::SendReserved => SourceInput::Reserved(Plan::default()),
            DestinationAction::SendReady => SourceInput::Ready,
            DestinationAction::SendRunning { patience_s } => SourceInput::Running { patience_s },
            DestinationAction::SendUnscanned(pages) => SourceInput::Unscanned(pages),
            DestinationAction::SendList { arrived, pages } => SourceInput::Listed { arrived, pages },
            DestinationAction::SendListDone => SourceInput::ListDone,
            DestinationAction::SendFailed(failure) => SourceInput::Broken(failure),
            DestinationAction::RequestPages(pages) => SourceInput::PageRequested(pages),
            DestinationAction::Install { space, pages, at, content, .. } => {
                let outcome = self.refuse.pop_front().unwrap_or(InstallOutcome::Installed);
                if outcome == InstallOutcome::Installed {
                    self.fill(space, at, pages, content);
                }
                return Some(DestinationInput::Installed { space, pages, outcome });
            }
            DestinationAction::ZeroFill { space, at } => {
                self.fill(space, at, at, Content::Zero);
                let outcome = InstallOutcome::Installed;
                return Some(DestinationInput::Filled { space, at, outcome });
            }
            DestinationAction::Poison { space, at } => {
                self.fill(space, at, at, Content::Lost);
                let outcome = InstallOutcome::Installed;
                return Some(DestinationInput::Filled { space, at, outcome });
            }
            DestinationAction::SendDrained => SourceInput::Drained,
            DestinationAction::SendAbort(failure) => SourceInput::Aborted(failure),
            DestinationAction::SendRoundTaken => SourceInput::RoundTaken,
            DestinationAction::Store { .. }
            | DestinationAction::Forget(_)
            | DestinationAction::Disconnect
            | DestinationAction::Finish
            | DestinationAction::Kill(_)
            | DestinationAction::Discard(_)
            | DestinationAction::Complete(_) => {
                return None;
            }
        };
        if !self.cut {
            self.to_source.push_back(to_source);
        }
        None
    }

    fn fill(&mut self, space: SpaceId, at: PageRange, pages: PageRange, content: Content) {
        for index in 0..at.pages() {
            let held = match content {
                Content::Data => Held::Source(Addr(pages.start().0 + index * PAGE_SIZE)),
                Content::Zero => Held::Zero,
                Content::Lost => Held::Poison,
            };
            self.held.entry((space, Addr(at.start().0 + index * PAGE_SIZE))).or_insert(held);
        }
    }
}
