//! Installs, zero fills and poison: what the kernel takes at a time, and how each part is reported.

use engine::{Content, DestinationInput, InstallOutcome, SpaceId};
use memory::{Addr, PAGE_SIZE, PageRange};
use protocol::Channel;

use super::{mm_of, numbers, pages};
use crate::kernel::Fill;
use crate::mm::{MmId, POISON, Page, Version, ZERO};
use crate::planted::PlantedFault;
use crate::world::World;

impl World {
    /// Installs a run of the frame in hand, and reports each part by itself.
    pub(super) fn install(
        &mut self,
        id: SpaceId,
        (channel, source): (Channel, PageRange),
        at: PageRange,
        content: Content,
    ) {
        let mm = mm_of(id);
        let before_run = !self.checker.destination_runs;
        if before_run && self.planted == Some(PlantedFault::ReadyTooEarly) && self.random.percent(25) {
            let outcome = InstallOutcome::Installed;
            return self.hand_in(DestinationInput::Installed { space: id, pages: source, outcome });
        }
        let versions: Vec<_> = numbers(source).map(|page| self.content_of(channel, page, content)).collect();
        let first = at.start().0 / PAGE_SIZE;
        let mut done = 0;
        while done < source.pages() {
            self.bustle();
            if self.dies_here() {
                return;
            }
            let (outcome, count) = self.install_part(mm, (channel, first + done), &versions, done);
            for page in numbers(source).skip(usize::try_from(done).unwrap_or(0)).take(
                usize::try_from(if outcome == InstallOutcome::Installed { count } else { 0 }).unwrap_or(0),
            ) {
                self.counters.installed_pages += 1;
                self.checker.installed(mm, page);
            }
            if outcome == InstallOutcome::Retry {
                self.drain_for_retry();
            }
            let pages = source.split_at_pages(done).1.split_at_pages(count).0;
            self.hand_in(DestinationInput::Installed { space: id, pages, outcome });
            done += count;
        }
    }

    /// One attempt at the pages from `done` on; says what happened to how many.
    fn install_part(
        &mut self,
        mm: MmId,
        (channel, at): (Channel, Page),
        versions: &[Version],
        done: u64,
    ) -> (InstallOutcome, u64) {
        let before_run = !self.checker.destination_runs;
        let rest = &versions[usize::try_from(done).unwrap_or(0)..];
        let forget = self.planted == Some(PlantedFault::WaiterForgotten);
        let wake = !(forget && channel == Channel::Push);
        if let Some(space) = self.program.kernel.mms.get_mut(mm)
            && space.area_at(at).is_some_and(|(_, area)| area.file || (before_run && !area.registered))
        {
            // Not registered: written through /proc/PID/mem.
            space.present.insert(at, rest.first().copied().unwrap_or(ZERO));
            return (InstallOutcome::Installed, 1);
        }
        let all = rest.len() as u64;
        // Shared memory: another mapping of the same object has brought the page in.
        if self.random.percent(1)
            && let Some(space) = self.program.kernel.mms.get_mut(mm)
            && space.changing == 0
            && space.area_at(at).is_some_and(|(_, area)| area.registered)
        {
            space.present.entry(at).or_insert(rest.first().copied().unwrap_or(ZERO));
        }
        let whole = self.program.kernel.fill(mm, at, rest, wake);
        // Not one mapping: page by page then.
        let filled =
            if whole == Fill::NoEntry { self.program.kernel.fill(mm, at, &rest[..1], wake) } else { whole };
        match filled {
            Fill::Done(count) => (InstallOutcome::Installed, count),
            Fill::Exists => {
                self.counters.already_present += 1;
                self.program.kernel.wake(mm, &(at..at + 1));
                (InstallOutcome::AlreadyPresent, 1)
            }
            Fill::Again => (InstallOutcome::Retry, all),
            Fill::Gone => (InstallOutcome::SpaceGone, all),
            Fill::NoEntry => {
                self.counters.range_gone += 1;
                self.program.kernel.wake(mm, &(at..at + 1));
                (InstallOutcome::RangeGone, 1)
            }
        }
    }

    /// Zero or poison, page by page; whoever waits is woken whatever happens.
    pub(super) fn fill(&mut self, id: SpaceId, at: PageRange, version: Version) {
        let mm = mm_of(id);
        for page in numbers(at) {
            self.bustle();
            if self.dies_here() {
                return;
            }
            let outcome = match self.program.kernel.fill(mm, page, &[version], true) {
                Fill::Done(_) => InstallOutcome::Installed,
                Fill::Exists => InstallOutcome::AlreadyPresent,
                Fill::NoEntry => InstallOutcome::RangeGone,
                Fill::Gone => InstallOutcome::SpaceGone,
                Fill::Again => {
                    self.drain_for_retry();
                    let rest = PageRange::new(Addr(page * PAGE_SIZE), at.end()).unwrap_or(at);
                    let outcome = InstallOutcome::Retry;
                    self.hand_in(DestinationInput::Filled { space: id, at: rest, outcome });
                    return self.program.kernel.wake(mm, &(page..at.end().0 / PAGE_SIZE));
                }
            };
            self.program.kernel.wake(mm, &(page..page + 1));
            if outcome != InstallOutcome::Installed {
                let at = pages(&(page..page + 1));
                self.hand_in(DestinationInput::Filled { space: id, at, outcome });
            }
        }
    }

    pub(super) fn content_of(&self, channel: Channel, page: Page, content: Content) -> Version {
        let held = || self.destination.frames.get(&channel).and_then(|frame| frame.get(&page).copied());
        match content {
            Content::Data => held().unwrap_or(u64::MAX / 2),
            Content::Zero => ZERO,
            Content::Lost => POISON,
        }
    }
}
