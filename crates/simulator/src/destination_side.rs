//! The fault loop: reads the userfaultfds empty, hands in events, then faults, then performs every action. Between
//! any two calls into the kernel the program may move on.

mod filling;
mod succession;

use std::collections::BTreeMap;

use engine::{Content, Destination, DestinationAction, DestinationInput, Failure, Instant, SpaceId};
use memory::{Addr, PAGE_SIZE, PageRange};
use protocol::Channel;

use crate::kernel::{Message, Thread, ThreadState};
use crate::link::{Link, ToDestination, ToSource};
use crate::mm::{Area, Event, Mm, MmId, POISON, Page, Version, ZERO};
use crate::planted::PlantedFault;
use crate::program::UNREADABLE;
use crate::settings::Disturbance;
use crate::world::World;
use succession::Standby;

/// Messages that one turn reads from one userfaultfd.
const MOST_MESSAGES: usize = 64;

/// The destination's loop.
#[derive(Clone, Debug)]
pub(crate) struct DestinationSide {
    pub(crate) engine: Destination,
    pub(crate) finished: bool,
    /// What the source is told that asks later.
    pub(crate) fate: Option<ToSource>,
    /// The link that it speaks on.
    generation: u64,
    /// Who goes on in its place if it is killed.
    standby: Option<Standby>,
    /// The same, made while everything was reserved.
    ahead_of_stop: Option<Destination>,
    /// It has been killed: nothing that it was about to do happens.
    dead: bool,
    /// What was stored ahead of the switchover.
    ahead: BTreeMap<Page, Version>,
    /// The page frames in hand: the content of their pages.
    frames: BTreeMap<Channel, BTreeMap<Page, Version>>,
}

impl DestinationSide {
    pub(crate) const fn new(engine: Destination) -> Self {
        Self {
            engine,
            finished: false,
            fate: None,
            generation: 0,
            standby: None,
            ahead_of_stop: None,
            dead: false,
            ahead: BTreeMap::new(),
            frames: BTreeMap::new(),
        }
    }

    fn takes(&self, channel: Channel, impatient: bool) -> bool {
        channel == Channel::Control || impatient || self.engine.takes_pages()
    }

    /// When a frame or a deadline is due; the kernel is another matter.
    pub(crate) fn due(&self, link: &Link<ToDestination>, impatient: bool) -> Option<u64> {
        let channels = Channel::ALL.into_iter().filter(|channel| self.takes(*channel, impatient));
        let frames = channels.filter_map(|channel| link.due(channel));
        let timeout = self.engine.poll_timeout().map(|at| at.0);
        if self.finished { None } else { frames.chain(timeout).min() }
    }
}

impl World {
    /// Whether a userfaultfd or a pidfd has something to say.
    pub(crate) fn kernel_calls(&self) -> bool {
        let kernel = &self.program.kernel;
        (0..kernel.mms.len()).any(|id| kernel.is_readable(id))
            || kernel.mms.iter().any(|mm| mm.dead && !mm.death_is_known)
    }

    /// One turn of the destination's loop.
    pub(crate) fn destination_turn(&mut self) {
        if self.kernel_calls() && self.random.percent(70) {
            self.read_kernel();
        } else {
            let input = self.next_frame(&Channel::ALL);
            self.take_frame(input);
        }
        let mut count = 0;
        while let Some(action) = self.destination.engine.poll_action() {
            self.trace(|| format!("destination -> {action:?}"));
            // There is one poison for each piece that is lost, however many there are.
            count += usize::from(!matches!(action, DestinationAction::Poison { .. }));
            let is_pushed = matches!(action, DestinationAction::Install { channel: Channel::Push, .. });
            self.perform_at_destination(action);
            if is_pushed && self.random.percent(30) {
                self.glance();
            }
        }
        self.destination.frames.clear();
        if self.destination.dead {
            self.take_over();
        }
        self.checker.actions(count);
        // Who takes over may not know of a page that it is there, and then asks for it before it wakes anybody.
        if self.counters.takeovers == 0
            && let Some(page) = self.program.sleeps_at_present_page()
        {
            self.program.violate(4, format!("a thread sleeps at page {page:#x}, which is there"));
        }
    }

    fn take_frame(&mut self, input: DestinationInput) {
        if input == DestinationInput::Reconnected {
            self.destination.generation = self.generation;
            self.checker.link_lost();
        }
        if let DestinationInput::PagesArrived { channel: Channel::Fault, pages, .. }
        | DestinationInput::Pushed(pages) = input
        {
            numbers(pages).for_each(|page| self.checker.answered(page));
        }
        self.hand_in(input);
    }

