//! The page server's loop: one input, then every action.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::{Failure, Instant, Source, SourceAction, SourceInput};
use memory::{Addr, PAGE_SIZE, PageRange, PageSet};
use protocol::{Channel, MAX_PAGES_PER_FRAME};

use crate::link::{ToDestination, ToSource};
use crate::mm::{Page, Version, ZERO};
use crate::planted::PlantedFault;
use crate::settings::Disturbance;
use crate::world::World;

/// A source that has not got through so often in a row is left alone: it asks for as long as it takes.
const PATIENCE_ATTEMPTS: u32 = 400;

/// The source with its process.
#[derive(Clone, Debug)]
pub(crate) struct SourceSide {
    pub(crate) engine: Source,
    /// Pages with content; a page that holds `ZERO` is one that was written with zeros.
    pub(crate) pages: BTreeMap<Page, Version>,
    pub(crate) unreadable: BTreeSet<Page>,
    pub(crate) eager: Vec<PageRange>,
    pub(crate) lazy: Vec<PageRange>,
    /// The mappings whose pages are lazy, if any may follow.
    pub(crate) mapped: Vec<PageRange>,
    /// Pages that have not been written since the last sweep found them.
    pub(crate) clean: BTreeSet<Page>,
    /// Ranges that were mapped anew since the last sweep.
    pub(crate) made_anew: Vec<PageRange>,
    /// What of that which was sent ahead is said to hold still.
    pub(crate) kept: Vec<PageRange>,
    /// Its own answers, when they are due.
    pub(crate) answers: VecDeque<(u64, SourceInput)>,
    pub(crate) finished: bool,
    /// To connect again, in a row.
    pub(crate) failed_attempts: u32,
    unsent: u32,
}

impl SourceSide {
    pub(crate) fn new(engine: Source) -> Self {
        Self {
            engine,
            pages: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            eager: Vec::new(),
            lazy: Vec::new(),
            mapped: Vec::new(),
            clean: BTreeSet::new(),
            made_anew: Vec::new(),
            kept: Vec::new(),
            answers: VecDeque::new(),
            finished: false,
            failed_attempts: 0,
            unsent: 0,
        }
    }

    /// When there is something to do.
    pub(crate) fn due(&self, link: &crate::link::Link<ToSource>) -> Option<u64> {
        let frames = Channel::ALL.into_iter().filter_map(|channel| link.due(channel));
        let answer = self.answers.front().map(|(due, _)| *due);
        let timeout = self.engine.poll_timeout().map(|at| at.0);
        if self.finished { None } else { frames.chain(answer).chain(timeout).min() }
    }
}

impl World {
    /// One turn of the source's loop.
    pub(crate) fn source_turn(&mut self) {
        let input = self.next_source_input();
        self.trace(|| format!("source <- {input:?}"));
        if matches!(input, SourceInput::Sent(Channel::Push)) {
            self.source.unsent = self.source.unsent.saturating_sub(1);
        }
        self.source.engine.handle(Instant(self.now), input);
        let mut count = 0;
        while let Some(action) = self.source.engine.poll_action() {
            self.trace(|| format!("source -> {action:?}"));
            self.perform_at_source(action);
            count += 1;
        }
        self.checker.actions(count);
    }

    fn next_source_input(&mut self) -> SourceInput {
        if self.source.answers.front().is_some_and(|(due, _)| *due <= self.now)
            && let Some((_, answer)) = self.source.answers.pop_front()
        {
            return answer;
        }
        let ready: Vec<_> = Channel::ALL
            .into_iter()
            .filter(|channel| self.to_source.due(*channel).is_some_and(|due| due <= self.now))
            .collect();
        let Some(channel) = self.random.pick(&ready) else { return SourceInput::Tick };
        match self.to_source.receive(channel) {
            Some(ToSource::Reserved) => SourceInput::Reserved(self.settings.plan),
            Some(ToSource::RoundTaken) => SourceInput::RoundTaken,
            Some(ToSource::Ready) => SourceInput::Ready,
            Some(ToSource::Running { patience_s }) => SourceInput::Running { patience_s },
            Some(ToSource::Unscanned(pages)) => SourceInput::Unscanned(pages),
            Some(ToSource::List { arrived, pages }) => SourceInput::Listed { arrived, pages },
            Some(ToSource::ListDone) => SourceInput::ListDone,
            Some(ToSource::PageRequest(pages)) => SourceInput::PageRequested(pages),
            Some(ToSource::Drained) => SourceInput::Drained,
            Some(ToSource::Abort) => SourceInput::Aborted(Failure::Peer("aborted".into())),
            Some(ToSource::Failed) => SourceInput::Broken(Failure::Peer("failed".into())),
            Some(ToSource::Closed) => SourceInput::Broken(Failure::LinkLost(channel)),
            None => SourceInput::Tick,
        }
    }

