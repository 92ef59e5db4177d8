//! How a migration ends: everything is there, or it never ran here, or pages are lost.

use super::page_map::PageMap;
use super::{Destination, DestinationAction, Phase};
use crate::Failure;

impl Destination {
    /// Nothing is wanted any more, or what is wanted has been given up: the last actions.
    pub(super) fn finish_if_done(&mut self) {
        let (drained, failure) = match &self.phase {
            Phase::Postcopy { pages, .. } if pages.is_settled() => (true, None),
            Phase::Paused { pages, .. } if pages.is_settled() => (false, None),
            Phase::Lost { pages, failure } if pages.may_be_left() => (false, Some(failure.clone())),
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
            | Phase::Aborted => return,
        };
        self.leave_postcopy(Phase::Completed);
        self.report.total = self.now.since(self.started);
        self.actions.push_back(DestinationAction::Finish);
        if drained {
            self.actions.push_back(DestinationAction::SendDrained);
        }
        self.actions.push_back(DestinationAction::Complete(failure));
    }

    pub(super) fn prepare_failed(&mut self, failure: Failure) {
        match self.phase {
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Listening(_)
            | Phase::Ready(_)
            | Phase::Resuming { .. } => self.abort(failure),
            Phase::Postcopy { .. }
            | Phase::Paused { .. }
            | Phase::Lost { .. }
            | Phase::Completed
            | Phase::Aborted => {}
        }
    }

    pub(super) fn broke_protocol(&mut self, what: &'static str) {
        self.fail(Failure::Protocol(what));
    }

    /// Before `Run`: the process never runs here. After it: what is missing is lost.
    pub(super) fn fail(&mut self, failure: Failure) {
        match &mut self.phase {
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Listening(_)
            | Phase::Ready(_) => {
                self.abort(failure);
            }
            Phase::Resuming { lost, .. } => _ = lost.get_or_insert(failure),
            Phase::Postcopy { pages, .. } | Phase::Paused { pages, .. } => {
                let pages = core::mem::take(pages);
                self.actions.clear();
                self.leave_postcopy(Phase::Lost { pages, failure });
                self.with_pages(PageMap::source_lost);
            }
            Phase::Lost { .. } | Phase::Completed | Phase::Aborted => {}
        }
    }

    /// The process never ran here and never will.
    pub(super) fn abort(&mut self, failure: Failure) {
        self.enter(Phase::Aborted);
        self.report.total = self.now.since(self.started);
        self.actions.clear();
        self.actions.push_back(DestinationAction::SendAbort(failure.clone()));
        self.actions.push_back(DestinationAction::Discard(failure));
    }
}