    /// In the middle of what was pushed: whoever waits, and an answer that is there.
    fn glance(&mut self) {
        if self.destination.dead {
            return;
        }
        self.read_kernel();
        let next = self.to_destination.arrived(Channel::Fault, self.now);
        if !self.destination.dead && next.is_some_and(ToDestination::is_pages) {
            let input = self.next_frame(&[Channel::Fault]);
            self.take_frame(input);
        }
    }

    fn hand_in(&mut self, input: DestinationInput) {
        self.hand_in_all(vec![input]);
    }

    /// Hands in what one message of the kernel means.
    fn hand_in_all(&mut self, inputs: Vec<DestinationInput>) {
        if self.destination.dead {
            return;
        }
        inputs.iter().for_each(|input| self.write_down(input));
        if self.dies_here() {
            return;
        }
        for input in inputs {
            self.trace(|| format!("destination <- {input:?}"));
            self.destination.engine.handle(Instant(self.now), input);
        }
        self.program.may_be_poisoned |= self.destination.engine.phase() == "lost";
    }

    /// All events that are there, then all faults.
    fn read_kernel(&mut self) {
        let mut faults = Vec::new();
        for id in 0..self.program.kernel.mms.len() {
            for _ in 0..MOST_MESSAGES {
                match self.program.kernel.read(id) {
                    Some(Message::Fault { thread, page }) => faults.push((id, thread, page)),
                    Some(Message::Event(event)) => self.hand_in_event(id, event),
                    None => break,
                }
                if self.destination.dead {
                    return;
                }
                self.bustle();
            }
            let mm = &mut self.program.kernel.mms[id];
            if mm.dead && !mm.death_is_known {
                mm.death_is_known = true;
                self.hand_in(DestinationInput::SpaceGone(space(id)));
            }
        }
        for (id, thread, page) in faults {
            let (addr, thread) = (Addr(page * PAGE_SIZE + 8), u32::try_from(thread).unwrap_or(0));
            self.hand_in(DestinationInput::Fault { space: space(id), addr, thread });
        }
    }

    fn hand_in_event(&mut self, id: MmId, event: Event) {
        let space = space(id);
        match event {
            Event::Remap { .. } if self.planted == Some(PlantedFault::RemapIgnored) => {}
            Event::Remap { from, to } => {
                let to = Addr(to * PAGE_SIZE);
                self.hand_in(DestinationInput::Remapped { space, from: pages(&from), to });
            }
            Event::Remove(_) if self.planted == Some(PlantedFault::DroppedPageReinstalled) => {}
            Event::Remove(range) => {
                self.hand_in(DestinationInput::Removed { space, pages: pages(&range) });
            }
            Event::Unmap(range) => {
                self.hand_in(DestinationInput::Unmapped { space, pages: pages(&range) });
            }
            Event::Fork { child, kept_back, wiped } => {
                let child = crate::destination_side::space(child);
                let lacking = if self.settings.careless_at_fork { Vec::new() } else { kept_back };
                let wiped = wiped.into_iter().map(|range| pages(&range));
                let wiped = wiped.map(|pages| DestinationInput::Removed { space: child, pages });
                let lacking = lacking.into_iter().map(|range| pages(&range));
                let lacking = lacking.map(|pages| DestinationInput::Unmapped { space: child, pages });
                let forked = DestinationInput::Forked { parent: space, child };
                self.hand_in_all(std::iter::once(forked).chain(wiped).chain(lacking).collect());
            }
        }
    }

    fn next_frame(&mut self, channels: &[Channel]) -> DestinationInput {
        let impatient = self.settings.impatient;
        let ready: Vec<_> = channels
            .iter()
            .copied()
            .filter(|channel| self.destination.takes(*channel, impatient))
            .filter(|channel| self.to_destination.due(*channel).is_some_and(|due| due <= self.now))
            .collect();
        let Some(channel) = self.random.pick(&ready) else { return DestinationInput::Tick };
        let arrived = |pages, content| DestinationInput::PagesArrived { channel, pages, content };
        match self.to_destination.receive(channel) {
            None => DestinationInput::Tick,
            Some(ToDestination::Reserve) => DestinationInput::ReserveRequested,
            Some(ToDestination::RoundEnd { last }) => DestinationInput::RoundEnded { last },
            Some(ToDestination::Switchover) => {
                let (eager, lazy) = (self.source.eager.clone(), self.source.lazy.clone());
                let kept = self.source.kept.clone();
                DestinationInput::SwitchoverRequested { eager, lazy, kept }
            }
            Some(ToDestination::Pages { pages, versions }) => {
                let first = pages.start().0 / PAGE_SIZE;
                self.destination.frames.insert(channel, (first..).zip(versions).collect());
                arrived(pages, Content::Data)
            }
            Some(ToDestination::ZeroPages(pages)) => arrived(pages, Content::Zero),
            Some(ToDestination::LostPages(pages)) => arrived(pages, Content::Lost),
            Some(ToDestination::Pushed(pages)) => DestinationInput::Pushed(pages),
            Some(ToDestination::Run { epoch }) => DestinationInput::Run { epoch },
            Some(ToDestination::PageMap { scanned, data }) => DestinationInput::PageMap { scanned, data },
            Some(ToDestination::PageMapDone) => DestinationInput::PageMapDone,
            Some(ToDestination::PushDone) => DestinationInput::PushDone,
            Some(ToDestination::Reconnected) => DestinationInput::Reconnected,
            Some(ToDestination::Cancel) => DestinationInput::Broken(Failure::Peer("cancelled".into())),
            Some(ToDestination::Closed) => DestinationInput::Broken(Failure::LinkLost(channel)),
        }
    }

