//! Every page of every address space: what arrives, what is touched, what the program does to its mappings.

mod lacking;

use alloc::collections::{BTreeMap, VecDeque};

use memory::{Addr, PAGE_SIZE, PageRange, RangeSet};
use protocol::Channel;

use super::fault_table::FaultTable;
use super::space::Space;
use super::work::{NextFill, Work};
use super::{Content, DestinationAction, InstallOutcome, Place, SpaceId};
use crate::report::Report;
use crate::{Config, Instant};

/// The pages of one migration. Source addresses, unless it says `current`.
#[derive(Clone, Debug, Default)]
pub(super) struct PageMap {
    /// Everything that the source may send: eager and lazy.
    served: RangeSet,
    lazy: RangeSet,
    /// Lazy pages that the source has not looked at.
    unscanned: RangeSet,
    spaces: BTreeMap<SpaceId, Space>,
    /// The number of the last address space that came from the source: all others are children made since.
    roots: u32,
    faults: FaultTable,
    work: Work,
    source_is_lost: bool,
    /// What was never looked at is too much to be poisoned beforehand: each page is, when it is touched.
    poisons_on_touch: bool,
    /// Pages that the source has said to hold data.
    data_pages: u64,
}

/// For pages that are wanted after all, whoever waits there.
const NOBODY: u32 = 0;

/// What the parts of the destination work with.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a Config,
    pub(super) report: &'a mut Report,
    pub(super) actions: &'a mut VecDeque<DestinationAction>,
}

