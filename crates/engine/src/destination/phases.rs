//! What each input does in each phase. Inputs are in the order in which a migration sees them.

use alloc::string::String;

use memory::{PageRange, RangeSet};
use protocol::{Channel, MAX_PAGES_PER_FRAME};

use super::ahead::Ahead;
use super::page_map::PageMap;
use super::{
    Content, Destination, DestinationAction, DestinationInput, InstallOutcome, Leftovers, Listening, Phase,
    Place,
};
use crate::Failure;
use crate::ranges::are_ascending_runs;

impl Destination {
    /// Everything before the source is lost.
    pub(super) fn act_on(&mut self, input: DestinationInput) {
        match input {
            DestinationInput::ReserveRequested => self.reserve_requested(),
            DestinationInput::Reserved => self.reserved(),
            DestinationInput::ContentArrived => self.content_arrived(),
            DestinationInput::RoundEnded { last } => self.round_ended(last),
            DestinationInput::SwitchoverRequested { eager, lazy, kept } => {
                self.switchover_requested(&eager, &lazy, &kept);
            }
            DestinationInput::Remade(pages) => self.remade(&pages),
            DestinationInput::Mapped { places } => self.mapped(&places),
            DestinationInput::Assembled => self.assembled(),
            DestinationInput::PrepareFailed(failure) => self.prepare_failed(failure),
            DestinationInput::PagesArrived { channel, pages, content } => {
                self.pages_arrived(channel, pages, content);
            }
            DestinationInput::Pushed(pages) => self.pushed(pages),
            DestinationInput::Run { .. } => self.run(),
            DestinationInput::Resumed => self.resumed(),
            DestinationInput::PageMap { scanned, data } => self.page_map(scanned, &data),
            DestinationInput::PageMapDone => self.page_map_done(),
            DestinationInput::PushDone => self.push_done(),
            DestinationInput::Reconnected => self.reconnected(),
            DestinationInput::TakenOver => self.taken_over(),
            DestinationInput::Broken(failure) => self.broken(failure),
            DestinationInput::Tick => self.tick(),
            DestinationInput::Installed { .. }
            | DestinationInput::Filled { .. }
            | DestinationInput::Fault { .. }
            | DestinationInput::Remapped { .. }
            | DestinationInput::Removed { .. }
            | DestinationInput::Unmapped { .. }
            | DestinationInput::Forked { .. }
            | DestinationInput::SpaceGone(_) => self.memory_changed(&input),
        }
    }

    /// Nobody is there to talk to; the program still touches and changes its memory.
    pub(super) fn act_on_when_lost(&mut self, input: &DestinationInput) {
        match input {
            DestinationInput::Installed { .. }
            | DestinationInput::Filled { .. }
            | DestinationInput::Fault { .. }
            | DestinationInput::Remapped { .. }
            | DestinationInput::Removed { .. }
            | DestinationInput::Unmapped { .. }
            | DestinationInput::Forked { .. }
            | DestinationInput::SpaceGone(_) => self.memory_changed(input),
            DestinationInput::Reconnected => {
                if let Phase::Lost { failure, .. } = &self.phase {
                    self.actions.push_back(DestinationAction::SendFailed(failure.clone()));
                }
            }
            DestinationInput::TakenOver => _ = self.with_pages(|pages, _| pages.taken_over()),
            DestinationInput::ReserveRequested
            | DestinationInput::Reserved
            | DestinationInput::ContentArrived
            | DestinationInput::RoundEnded { .. }
            | DestinationInput::SwitchoverRequested { .. }
            | DestinationInput::Remade(_)
            | DestinationInput::Mapped { .. }
            | DestinationInput::Assembled
            | DestinationInput::PrepareFailed(_)
            | DestinationInput::PagesArrived { .. }
            | DestinationInput::Pushed(_)
            | DestinationInput::Run { .. }
            | DestinationInput::Resumed
            | DestinationInput::PageMap { .. }
            | DestinationInput::PageMapDone
            | DestinationInput::PushDone
            | DestinationInput::Broken(_)
            | DestinationInput::Tick => {}
        }
    }

