//! What each input does in each phase. Phases and inputs are in the order in which a migration sees them.

use memory::RangeSet;

use super::scan::Scan;
use super::send_queue::SendQueue;
use super::{Phase, Serving, Source, SourceAction, SourceInput};
use crate::{Failure, Instant};

impl Source {
    pub(super) fn in_setup(&mut self, now: Instant, input: SourceInput) {
        match input {
            SourceInput::Connected => {
                self.enter(Phase::Reserving, self.since);
                self.actions.push_back(SourceAction::SendReserve);
            }
            SourceInput::Aborted(failure) | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline(now, "connection"),
            SourceInput::Reserved(_)
            | SourceInput::Ready
            | SourceInput::Running { .. }
            | SourceInput::PageRequested(_)
            | SourceInput::Drained => self.fail(Failure::Protocol("a message before the connection stands")),
            SourceInput::Captured { .. }
            | SourceInput::CaptureFailed(_)
            | SourceInput::Scanned { .. }
            | SourceInput::Sent(_)
            | SourceInput::Reconnected
            | SourceInput::ReconnectFailed(_)
            | SourceInput::Unscanned(_)
            | SourceInput::Listed { .. }
            | SourceInput::ListDone
            | SourceInput::Swept { .. }
            | SourceInput::RoundTaken => {}
        }
    }

    pub(super) fn in_reserving(&mut self, now: Instant, input: SourceInput) {
        match input {
            SourceInput::Reserved(plan) => self.reserved(now, plan),
            SourceInput::Aborted(failure) | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline(now, "reservation"),
            SourceInput::Ready
            | SourceInput::Running { .. }
            | SourceInput::PageRequested(_)
            | SourceInput::Drained => self.fail(Failure::Protocol("an answer before its question")),
            SourceInput::Connected
            | SourceInput::Captured { .. }
            | SourceInput::CaptureFailed(_)
            | SourceInput::Scanned { .. }
            | SourceInput::Sent(_)
            | SourceInput::Reconnected
            | SourceInput::ReconnectFailed(_)
            | SourceInput::Unscanned(_)
            | SourceInput::Listed { .. }
            | SourceInput::ListDone
            | SourceInput::Swept { .. }
            | SourceInput::RoundTaken => {}
        }
    }

    pub(super) fn in_capturing(&mut self, now: Instant, input: SourceInput) {
        match input {
            SourceInput::Captured { eager, lazy, kept } => {
                let lazy: RangeSet = lazy.into_iter().collect();
                let scan = Scan::new(&lazy, self.config.scan_bytes);
                let queue = SendQueue::new(&eager, lazy, &kept);
                let serving = Serving { queue, scan, ..Serving::default() };
                self.enter(Phase::Switchover(serving), now);
                self.actions.push_back(SourceAction::SendSwitchover);
                self.fill_push_window();
            }
            SourceInput::CaptureFailed(failure)
            | SourceInput::Aborted(failure)
            | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline(now, "stop of every thread"),
            SourceInput::Reserved(_)
            | SourceInput::Ready
            | SourceInput::Running { .. }
            | SourceInput::PageRequested(_)
            | SourceInput::Drained => self.fail(Failure::Protocol("an answer before its question")),
            SourceInput::Connected
            | SourceInput::Scanned { .. }
            | SourceInput::Sent(_)
            | SourceInput::Reconnected
            | SourceInput::ReconnectFailed(_)
            | SourceInput::Unscanned(_)
            | SourceInput::Listed { .. }
            | SourceInput::ListDone
            | SourceInput::Swept { .. }
            | SourceInput::RoundTaken => {}
        }
    }