impl PageMap {
    /// `holds` are pages that are in place already.
    pub(super) fn new(eager: &[PageRange], lazy: &[PageRange], holds: &RangeSet) -> Self {
        let lazy: RangeSet = lazy.iter().copied().collect();
        let eager: RangeSet = eager.iter().copied().collect();
        let main = Space::new(&eager, &lazy, holds);
        Self {
            served: lazy.runs().chain(eager.runs()).collect(),
            unscanned: lazy.clone(),
            lazy,
            spaces: [(SpaceId::MAIN, main)].into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether each of these pages is in place, or comes.
    pub(super) fn accounts_for(&self, pages: PageRange, holds: &RangeSet) -> bool {
        let mut rest: RangeSet = [pages].into_iter().collect();
        for run in holds.runs_in(pages) {
            rest.remove(run);
        }
        rest.runs().all(|run| self.served.covers(run))
    }

    /// Pages that were in place are not: they have to come after all. False if one cannot.
    #[must_use]
    pub(super) fn want_again(&mut self, pages: &[PageRange]) -> bool {
        let Some(main) = self.spaces.get_mut(&SpaceId::MAIN) else { return false };
        pages.iter().all(|run| {
            let comes = self.lazy.covers(*run);
            if comes {
                main.want_again(*run);
            }
            comes
        })
    }

    /// Has these pages belong into other address spaces.
    pub(super) fn place(&mut self, places: &[Place]) {
        for Place { space, at, source } in places {
            let Some(pages) = at.moved_to(*source) else { continue };
            let Some(main) = self.spaces.get_mut(&SpaceId::MAIN) else { return };
            let wanted = main.give_away(pages);
            self.spaces.entry(*space).or_default().take_over(*at, pages, &wanted);
            self.roots = self.roots.max(space.0);
        }
    }

    /// Whether the source may send these pages.
    pub(super) fn serves(&self, pages: PageRange) -> bool {
        self.served.covers(pages)
    }

    /// Whether the source may say of this range that it has looked at it.
    pub(super) fn may_be_scanned(&self, range: PageRange) -> bool {
        self.lazy.covers(range)
    }

    pub(super) fn is_scanned(&self) -> bool {
        self.unscanned.is_empty()
    }

    /// Whether no page is wanted in any space.
    pub(super) fn is_settled(&self) -> bool {
        self.spaces.values().all(Space::is_settled)
    }

    /// How many pages of what came from the source are wanted and known to hold data.
    pub(super) fn outstanding(&self) -> u64 {
        let roots = self.spaces.range(SpaceId::MAIN..=SpaceId(self.roots));
        roots.map(|(_, space)| space.outstanding().len()).sum()
    }

    /// Whether one of these pages is wanted and known to hold data: before the first scan, an eager page.
    pub(super) fn awaits(&self, pages: PageRange) -> bool {
        self.spaces.values().any(|space| space.outstanding().first_in(pages).is_some())
    }

    /// Whether nothing known is missing: before the first scan, the eager pages.
    pub(super) fn has_all_known(&self) -> bool {
        self.spaces.values().all(|space| space.outstanding().is_empty())
    }

    /// Whether the process itself is there.
    pub(super) fn has_main(&self) -> bool {
        self.spaces.contains_key(&SpaceId::MAIN)
    }

    pub(super) fn oldest_request(&self) -> Option<Instant> {
        self.faults.oldest()
    }

    /// The mappings stand: requests go out from here on, those for what has been touched so far first.
    pub(super) fn open(&mut self, desk: &mut Desk<'_>) {
        self.faults.open();
        self.ask_deferred(desk);
    }

    /// A page frame is in the receive buffer.
    pub(super) fn arrived(
        &mut self,
        desk: &mut Desk<'_>,
        channel: Channel,
        pages: PageRange,
        content: Content,
    ) {
        let wanted: RangeSet = self.spaces.values().flat_map(|space| space.wanted_in(pages)).collect();
        count_arrival(desk.report, &mut self.faults, channel, (pages, content), &wanted);
        if channel == Channel::Fault {
            self.faults.answered(pages);
        }
        if content == Content::Lost {
            for run in wanted.runs() {
                desk.report.lost.add(run, desk.config.lost_ranges);
            }
        }
        self.work.take_frame((channel, pages), content, self.spaces.keys().copied());
        self.ask_deferred(desk);
    }

    /// These pages have been asked for, and come by the push, or have come already.
    pub(super) fn pushed(&mut self, desk: &mut Desk<'_>, pages: PageRange) {
        self.faults.pushed(pages);
        for space in self.spaces.values() {
            for again in space.had_no_place(pages) {
                self.faults.defer(again);
            }
        }
        self.ask_deferred(desk);
    }

    /// These pages are zero. Nothing is installed: whoever waits gets a zero page, and so does the next touch.
    pub(super) fn arrived_zero(&mut self, desk: &mut Desk<'_>, channel: Channel, pages: PageRange) {
        let wanted: RangeSet = self.spaces.values().flat_map(|space| space.wanted_in(pages)).collect();
        count_arrival(desk.report, &mut self.faults, channel, (pages, Content::Zero), &wanted);
        if channel == Channel::Fault {
            self.faults.answered(pages);
        }
        for space in self.spaces.values_mut() {
            space.settle(pages);
        }
        self.release_vain_waiters(desk);
        self.ask_deferred(desk);
    }

    /// What became of an `Install`.
    pub(super) fn installed(
        &mut self,
        desk: &mut Desk<'_>,
        id: SpaceId,
        pages: PageRange,
        outcome: InstallOutcome,
    ) {
        let Some(space) = self.spaces.get_mut(&id) else { return };
        if outcome != InstallOutcome::Retry {
            space.all_was_told();
        }
        match outcome {
            InstallOutcome::Installed | InstallOutcome::AlreadyPresent => {
                for (current, _) in space.locate(pages) {
                    for since in space.woken(current) {
                        desk.report.fault_latency.record(desk.now.since(since));
                    }
                }
                space.settle(pages);
            }
            InstallOutcome::Retry => {
                desk.report.events.retries += 1;
                self.work.install_again(id, pages);
            }
            InstallOutcome::RangeGone => {
                for again in space.has_no_place_for(pages) {
                    self.faults.defer(again);
                }
                self.release_vain_waiters(desk);
                self.ask_deferred(desk);
            }
            InstallOutcome::SpaceGone => self.space_gone(id),
        }
    }

    /// What became of a `ZeroFill` or `Poison`.
    pub(super) fn filled(
        &mut self,
        desk: &mut Desk<'_>,
        id: SpaceId,
        at: PageRange,
        outcome: InstallOutcome,
    ) {
        match outcome {
            InstallOutcome::Installed | InstallOutcome::AlreadyPresent | InstallOutcome::RangeGone => {
                self.spaces.get_mut(&id).map(Space::all_was_told).unwrap_or_default();
            }
            InstallOutcome::Retry => {
                desk.report.events.retries += 1;
                self.work.fill_again(id, at);
            }
            InstallOutcome::SpaceGone => self.space_gone(id),
        }
    }

    /// `thread` touched a missing page.
    pub(super) fn fault(&mut self, desk: &mut Desk<'_>, id: SpaceId, addr: Addr, thread: u32) {
        let (Some(space), Some(current)) = (self.spaces.get_mut(&id), PageRange::page_of(addr)) else {
            return;
        };
        let wanted = space.source_of(current.start()).filter(|source| space.is_wanted(*source));
        let Some(page) = wanted.and_then(PageRange::page_of) else {
            self.work.fill(id, current);
            return;
        };
        if self.source_is_lost {
            self.work.poison(id, page);
            return;
        }
        space.wait_at(current, desk.now);
        let request = self.faults.fault(desk.config, desk.now, (space, (id, thread)), (current, page));
        desk.actions.extend(request.map(DestinationAction::RequestPages));
        self.ask_deferred(desk);
    }

    /// The source has looked at `scanned`: all but `data` is zero. False if that would be more data than is taken.
    #[must_use]
    pub(super) fn scanned(&mut self, desk: &mut Desk<'_>, scanned: PageRange, data: &[PageRange]) -> bool {
        let in_data: u64 = data.iter().map(|run| run.pages()).sum();
        self.data_pages = self.data_pages.saturating_add(in_data);
        if self.data_pages > desk.config.data_pages {
            return false;
        }
        let fresh: u64 = self.unscanned.remove(scanned);
        desk.report.pages.holes += fresh.saturating_sub(in_data);
        for space in self.spaces.values_mut() {
            space.scanned(scanned, data);
        }
        self.release_vain_waiters(desk);
        true
    }

    pub(super) fn remapped(&mut self, desk: &mut Desk<'_>, id: SpaceId, from: PageRange, to: Addr) {
        desk.report.events.remaps += 1;
        if let (Some(space), Some(to)) = (self.spaces.get_mut(&id), from.moved_to(to)) {
            space.remapped(from, to, desk.config.moves_awaited);
        }
        self.release_vain_waiters(desk);
    }

    pub(super) fn removed(&mut self, desk: &mut Desk<'_>, id: SpaceId, pages: PageRange) {
        desk.report.events.removes += 1;
        if let Some(space) = self.spaces.get_mut(&id) {
            space.removed(pages);
        }
        self.release_vain_waiters(desk);
    }

    pub(super) fn unmapped(&mut self, desk: &mut Desk<'_>, id: SpaceId, pages: PageRange) {
        desk.report.events.unmaps += 1;
        if let Some(space) = self.spaces.get_mut(&id) {
            space.unmapped(pages);
        }
        self.release_vain_waiters(desk);
    }

    /// The child wants what its parent wants, the frame in hand too.
    pub(super) fn forked(&mut self, desk: &mut Desk<'_>, parent: SpaceId, child: SpaceId) {
        desk.report.events.forks += 1;
        let Some(space) = self.spaces.get(&parent).map(Space::child) else { return };
        self.work.share_frames(child);
        if self.source_is_lost {
            self.give_up(child, &space);
        }
        self.spaces.insert(child, space);
    }

    pub(super) fn space_gone(&mut self, id: SpaceId) {
        self.spaces.remove(&id);
    }

    /// Everything has been pushed once: asks for what is missing all the same.
    pub(super) fn ask_leftovers(&mut self, desk: &mut Desk<'_>) {
        for space in self.spaces.values() {
            for run in space.outstanding().runs() {
                self.faults.defer(run);
            }
        }
        self.ask_deferred(desk);
    }

    /// No page will come any more: what is wanted is lost.
    pub(super) fn source_lost(&mut self, desk: &mut Desk<'_>) {
        self.source_is_lost = true;
        self.faults.close();
        let lost: RangeSet = self.spaces.values().flat_map(Space::wanted).collect();
        for run in lost.runs() {
            desk.report.lost.add(run, desk.config.lost_ranges);
        }
        let unknown: u64 = self.spaces.values().map(Space::unknown_pages).sum();
        self.poisons_on_touch = unknown > desk.config.poison_pages;
        let spaces = core::mem::take(&mut self.spaces);
        for (id, space) in &spaces {
            self.give_up(*id, space);
        }
        self.spaces = spaces;
    }

    /// Whether nobody needs the loop any more although pages are lost.
    pub(super) fn may_be_left(&self) -> bool {
        !self.poisons_on_touch || self.spaces.is_empty()
    }

    fn give_up(&mut self, id: SpaceId, space: &Space) {
        if self.poisons_on_touch {
            let known = space.outstanding().runs();
            space.awaited().chain(known).for_each(|run| self.work.poison(id, run));
        } else {
            space.wanted().for_each(|run| self.work.poison(id, run));
        }
    }

    /// The next thing to do to the program's memory.
    pub(super) fn next_action(&mut self, desk: &mut Desk<'_>) -> Option<DestinationAction> {
        let under_fire = self.faults.is_under_fire(desk.now, desk.config);
        let most = if under_fire { desk.config.install_pages_under_fire } else { u64::MAX };
        if let Some(install) = self.work.next_install(&self.spaces, most.max(1)) {
            return Some(install);
        }
        while let Some(next) = self.work.next_fill(&self.spaces, desk.config.zero_fill_pages) {
            match next {
                NextFill::Fill(fill) => {
                    desk.report.pages.zero_fills += 1;
                    return Some(fill);
                }
                NextFill::Wanted(id, addr) => self.fault(desk, id, addr, NOBODY),
            }
        }
        self.work.next_poison(&self.spaces, (desk.config.scan_bytes / PAGE_SIZE).max(1))
    }

    /// Whether threads have been waiting for pages just now.
    pub(super) fn is_under_fire(&self, now: Instant, config: &Config) -> bool {
        self.faults.is_under_fire(now, config)
    }

    /// Nothing was left to do: the receive buffers may be used again.
    pub(super) fn frame_is_done(&mut self) {
        self.work.drop_frames();
    }

    /// Threads that wait where nothing will arrive go on with a zero page.
    fn release_vain_waiters(&mut self, desk: &mut Desk<'_>) {
        for (id, space) in &mut self.spaces {
            for (page, since) in space.waiting_in_vain() {
                desk.report.fault_latency.record(desk.now.since(since));
                self.work.fill(*id, page);
            }
        }
    }

    fn ask_deferred(&mut self, desk: &mut Desk<'_>) {
        let spaces = &self.spaces;
        let is_wanted = |at: Addr| spaces.values().any(|space| space.is_wanted(at));
        while let Some(request) = self.faults.next_deferred(desk.config, desk.now, is_wanted) {
            desk.actions.push_back(DestinationAction::RequestPages(request));
        }
    }
}

/// Counts each page that arrived, once, whichever space wants it.
fn count_arrival(
    report: &mut Report,
    faults: &mut FaultTable,
    channel: Channel,
    (pages, content): (PageRange, Content),
    wanted: &RangeSet,
) {
    let count = wanted.pages();
    let faulted = faults.take_faulted(pages).min(count);
    let counts = &mut report.pages;
    counts.unwanted += pages.pages() - count;
    match channel {
        Channel::Fault => {
            counts.fault += faulted;
            counts.prefetch += count - faulted;
        }
        Channel::Push | Channel::Control => counts.push += count,
    }
    match content {
        Content::Data => counts.data += count,
        Content::Zero => counts.zero += count,
        Content::Lost => counts.lost += count,
    }
}