    fn reserve_requested(&mut self) {
        let Phase::Setup = self.phase else {
            return self.broke_protocol("a second reservation");
        };
        self.enter(Phase::Reserving);
        self.actions.push_back(DestinationAction::Reserve);
    }

    fn reserved(&mut self) {
        let Phase::Reserving = self.phase else { return };
        self.report.phases.reserve =
            self.enter(Phase::Reserved { too_early: false, ahead: Ahead::default() });
        self.actions.push_back(DestinationAction::SendReserved);
    }

    fn content_arrived(&mut self) {
        if !self.takes_content() {
            self.broke_protocol("content that has no place");
        }
    }

    fn switchover_requested(&mut self, eager: &[PageRange], lazy: &[PageRange], kept: &[PageRange]) {
        let Phase::Reserved { too_early, ahead } = &mut self.phase else {
            return self.broke_protocol("a switchover that was not agreed on");
        };
        let (too_early, ahead) = (*too_early, core::mem::take(ahead));
        let eager_pages = eager.iter().fold(0_u64, |sum, range| sum.saturating_add(range.pages()));
        if eager_pages > self.config.data_pages {
            return self.broke_protocol("more pages that must be in place than fit anywhere");
        }
        let (holds, stale) = ahead.close(kept, eager);
        let pages = PageMap::new(eager, lazy, &holds);
        // A page that is neither here nor to come would read as zero.
        let kept: RangeSet = kept.iter().copied().collect();
        if kept.runs().any(|run| !pages.accounts_for(run, &holds)) {
            return self.broke_protocol("pages that are said to be here and are not");
        }
        self.report.pages.ahead = holds.pages();
        let listening = Listening { pages, mapped: false, assembling: false, too_early };
        self.report.phases.wait = self.enter(Phase::Listening(listening));
        self.stopped = self.now;
        if !stale.is_empty() {
            self.actions.push_back(DestinationAction::Forget(stale));
        }
        self.actions.push_back(DestinationAction::Map);
    }

    fn mapped(&mut self, places: &[Place]) {
        let Phase::Listening(listening) = &mut self.phase else { return };
        listening.pages.place(places);
        listening.mapped = true;
        // Large objects take their time, and nobody was listening meanwhile.
        self.heard = self.now;
        let too_early = listening.too_early;
        self.report.phases.map = self.now.since(self.since);
        self.with_pages(|pages, desk| {
            pages.open(desk);
            if too_early {
                pages.ask_leftovers(desk);
            }
        });
        self.assemble_if_all_eager();
    }

    fn pages_arrived(&mut self, channel: Channel, pages: PageRange, content: Content) {
        match &mut self.phase {
            Phase::Reserved { ahead, .. } if self.config.takes_ahead && ahead.is_open() => {
                return self.taken_ahead(channel, pages, content);
            }
            // No place for them yet: asked for again as soon as there is.
            Phase::Reserved { too_early, .. }
            | Phase::Listening(Listening { mapped: false, too_early, .. }) => {
                *too_early = true;
                return;
            }
            Phase::Listening(_) | Phase::Ready(_) | Phase::Resuming { .. } => {}
            Phase::Postcopy { leftovers, .. } => {
                let later = Leftovers::after(self.now, self.config.leftover_delay);
                *leftovers = leftovers.map(|_| later);
            }
            Phase::Setup
            | Phase::Reserving
            | Phase::Paused { .. }
            | Phase::Lost { .. }
            | Phase::Completed
            | Phase::Aborted => {}
        }
        // A zero page may have to replace the page of a file before `Run`; after it, nothing is there to be replaced.
        let before_run = matches!(self.phase, Phase::Listening(_) | Phase::Ready(_));
        if let Phase::Listening(listening) = &self.phase
            && content == Content::Lost
            && listening.pages.awaits(pages)
        {
            let reason = String::from("a page that must be in place is unreadable at the source");
            return self.abort(Failure::Local(reason));
        }
        // Only zeros after `Run` come by more than a frame's worth: nothing has to be done for them.
        let fits = pages.pages() <= MAX_PAGES_PER_FRAME || (content == Content::Zero && !before_run);
        let served = self.with_pages(|page_map, desk| {
            let served = fits && !pages.is_empty() && page_map.serves(pages);
            match content {
                Content::Zero if served && !before_run => page_map.arrived_zero(desk, channel, pages),
                Content::Data | Content::Zero | Content::Lost if served => {
                    page_map.arrived(desk, channel, pages, content);
                }
                Content::Data | Content::Zero | Content::Lost => {}
            }
            served
        });
        if served != Some(true) {
            self.broke_protocol("pages that nobody can have asked for");
        }
    }