    pub(super) fn in_switchover(&mut self, now: Instant, input: SourceInput) {
        match input {
            SourceInput::Ready => self.ready(),
            SourceInput::PageRequested(pages) => self.answer(now, pages),
            SourceInput::Sent(channel) => {
                // The deadline is for a standstill: eager pages may be many.
                self.since = now;
                self.sent(channel);
            }
            SourceInput::CaptureFailed(failure)
            | SourceInput::Aborted(failure)
            | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline(now, "readiness of the destination"),
            SourceInput::Reserved(_) | SourceInput::Running { .. } | SourceInput::Drained => {
                self.fail(Failure::Protocol("an answer before its question"));
            }
            SourceInput::Connected
            | SourceInput::Captured { .. }
            | SourceInput::Scanned { .. }
            | SourceInput::Reconnected
            | SourceInput::ReconnectFailed(_)
            | SourceInput::Unscanned(_)
            | SourceInput::Listed { .. }
            | SourceInput::ListDone
            | SourceInput::Swept { .. }
            | SourceInput::RoundTaken => {}
        }
    }

    pub(super) fn in_committing(&mut self, now: Instant, input: SourceInput) {
        match input {
            SourceInput::PageRequested(pages) => self.answer(now, pages),
            SourceInput::Sent(channel) => self.sent(channel),
            SourceInput::CaptureFailed(failure)
            | SourceInput::Aborted(failure)
            | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline(now, "switchover"),
            SourceInput::Reserved(_)
            | SourceInput::Ready
            | SourceInput::Running { .. }
            | SourceInput::Drained => {
                self.fail(Failure::Protocol("an answer before its question"));
            }
            SourceInput::Connected
            | SourceInput::Captured { .. }
            | SourceInput::Scanned { .. }
            | SourceInput::Reconnected
            | SourceInput::ReconnectFailed(_)
            | SourceInput::Unscanned(_)
            | SourceInput::Listed { .. }
            | SourceInput::ListDone
            | SourceInput::Swept { .. }
            | SourceInput::RoundTaken => {}
        }
    }

    pub(super) fn in_postcopy(&mut self, now: Instant, input: SourceInput) {
        match input {
            SourceInput::Running { patience_s } => self.running(now, patience_s),
            SourceInput::PageRequested(pages) => self.answer(now, pages),
            SourceInput::Scanned { scanned, data } => self.scanned(scanned, &data),
            SourceInput::Sent(channel) => self.sent(channel),
            SourceInput::Drained => {
                self.enter(Phase::Completed, now);
                self.end(None);
            }
            SourceInput::Aborted(failure) => self.aborted(failure),
            SourceInput::Broken(failure) => self.broken(now, failure),
            SourceInput::Unscanned(pages) => self.list(|queue| queue.unscanned(pages)),
            SourceInput::Listed { arrived, pages } => self.list(|queue| queue.listed(arrived, &pages)),
            SourceInput::ListDone => self.list_done(),
            SourceInput::Tick if self.is_silent(now) => {
                self.broken(now, Failure::Deadline("sign of life from the destination"));
            }
            SourceInput::Tick => {
                self.end_head_start(now);
                self.go_on();
            }
            SourceInput::Reserved(_) | SourceInput::Ready => {
                self.fail(Failure::Protocol("an answer that was given before"));
            }
            SourceInput::Connected
            | SourceInput::Captured { .. }
            | SourceInput::CaptureFailed(_)
            | SourceInput::Reconnected
            | SourceInput::ReconnectFailed(_)
            | SourceInput::Swept { .. }
            | SourceInput::RoundTaken => {}
        }
    }

    pub(super) fn in_pause(&mut self, now: Instant, input: SourceInput) {
        match input {
            SourceInput::Reconnected => self.reconnected(),
            SourceInput::ReconnectFailed(failure) => self.reconnect_failed(now, failure),
            SourceInput::Tick => self.tick_in_pause(now),
            SourceInput::Connected
            | SourceInput::Reserved(_)
            | SourceInput::Captured { .. }
            | SourceInput::CaptureFailed(_)
            | SourceInput::Ready
            | SourceInput::Running { .. }
            | SourceInput::PageRequested(_)
            | SourceInput::Scanned { .. }
            | SourceInput::Sent(_)
            | SourceInput::Drained
            | SourceInput::Aborted(_)
            | SourceInput::Broken(_)
            | SourceInput::Unscanned(_)
            | SourceInput::Listed { .. }
            | SourceInput::ListDone
            | SourceInput::Swept { .. }
            | SourceInput::RoundTaken => {}
        }
    }
}
