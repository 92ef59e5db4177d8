//! A lost link behind `Run`, and what it takes to go on over a new one.

use core::time::Duration;

use super::head_start::HeadStart;
use super::scan::Scan;
use super::send_queue::SendQueue;
use super::{Patience, Phase, Serving, Source, SourceAction};
use crate::{Failure, Instant};

/// A post-copy without a link.
#[derive(Clone, Debug)]
pub(super) struct Pause {
    serving: Serving,
    /// When to connect again; none while that is under way.
    retry: Option<Instant>,
    /// From the next failed attempt to the one after it.
    delay: Duration,
    /// When to give up; never, as long as nobody here knows who runs the process.
    until: Option<Instant>,
}

impl Pause {
    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.retry.into_iter().chain(self.until).min()
    }
}

impl Source {
    /// The process lives at the destination: whatever happens, it never runs here again.
    pub(super) fn running(&mut self, seconds: u16) {
        let (now, config) = (self.now, self.config);
        if let Some(serving) = self.serving() {
            serving.patience = Some(Patience { seconds });
            serving.head_start.begin(now, &config);
        }
        self.actions.push_back(SourceAction::SendReport);
    }

    /// The destination gives its word that it never runs the process. It is of no use if it has run it before.
    pub(super) fn aborted(&mut self, failure: Failure) {
        if self.serving().is_some_and(|serving| serving.patience.is_some()) {
            return self.fail(failure);
        }
        self.urgent.clear();
        self.actions.clear();
        self.enter(Phase::Cancelled, self.since);
        self.actions.push_back(SourceAction::Release(failure));
    }

    /// Something is wrong behind `Run`. What may be the link's fault is put right over a new one.
    pub(super) fn broken(&mut self, failure: Failure) {
        match failure {
            Failure::LinkLost(_) | Failure::Deadline(_) | Failure::Protocol(_) => self.pause(),
            Failure::Peer(_) | Failure::Local(_) | Failure::ProcessGone => self.fail(failure),
        }
    }

    fn pause(&mut self) {
        let now = self.now;
        let Some(serving) = self.serving().map(core::mem::take) else { return };
        self.urgent.clear();
        self.actions.clear();
        let until = self.until(serving.patience);
        let delay = self.config.reconnect_delay;
        self.enter(Phase::Paused(Pause { serving, retry: Some(now + delay), delay, until }), now);
    }

    /// For how long a new connection is worth while, from now on; `None` for as long as it takes.
    fn until(&self, patience: Option<Patience>) -> Option<Instant> {
        let seconds = patience.map(|patience| patience.seconds).filter(|seconds| *seconds > 0)?;
        Some(self.now + Duration::from_secs(u64::from(seconds)) + self.config.recovery_grace)
    }

    /// The process lives at the destination, says a connection that was given up already.
    pub(super) fn running_in_pause(&mut self, seconds: u16) {
        let patience = Some(Patience { seconds });
        let until = self.until(patience);
        if let Phase::Paused(pause) = &mut self.phase {
            (pause.serving.patience, pause.until) = (patience, until);
        }
    }

    pub(super) fn is_silent(&self) -> bool {
        self.heard + self.config.silence_deadline <= self.now
    }

    pub(super) fn tick_in_pause(&mut self) {
        let now = self.now;
        let Phase::Paused(pause) = &mut self.phase else { return };
        if pause.until.is_some_and(|until| until <= now) {
            self.fail(Failure::Deadline("new connection to the destination"));
        } else if pause.retry.is_some_and(|retry| retry <= now) {
            pause.retry = None;
            self.actions.push_back(SourceAction::Reconnect);
        }
    }

    /// A refusal in the destination's own words ends it: the process is not there any more. Unless nobody here knows
    /// whether it ever was: then it takes a reason from here, the word of whoever does know that it never will be.
    pub(super) fn reconnect_failed(&mut self, failure: Failure) {
        let longest = self.config.reconnect_delay_longest;
        let Phase::Paused(pause) = &mut self.phase else { return };
        let is_known = pause.serving.patience.is_some();
        if is_known && matches!(failure, Failure::Peer(_)) {
            return self.fail(failure);
        }
        if !is_known && matches!(failure, Failure::Local(_)) {
            return self.aborted(failure);
        }
        let retry = self.now + pause.delay;
        pause.retry = Some(retry);
        // Twice as long, by way of instants: a `Duration` that overflows panics, and says so by `core::fmt`.
        pause.delay = (retry + pause.delay).since(self.now).min(longest);
    }

    /// Serves requests again; pushes and scans when the destination has told what it lacks.
    pub(super) fn reconnected(&mut self) {
        let Phase::Paused(pause) = &mut self.phase else { return };
        let mut serving = core::mem::take(&mut pause.serving);
        serving.queue.forget_sent();
        serving.unsent = 0;
        serving.head_start = HeadStart::Over;
        (serving.page_map_done, serving.push_done, serving.is_listing) = (false, false, true);
        self.enter(Phase::Postcopy(serving), self.since);
    }

    /// Takes a part of what the destination lacks.
    pub(super) fn list(&mut self, note: impl FnOnce(&mut SendQueue) -> bool) {
        let noted =
            self.serving().filter(|serving| serving.is_listing).map(|serving| note(&mut serving.queue));
        if noted != Some(true) {
            self.fail(Failure::Protocol("a list of pages that are not served"));
        }
    }

    pub(super) fn list_done(&mut self) {
        let piece_bytes = self.config.scan_bytes;
        if let Some(serving) = self.serving().filter(|serving| serving.is_listing) {
            serving.is_listing = false;
            serving.scan = Scan::new(&serving.queue.take_unscanned(), piece_bytes);
        }
        self.go_on();
    }
}
