//! A lost link behind `Run`: the process goes on as far as its pages reach, and the source connects again.

use alloc::vec::Vec;
use core::time::Duration;

use memory::PageRange;

use super::page_map::PageMap;
use super::{Destination, DestinationAction, DestinationInput, InstallOutcome, Phase, SpaceId};
use crate::{Failure, Instant, OnLoss};

impl Destination {
    /// Something is wrong with the source or the link to it.
    pub(super) fn broken(&mut self, failure: Failure) {
        let may_come_back = matches!(failure, Failure::LinkLost(_) | Failure::Deadline(_));
        match &mut self.phase {
            Phase::Postcopy { pages, .. } if may_come_back => {
                let pages = core::mem::take(pages);
                self.leave_postcopy(Phase::Paused { pages, failure });
                self.disconnect();
            }
            Phase::Resuming { lost, reconnected, .. } if may_come_back => {
                *reconnected = false;
                lost.get_or_insert(failure);
                self.disconnect();
            }
            Phase::Paused { .. } if may_come_back => {}
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
            | Phase::Aborted => self.fail(failure),
        }
    }

    /// New connections stand. Before `Run` that means that the source has lost its word on the way: it is promised
    /// that the process never runs here.
    pub(super) fn reconnected(&mut self) {
        match &mut self.phase {
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Listening(_)
            | Phase::Ready(_) => {
                self.abort(Failure::Peer("the source has lost the connection before it said to run".into()));
            }
            Phase::Resuming { pages, lost, push_done, reconnected } => {
                pages.pause();
                if matches!(lost, Some(Failure::LinkLost(_) | Failure::Deadline(_))) {
                    *lost = None;
                }
                (*push_done, *reconnected) = (false, true);
                self.forget_requests();
            }
            Phase::Postcopy { pages, leftovers } => {
                *leftovers = None;
                pages.pause();
                self.forget_requests();
                self.send_running();
                self.tell_what_is_lacking();
            }
            Phase::Paused { pages, .. } => {
                let pages = core::mem::take(pages);
                self.leave_postcopy(Phase::Postcopy { pages, leftovers: None });
                self.send_running();
                self.tell_what_is_lacking();
            }
            Phase::Lost { .. } | Phase::Completed | Phase::Aborted => {}
        }
    }

    /// Brings a copy of an engine that was made in the course of the reservation to where its original was at `Ready`, from
    /// what the switchover said: every page that had to be in place is. None has come ahead.
    pub fn catch_up(&mut self, now: Instant, eager: Vec<PageRange>, lazy: Vec<PageRange>) {
        let (space, outcome) = (SpaceId::MAIN, InstallOutcome::Installed);
        let there = eager.clone().into_iter();
        let arrived = there.map(|pages| DestinationInput::Installed { space, pages, outcome });
        let stands = [
            DestinationInput::Reserved,
            DestinationInput::SwitchoverRequested { eager, lazy, kept: Vec::new() },
            DestinationInput::Mapped { places: Vec::new() },
        ];
        for input in stands.into_iter().chain(arrived).chain([DestinationInput::Assembled]) {
            self.handle(now, input);
        }
        self.actions.clear();
    }

    /// Another loop has died; this one has its pages. The link went with it.
    pub(super) fn taken_over(&mut self) {
        self.actions.clear();
        self.with_pages(|pages, _| pages.taken_over());
        self.broken(Failure::LinkLost(protocol::Channel::Control));
    }

    /// The link has not come back in time.
    pub(super) fn give_up(&mut self, failure: Failure) {
        match self.config.on_loss {
            OnLoss::Wait => {}
            OnLoss::Poison => self.fail(failure),
            OnLoss::Kill => {
                self.with_pages(PageMap::source_lost);
                self.actions.clear();
                self.leave_postcopy(Phase::Completed);
                self.report.total = self.now.since(self.started);
                self.actions.push_back(DestinationAction::Kill(failure));
            }
        }
    }

    pub(super) fn send_running(&mut self) {
        let patience_s = match self.config.on_loss {
            OnLoss::Wait => 0,
            OnLoss::Poison | OnLoss::Kill => {
                u16::try_from(self.config.recovery_deadline.as_secs().max(1)).unwrap_or(u16::MAX)
            }
        };
        self.actions.push_back(DestinationAction::SendRunning { patience_s });
    }

    pub(super) fn tell_what_is_lacking(&mut self) {
        self.report.recoveries += 1;
        self.with_pages(PageMap::recover);
        self.actions.push_back(DestinationAction::SendListDone);
    }

    /// Enters another phase from `Postcopy` or `Paused`, and counts the time in the one that ends.
    pub(super) fn leave_postcopy(&mut self, phase: Phase) {
        let was_paused = matches!(self.phase, Phase::Paused { .. });
        let took: Duration = self.enter(phase);
        let phases = &mut self.report.phases;
        *(if was_paused { &mut phases.paused } else { &mut phases.postcopy }) += took;
    }

    fn disconnect(&mut self) {
        self.with_pages(|pages, _| pages.pause());
        self.forget_requests();
        self.actions.push_back(DestinationAction::Disconnect);
    }

    /// What waits to be sent over a link that is gone.
    fn forget_requests(&mut self) {
        self.actions.retain(|action| !matches!(action, DestinationAction::RequestPages(_)));
    }
}