    fn perform_at_destination(&mut self, action: DestinationAction) {
        if self.destination.dead {
            return;
        }
        let control = Channel::Control;
        match action {
            DestinationAction::Reserve => {
                self.stand_by_ahead();
                self.prepare(Disturbance::Refused, DestinationInput::Reserved);
            }
            DestinationAction::SendReserved => self.tell_source(control, ToSource::Reserved),
            DestinationAction::Store { pages, content } => self.store(pages, content),
            DestinationAction::SendRoundTaken => self.tell_source(control, ToSource::RoundTaken),
            DestinationAction::Forget(ranges) => self.forget(ranges),
            DestinationAction::Map => {
                self.build();
                self.remake_some();
                self.prepare(Disturbance::MapFails, DestinationInput::Mapped { places: Vec::new() });
            }
            DestinationAction::Assemble => self.hand_in(DestinationInput::Assembled),
            DestinationAction::SendReady => {
                self.stand_by_for_the_run();
                self.tell_source(control, ToSource::Ready);
            }
            DestinationAction::Resume => self.resume(),
            DestinationAction::SendRunning { patience_s } => {
                self.tell_source(control, ToSource::Running { patience_s });
            }
            DestinationAction::Disconnect => self.disconnect(),
            DestinationAction::SendUnscanned(pages) => self.tell_source(control, ToSource::Unscanned(pages)),
            DestinationAction::SendList { arrived, pages } => {
                self.tell_source(control, ToSource::List { arrived, pages });
            }
            DestinationAction::SendListDone => self.tell_source(control, ToSource::ListDone),
            DestinationAction::RequestPages(pages) => self.request(pages),
            DestinationAction::Install { space, channel, pages, at, content } => {
                self.install(space, (channel, pages), at, content);
            }
            DestinationAction::ZeroFill { space, at } => {
                self.counters.zero_fills += 1;
                self.fill(space, at, ZERO);
            }
            DestinationAction::Poison { space, at } => {
                self.counters.poisons += 1;
                self.fill(space, at, POISON);
            }
            DestinationAction::Finish => {
                for id in 0..self.program.kernel.mms.len() {
                    self.program.kernel.close(id);
                }
            }
            DestinationAction::SendDrained => self.tell_source(control, ToSource::Drained),
            DestinationAction::SendAbort(_) => {
                self.checker.abort_was_promised = true;
                self.tell_source(control, ToSource::Abort);
            }
            DestinationAction::SendFailed(_) => self.tell_source(control, ToSource::Failed),
            DestinationAction::Kill(_) => {
                self.counters.killed += 1;
                self.end_process(ToSource::Failed);
            }
            DestinationAction::Discard(_) => self.end_process(ToSource::Abort),
            DestinationAction::Complete(failure) => {
                let fate = if failure.is_none() { ToSource::Drained } else { ToSource::Failed };
                self.outcome = Some(failure);
                self.end_destination(fate);
            }
        }
    }

    fn end_process(&mut self, fate: ToSource) {
        self.checker.destination_runs = false;
        self.program.runs = false;
        self.program.kernel = crate::kernel::Kernel::default();
        self.end_destination(fate);
    }

    fn end_destination(&mut self, fate: ToSource) {
        self.destination.finished = true;
        self.destination.fate = Some(fate);
        self.to_source.close(self.now, &mut self.random, &ToSource::Closed);
    }

    fn prepare(&mut self, fails_by: Disturbance, done: DestinationInput) {
        let failed = self.settings.disturbance == fails_by;
        let failure = || DestinationInput::PrepareFailed(Failure::Local("it cannot be had".into()));
        self.hand_in(if failed { failure() } else { done });
    }