    fn pushed(&mut self, pages: PageRange) {
        // It comes behind `Run`, which is on another connection.
        let is_early = !self.may_have_run() && !matches!(self.phase, Phase::Ready(_));
        let served = self.with_pages(|page_map, desk| {
            let served = page_map.serves(pages);
            if served {
                page_map.pushed(desk, pages);
            }
            served
        });
        if is_early || served != Some(true) {
            self.broke_protocol("word of a push that cannot have been");
        }
    }

    fn run(&mut self) {
        let Phase::Ready(pages) = &mut self.phase else {
            return self.broke_protocol("a run before readiness");
        };
        let pages = core::mem::take(pages);
        self.report.phases.commit =
            self.enter(Phase::Resuming { pages, lost: None, push_done: false, reconnected: false });
        self.actions.push_back(DestinationAction::Resume);
    }

    fn resumed(&mut self) {
        let Phase::Resuming { pages, lost, push_done, reconnected } = &mut self.phase else { return };
        let (pages, lost, push_done, reconnected) =
            (core::mem::take(pages), lost.take(), *push_done, *reconnected);
        let leftovers = push_done.then(|| Leftovers::after(self.now, self.config.leftover_delay));
        self.report.phases.resume = self.enter(Phase::Postcopy { pages, leftovers });
        self.report.downtime = self.now.since(self.stopped);
        match lost {
            None => self.send_running(),
            Some(failure) => return self.broken(failure),
        }
        if reconnected {
            self.tell_what_is_lacking();
        }
    }

    fn page_map(&mut self, scanned: PageRange, data: &[PageRange]) {
        let (Phase::Resuming { .. } | Phase::Postcopy { .. }) = self.phase else {
            return self.broke_protocol("a page map before the switchover");
        };
        let fits = self.with_pages(|pages, desk| {
            let fits = pages.may_be_scanned(scanned) && are_ascending_runs(data, scanned);
            fits && pages.scanned(desk, scanned, data)
        });
        if fits != Some(true) {
            self.broke_protocol("a page map of pages that are not served, or of too many");
        }
    }

    fn page_map_done(&mut self) {
        if !self.is_scanned_after_run() {
            self.broke_protocol("an end of the page map before its last range");
        }
    }

    fn push_done(&mut self) {
        if !self.is_scanned_after_run() {
            return self.broke_protocol("an end of the push before the end of the page map");
        }
        let later = Leftovers::after(self.now, self.config.leftover_delay);
        match &mut self.phase {
            Phase::Resuming { push_done, .. } => *push_done = true,
            Phase::Postcopy { leftovers, .. } => *leftovers = Some(later),
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Listening(_)
            | Phase::Ready(_)
            | Phase::Paused { .. }
            | Phase::Lost { .. }
            | Phase::Completed
            | Phase::Aborted => {}
        }
    }

    fn is_scanned_after_run(&self) -> bool {
        match &self.phase {
            Phase::Resuming { pages, .. } | Phase::Postcopy { pages, .. } => pages.is_scanned(),
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Listening(_)
            | Phase::Ready(_)
            | Phase::Paused { .. }
            | Phase::Lost { .. }
            | Phase::Completed
            | Phase::Aborted => false,
        }
    }

