//! What each input does in each phase. Phases and inputs are in the order in which a migration sees them.

use core::time::Duration;

use memory::RangeSet;

use super::scan::Scan;
use super::send_queue::SendQueue;
use super::{Phase, Serving, Source, SourceAction, SourceInput};
use crate::Failure;

impl Source {
    pub(super) fn in_setup(&mut self, input: SourceInput) {
        match input {
            SourceInput::Connected => {
                self.enter(Phase::Reserving, self.since);
                self.actions.push_back(SourceAction::SendReserve);
            }
            SourceInput::Aborted(failure) | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline("connection"),
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

    pub(super) fn in_reserving(&mut self, input: SourceInput) {
        match input {
            SourceInput::Reserved(plan) => self.reserved(plan),
            SourceInput::Aborted(failure) | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline("reservation"),
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

    pub(super) fn in_capturing(&mut self, input: SourceInput) {
        match input {
            SourceInput::Captured { eager, lazy, kept, content } => {
                self.grace = Duration::from_secs(content / self.config.content_rate.max(1));
                let lazy: RangeSet = lazy.into_iter().collect();
                let scan = Scan::new(&lazy, self.config.scan_bytes);
                let queue = SendQueue::new(&eager, lazy, &kept);
                let serving = Serving { queue, scan, ..Serving::default() };
                self.enter(Phase::Switchover(serving), self.now);
                self.actions.push_back(SourceAction::SendSwitchover);
                self.fill_push_window();
            }
            SourceInput::CaptureFailed(failure)
            | SourceInput::Aborted(failure)
            | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline("stop of every thread"),
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

    pub(super) fn in_switchover(&mut self, input: SourceInput) {
        match input {
            SourceInput::Ready => self.ready(),
            SourceInput::PageRequested(pages) => self.answer(pages),
            SourceInput::Sent(channel) => {
                // The deadline is for a standstill: eager pages may be many.
                self.since = self.now;
                self.sent(channel);
            }
            SourceInput::CaptureFailed(failure)
            | SourceInput::Aborted(failure)
            | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline("readiness of the destination"),
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

    pub(super) fn in_committing(&mut self, input: SourceInput) {
        match input {
            SourceInput::PageRequested(pages) => self.answer(pages),
            SourceInput::Sent(channel) => self.sent(channel),
            SourceInput::CaptureFailed(failure)
            | SourceInput::Aborted(failure)
            | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick => self.check_deadline("switchover"),
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

    pub(super) fn in_postcopy(&mut self, input: SourceInput) {
        match input {
            SourceInput::Running { patience_s } => self.running(patience_s),
            SourceInput::PageRequested(pages) => self.answer(pages),
            SourceInput::Scanned { scanned, data } => self.scanned(scanned, &data),
            SourceInput::Sent(channel) => self.sent(channel),
            SourceInput::Drained => {
                self.enter(Phase::Completed, self.now);
                self.end(None);
            }
            SourceInput::Aborted(failure) => self.aborted(failure),
            SourceInput::Broken(failure) => self.broken(failure),
            SourceInput::Unscanned(pages) => self.list(|queue| queue.unscanned(pages)),
            SourceInput::Listed { arrived, pages } => self.list(|queue| queue.listed(arrived, &pages)),
            SourceInput::ListDone => self.list_done(),
            SourceInput::Tick if self.is_silent() => {
                self.broken(Failure::Deadline("sign of life from the destination"));
            }
            SourceInput::Tick => self.go_on(),
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

    pub(super) fn in_pause(&mut self, input: SourceInput) {
        match input {
            SourceInput::Reconnected => self.reconnected(),
            SourceInput::ReconnectFailed(failure) => self.reconnect_failed(failure),
            SourceInput::Tick => self.tick_in_pause(),
            SourceInput::Running { patience_s } => self.running_in_pause(patience_s),
            SourceInput::Connected
            | SourceInput::Reserved(_)
            | SourceInput::Captured { .. }
            | SourceInput::CaptureFailed(_)
            | SourceInput::Ready
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