    fn perform_at_source(&mut self, action: SourceAction) {
        let control = Channel::Control;
        match action {
            SourceAction::SendReserve => self.tell_destination(control, ToDestination::Reserve),
            SourceAction::Sweep => self.sweep(),
            SourceAction::SendRoundEnd { last } => {
                self.tell_destination(Channel::Push, ToDestination::RoundEnd { last });
            }
            SourceAction::Capture { sent } => self.capture(&sent),
            SourceAction::SendSwitchover => self.tell_destination(control, ToDestination::Switchover),
            SourceAction::SendPages { channel, pages } => self.send_pages(channel, pages),
            SourceAction::SendZero(pages) => {
                self.tell_destination(Channel::Fault, ToDestination::ZeroPages(pages));
            }
            SourceAction::SendPushed(pages) => {
                self.tell_destination(Channel::Fault, ToDestination::Pushed(pages));
            }
            SourceAction::SendRun { epoch } => {
                self.checker.run_sent();
                self.tell_destination(control, ToDestination::Run { epoch });
            }
            SourceAction::Scan(range) => self.scan(range),
            SourceAction::SendPageMap { scanned, data } => {
                self.checker.bounded("runs in a page map", data.len(), self.settings.config.page_map_runs);
                self.tell_destination(control, ToDestination::PageMap { scanned, data });
            }
            SourceAction::SendPageMapDone => self.tell_destination(control, ToDestination::PageMapDone),
            SourceAction::SendPushDone => self.tell_destination(control, ToDestination::PushDone),
            SourceAction::SendReport => {}
            SourceAction::SendCancel(_) => self.tell_destination(control, ToDestination::Cancel),
            SourceAction::Reconnect => self.reconnect(),
            SourceAction::Release(_) => {
                self.counters.given_back += u64::from(self.checker.run_was_sent);
                self.checker.released(&self.source.pages);
                self.end_source();
            }
            SourceAction::End(failure) => {
                if failure.is_some() && self.planted == Some(PlantedFault::ReleasedAfterRun) {
                    self.checker.source_runs = true;
                }
                self.end_source();
            }
        }
    }

    /// New connections to the same destination, or not: what the old ones had on their way is lost.
    fn reconnect(&mut self) {
        self.source.answers.clear();
        self.source.unsent = 0;
        self.checker.link_lost();
        self.to_destination.close(self.now, &mut self.random, &ToDestination::Closed);
        self.to_source.hang_up();
        let failed = self.link_is_gone || self.destination_crashed || self.random.percent(30);
        let now = self.now;
        if failed {
            self.counters.failed_reconnections += 1;
            self.source.failed_attempts += 1;
            let failure = Failure::LinkLost(Channel::Control);
            if self.planted == Some(PlantedFault::DoubtTakenForAbort) {
                self.source.answers.push_back((now, SourceInput::Reconnected));
                self.source.answers.push_back((now, SourceInput::Aborted(failure)));
            } else if self.source.failed_attempts > PATIENCE_ATTEMPTS {
                self.counters.in_doubt += 1;
                self.source.finished = true;
            } else {
                self.answer_source(SourceInput::ReconnectFailed(failure));
            }
            return;
        }
        self.counters.reconnections += 1;
        self.source.failed_attempts = 0;
        self.generation += 1;
        let fate = self.destination.fate.clone();
        self.to_source.open(now, &mut self.random, fate);
        self.to_destination.open(now, &mut self.random, Some(ToDestination::Reconnected));
        self.source.answers.push_back((now, SourceInput::Reconnected));
    }

    fn end_source(&mut self) {
        self.source.finished = true;
        self.to_destination.close(self.now, &mut self.random, &ToDestination::Closed);
    }

    fn answer_source(&mut self, input: SourceInput) {
        let due = self.now + self.random.below(20_000);
        let earliest = self.source.answers.back().map_or(0, |(due, _)| *due);
        self.source.answers.push_back((due.max(earliest), input));
    }

    /// What was written since the last time, and is clean from here on.
    fn sweep(&mut self) {
        let source = &mut self.source;
        let is_mapped =
            |page: &Page| source.mapped.iter().any(|range| range.contains(Addr(page * PAGE_SIZE)));
        let written: Vec<_> = source
            .pages
            .keys()
            .copied()
            .filter(|page| !source.clean.contains(page) && is_mapped(page))
            .collect();
        source.clean.extend(&written);
        let lost = std::mem::take(&mut source.made_anew);
        self.answer_source(SourceInput::Swept { written: runs(written.into_iter()), lost });
    }

    /// The pages that were sent ahead and hold; what comes before `Run` if nothing may follow.
    fn close_ahead(&mut self, sent: &PageSet) {
        let source = &mut self.source;
        let careless = self.planted == Some(PlantedFault::DirtyPageKept);
        let holds =
            |page: &Page| sent.contains(Addr(page * PAGE_SIZE)) && (careless || source.clean.contains(page));
        let kept: BTreeSet<_> = source.pages.keys().copied().filter(holds).collect();
        self.counters.kept_pages += kept.len() as u64;
        if !self.settings.plan.follows {
            let mut eager: BTreeSet<Page> = source.eager.iter().flat_map(page_numbers).collect();
            eager.extend(source.pages.keys().copied().filter(|page| !kept.contains(page)));
            source.eager = runs(eager.into_iter());
            source.lazy.clear();
        }
        source.kept = runs(kept.into_iter());
    }