    /// The answers of the kernel and the events of the program, the same in every phase that has pages.
    fn memory_changed(&mut self, input: &DestinationInput) {
        let eager_has_no_place = matches!(self.phase, Phase::Listening(_))
            && matches!(input, DestinationInput::Installed { outcome: InstallOutcome::RangeGone, .. });
        self.with_pages(|pages, desk| match *input {
            DestinationInput::Installed { space, pages: which, outcome } => {
                pages.installed(desk, space, which, outcome);
            }
            DestinationInput::Filled { space, at, outcome } => pages.filled(desk, space, at, outcome),
            DestinationInput::Fault { space, addr, thread } => {
                desk.report.events.faults += 1;
                pages.fault(desk, space, addr, thread);
            }
            DestinationInput::Remapped { space, from, to } => pages.remapped(desk, space, from, to),
            DestinationInput::Removed { space, pages: which } => pages.removed(desk, space, which),
            DestinationInput::Unmapped { space, pages: which } => pages.unmapped(desk, space, which),
            DestinationInput::Forked { parent, child } => pages.forked(desk, parent, child),
            DestinationInput::SpaceGone(space) => pages.space_gone(space),
            DestinationInput::ReserveRequested
            | DestinationInput::Reserved
            | DestinationInput::ContentArrived
            | DestinationInput::RoundEnded { .. }
            | DestinationInput::SwitchoverRequested { .. }
            | DestinationInput::Remade(_)
            | DestinationInput::Mapped { .. }
            | DestinationInput::Assembled
            | DestinationInput::PrepareFailed(_)
            | DestinationInput::PagesArrived { .. }
            | DestinationInput::Pushed(_)
            | DestinationInput::Run { .. }
            | DestinationInput::Resumed
            | DestinationInput::PageMap { .. }
            | DestinationInput::PageMapDone
            | DestinationInput::PushDone
            | DestinationInput::Reconnected
            | DestinationInput::TakenOver
            | DestinationInput::Broken(_)
            | DestinationInput::Tick => {}
        });
        if eager_has_no_place {
            self.abort(Failure::Local(String::from("a page that must be in place has no place here")));
        }
        self.check_before_run();
    }

    /// Before `Run`: a process that is gone cannot be resumed; one that has all eager pages is ready.
    fn check_before_run(&mut self) {
        match &self.phase {
            Phase::Listening(Listening { pages, .. }) | Phase::Ready(pages) if !pages.has_main() => {
                self.abort(Failure::ProcessGone);
            }
            Phase::Listening(_) => self.assemble_if_all_eager(),
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Ready(_)
            | Phase::Resuming { .. }
            | Phase::Postcopy { .. }
            | Phase::Paused { .. }
            | Phase::Lost { .. }
            | Phase::Completed
            | Phase::Aborted => {}
        }
    }

    fn assemble_if_all_eager(&mut self) {
        let Phase::Listening(Listening { pages, mapped: true, assembling, .. }) = &mut self.phase else {
            return;
        };
        if !*assembling && pages.has_all_known() {
            *assembling = true;
            self.actions.push_back(DestinationAction::Assemble);
        }
    }

    fn assembled(&mut self) {
        let Phase::Listening(Listening { pages, assembling: true, .. }) = &mut self.phase else { return };
        let pages = core::mem::take(pages);
        let took = self.enter(Phase::Ready(pages));
        self.report.phases.eager = took.saturating_sub(self.report.phases.map);
        self.report.pages.eager += core::mem::take(&mut self.report.pages.push);
        self.actions.push_back(DestinationAction::SendReady);
    }

    fn tick(&mut self) {
        if self.poll_timeout().is_none_or(|due| self.now < due) {
            return;
        }
        let now = self.now;
        match &mut self.phase {
            Phase::Setup | Phase::Reserving => self.fail(Failure::Deadline("reservation")),
            Phase::Reserved { .. } => self.fail(Failure::Deadline("switchover")),
            Phase::Listening(_) => self.fail(Failure::Deadline("page that must be in place")),
            Phase::Ready(_) => self.fail(Failure::Deadline("word to run")),
            Phase::Postcopy { pages, leftovers } => {
                let silent = pages.oldest_request().map_or(self.heard, |oldest| oldest.min(self.heard))
                    + self.config.silence_deadline
                    <= self.now;
                *leftovers = leftovers.map(|last| Leftovers::after(now, last.delay * 2));
                if silent {
                    self.broken(Failure::Deadline("page from the source"));
                } else {
                    self.with_pages(PageMap::ask_leftovers);
                }
            }
            Phase::Paused { failure, .. } => {
                let failure = failure.clone();
                self.give_up(failure);
            }
            Phase::Resuming { .. } | Phase::Lost { .. } | Phase::Completed | Phase::Aborted => {}
        }
    }
}