    /// The mappings stand, and hold what files hold.
    fn build(&mut self) {
        let mut mm = Mm::default();
        let registered = !self.source.lazy.is_empty();
        for range in &self.source.mapped {
            let (start, end) = (range.start().0 / PAGE_SIZE, range.end().0 / PAGE_SIZE);
            mm.areas.insert(start, Area { end, registered, ..Area::default() });
        }
        mm.present.extend(std::mem::take(&mut self.destination.ahead));
        for range in &self.files {
            mm.areas.insert(range.start, Area { end: range.end, file: true, ..Area::default() });
            mm.present.extend(range.clone().map(|page| (page, Self::file_content(page))));
            mm.expected.extend(range.clone().map(|page| (page, Self::file_content(page))));
        }
        mm.expected.extend(self.source.pages.iter().map(|(page, version)| (*page, *version)));
        mm.expected.extend(self.source.unreadable.iter().map(|page| (*page, UNREADABLE)));
        self.program.kernel.mms = vec![mm];
        let thread = Thread { mm: 0, state: ThreadState::Running };
        self.program.kernel.threads = vec![thread; usize::try_from(self.settings.threads).unwrap_or(1)];
    }

    fn store(&mut self, pages: PageRange, content: Content) {
        for page in numbers(pages) {
            self.counters.stored_pages += 1;
            let version = self.content_of(Channel::Push, page, content);
            self.destination.ahead.insert(page, version);
        }
    }

    fn forget(&mut self, ranges: Vec<PageRange>) {
        if self.planted != Some(PlantedFault::StalePageStays) {
            ranges.into_iter().flat_map(numbers).for_each(|page| _ = self.destination.ahead.remove(&page));
        }
    }

    fn request(&mut self, pages: PageRange) {
        self.counters.requests += 1;
        self.checker.bounded("pages in a request", numbers(pages).count(), 64);
        let most = self.settings.config.pages_in_flight + 64;
        numbers(pages).for_each(|page| self.checker.asked(page, most));
        self.tell_source(Channel::Fault, ToSource::PageRequest(pages));
    }

    /// Mappings had to be made anew, and what was in them ahead is gone.
    fn remake_some(&mut self) {
        let Some(range) = self.random.pick(&self.source.kept.clone()) else { return };
        let follows = self.source.lazy.iter().any(|lazy| lazy.covers(range));
        if follows && self.random.percent(20) {
            let present = &mut self.program.kernel.mms[0].present;
            numbers(range).for_each(|page| _ = present.remove(&page));
            self.hand_in(DestinationInput::Remade(vec![range]));
        }
    }

    /// Whatever is in place must be what the source held at the stop.
    fn check_in_place(&mut self) {
        let mm = &self.program.kernel.mms[0];
        let is_stale = |page: Page, version: Version| match mm.expected_at(page) {
            UNREADABLE => version != POISON,
            expected => version != expected,
        };
        let stale = mm.present.iter().find(|(page, version)| is_stale(**page, **version));
        if let Some((page, _)) = stale {
            let text = format!("page {page:#x}, which came ahead, is stale when the threads go on");
            self.program.violate(5, text);
        }
    }

    fn resume(&mut self) {
        if self.settings.disturbance == Disturbance::ResumeFails {
            return self.prepare(Disturbance::ResumeFails, DestinationInput::Resumed);
        }
        self.checker.destination_runs = true;
        self.program.runs = true;
        self.check_in_place();
        let mm = &self.program.kernel.mms[0];
        let missing = self
            .source
            .eager
            .iter()
            .flat_map(|range| numbers(*range))
            .find(|page| mm.present.get(page).copied() != Some(mm.expected_at(*page)));
        if let Some(page) = missing {
            self.program.violate(6, format!("eager page {page:#x} is not in place when the threads go on"));
        }
        self.hand_in(DestinationInput::Resumed);
    }

    /// `EAGAIN`: somebody is changing mappings. Reads what there is, waits a little if there is nothing.
    fn drain_for_retry(&mut self) {
        self.counters.retries += 1;
        for _ in 0..4 {
            self.program.step(&mut self.random);
        }
        self.read_kernel();
    }

    /// The program does not wait for the loop.
    fn bustle(&mut self) {
        while self.random.percent(self.settings.bustle) {
            if !self.program.step(&mut self.random) {
                return;
            }
        }
    }

    fn tell_source(&mut self, channel: Channel, message: ToSource) {
        if self.destination.generation != self.generation {
            return;
        }
        self.to_source.send(self.now, &mut self.random, channel, message);
    }
}

fn space(id: MmId) -> SpaceId {
    SpaceId(u32::try_from(id).unwrap_or(u32::MAX))
}

fn mm_of(space: SpaceId) -> MmId {
    space.0 as usize
}

/// Page numbers as addresses.
fn pages(range: &std::ops::Range<Page>) -> PageRange {
    let range = PageRange::new(Addr(range.start * PAGE_SIZE), Addr(range.end * PAGE_SIZE));
    range.expect("the world's pages are user pages in ascending order")
}

fn numbers(range: PageRange) -> impl Iterator<Item = Page> {
    range.start().0 / PAGE_SIZE..range.end().0 / PAGE_SIZE
}