    fn capture(&mut self, sent: &PageSet) {
        if self.settings.disturbance == Disturbance::CaptureFails {
            let failure = Failure::Local("a thread did not stop".into());
            return self.answer_source(SourceInput::CaptureFailed(failure));
        }
        self.checker.stopped(&self.source.pages);
        self.close_ahead(sent);
        let (eager, lazy) = (self.source.eager.clone(), self.source.lazy.clone());
        let kept = self.source.kept.clone();
        self.answer_source(SourceInput::Captured { eager, lazy, kept, content: 0 });
    }

    /// What holds data in a range, or in the first part of it.
    fn scan(&mut self, range: PageRange) {
        let pages = self.random.between(1, range.pages());
        let scanned = if self.random.percent(20) { range.split_at_pages(pages).0 } else { range };
        let (first, last) = (scanned.start().0 / PAGE_SIZE, scanned.end().0 / PAGE_SIZE);
        let pages = self.source.pages.range(first..last).map(|(page, _)| *page);
        let populated: BTreeSet<_> =
            pages.chain(self.source.unreadable.range(first..last).copied()).collect();
        let data = runs(populated.into_iter());
        self.answer_source(SourceInput::Scanned { scanned, data });
    }

    /// Reads pages and sends them, each stretch by its kind.
    fn send_pages(&mut self, channel: Channel, pages: PageRange) {
        let goes_ahead = self.source.engine.phase() == "precopy";
        self.checker.page_sent(goes_ahead);
        let limit = usize::try_from(MAX_PAGES_PER_FRAME).unwrap_or(0);
        self.checker.bounded("pages in a frame", usize::try_from(pages.pages()).unwrap_or(usize::MAX), limit);
        if channel == Channel::Push {
            self.source.unsent += 1;
            self.counters.push_frames += 1;
            let window = self.settings.config.push_window;
            self.checker.bounded("push frames under way", self.source.unsent as usize, window as usize);
        }
        let numbers = pages.start().0 / PAGE_SIZE..pages.end().0 / PAGE_SIZE;
        if channel == Channel::Push && !goes_ahead {
            numbers.clone().for_each(|page| self.checker.pushed(page));
        }
        let mut rest: Vec<_> = numbers.map(|page| (page, self.source.kind_of(page))).collect();
        while let Some((page, kind)) = rest.first().copied() {
            let len = rest.iter().take_while(|(_, other)| *other == kind).count();
            let stretch: Vec<_> = rest.drain(..len).map(|(page, _)| page).collect();
            let Some(pages) = PageRange::from_pages(Addr(page * PAGE_SIZE), len as u64) else { continue };
            let message = match kind {
                PageKind::Unreadable => ToDestination::LostPages(pages),
                PageKind::Zero => ToDestination::ZeroPages(pages),
                PageKind::Data => {
                    let versions =
                        stretch.iter().map(|page| self.source.pages.get(page).copied().unwrap_or(ZERO));
                    ToDestination::Pages { pages, versions: versions.collect() }
                }
            };
            self.tell_destination(channel, message);
        }
        self.answer_source(SourceInput::Sent(channel));
    }

    fn tell_destination(&mut self, channel: Channel, message: ToDestination) {
        self.to_destination.send(self.now, &mut self.random, channel, message);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PageKind {
    Data,
    Zero,
    Unreadable,
}

impl SourceSide {
    /// The program writes to a page.
    pub(crate) fn write(&mut self, page: Page, next_version: &mut Version) {
        *next_version += 1;
        self.pages.insert(page, *next_version);
        self.clean.remove(&page);
    }

    /// The program drops the content of a page.
    pub(crate) fn drop_page(&mut self, page: Page) {
        self.pages.remove(&page);
        self.clean.remove(&page);
    }

    fn kind_of(&self, page: Page) -> PageKind {
        if self.unreadable.contains(&page) {
            PageKind::Unreadable
        } else if self.pages.get(&page).is_none_or(|version| *version == ZERO) {
            PageKind::Zero
        } else {
            PageKind::Data
        }
    }
}

fn page_numbers(range: &PageRange) -> std::ops::Range<Page> {
    range.start().0 / PAGE_SIZE..range.end().0 / PAGE_SIZE
}

/// Maximal runs of ascending page numbers.
pub(crate) fn runs(pages: impl Iterator<Item = Page>) -> Vec<PageRange> {
    let mut runs: Vec<(Page, u64)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((start, len)) if *start + *len == page => *len += 1,
            _ => runs.push((page, 1)),
        }
    }
    runs.into_iter().filter_map(|(start, len)| PageRange::from_pages(Addr(start * PAGE_SIZE), len)).collect()
}
