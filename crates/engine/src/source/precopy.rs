//! Pre-copy: rounds of pages while the process runs, until what is left is little or does not become less.
//!
//! ```text
//! Sweeping ─Swept─► Sending ─all sent─► Settling ─RoundTaken─► Sweeping
//!     └─ little is left, or no progress ─► capture
//! ```
//!
//! A page is in `sent` only if its bytes were read after the sweep that found it: whatever the process writes to it
//! from then on, the next sweep, or the capture, tells.

use memory::{Addr, PAGE_SIZE, PageRange, PageSet};

use super::{Phase, Source, SourceAction, SourceInput};
use crate::{Config, Failure, Instant, Plan};

/// Pages sent while the process runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Precopy {
    /// Found by the last sweep, and not yet sent.
    to_send: PageSet,
    /// At the destination as they were at the last sweep, or later.
    sent: PageSet,
    /// Push frames that have not left the process's memory.
    unsent: u32,
    step: Step,
    /// Rounds that have been sent.
    rounds: u32,
    /// Rounds in a row that left not much less than the one before.
    idle: u32,
    first_pages: u64,
    last_pages: u64,
    total_pages: u64,
    round_began: Instant,
    /// How long the last round took, in nanoseconds.
    last_took_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Step {
    /// A sweep is under way.
    #[default]
    Sweeping,
    /// Pages go out.
    Sending,
    /// All are out; the destination has not said that it has them.
    Settling,
}

impl Precopy {
    /// Takes what has changed since the last sweep.
    fn swept(&mut self, written: &[PageRange], lost: &[PageRange]) {
        for run in lost.iter().chain(written) {
            self.sent.remove(*run);
        }
        for run in written {
            self.to_send.insert(*run);
        }
    }

    /// The next run to send.
    fn next(&mut self, most: u64) -> Option<PageRange> {
        let run = self.to_send.next_run(Addr(0), most)?;
        self.to_send.remove(run);
        self.sent.insert(run);
        self.unsent += 1;
        Some(run)
    }

    /// Whether another round would gain nothing, or not enough.
    fn has_converged(&mut self, config: &Config, plan: &Plan) -> bool {
        if self.rounds == 0 {
            return false;
        }
        let left = self.to_send.len();
        let expected_ns = left.saturating_mul(self.last_took_ns) / self.last_pages.max(1);
        let within = |limit: core::time::Duration| u128::from(expected_ns) <= limit.as_nanos();
        let is_little = left <= config.precopy_rest_pages || within(config.precopy_rest);
        let makes_progress = left.saturating_mul(4) <= self.last_pages.saturating_mul(3);
        self.idle = if makes_progress { 0 } else { self.idle + 1 };
        if is_little || self.rounds >= config.precopy_rounds {
            return true;
        }
        if plan.follows {
            // A round that is worth it leaves about a quarter of itself, which is sent too.
            let in_all = self.total_pages.saturating_add(left).saturating_add(left / 4);
            return !makes_progress || in_all.saturating_mul(2) > self.first_pages.saturating_mul(3);
        }
        !makes_progress && (within(plan.max_downtime) || self.idle >= config.precopy_idle_rounds)
    }

    fn begin_round(&mut self, now: Instant) {
        self.step = Step::Sending;
        self.rounds += 1;
        self.last_pages = self.to_send.len();
        self.total_pages = self.total_pages.saturating_add(self.last_pages);
        if self.rounds == 1 {
            self.first_pages = self.last_pages;
        }
        self.round_began = now;
    }
}

impl Source {
    /// The destination can have everything: pages go ahead, or the process is stopped.
    pub(super) fn reserved(&mut self, plan: Plan) {
        self.plan = plan;
        if plan.ahead {
            self.enter(Phase::Precopy(Precopy::default()), self.now);
            self.actions.push_back(SourceAction::Sweep);
        } else {
            self.begin_capture(PageSet::new());
        }
    }

    fn begin_capture(&mut self, sent: PageSet) {
        self.enter(Phase::Capturing, self.now);
        self.actions.push_back(SourceAction::Capture { sent });
    }

    pub(super) fn in_precopy(&mut self, input: SourceInput) {
        match input {
            SourceInput::Swept { written, lost } => self.swept(&written, &lost),
            SourceInput::Sent(_) => {
                if let Phase::Precopy(precopy) = &mut self.phase {
                    precopy.unsent = precopy.unsent.saturating_sub(1);
                }
                self.go_on_ahead();
            }
            SourceInput::RoundTaken => self.round_taken(),
            SourceInput::Aborted(failure) | SourceInput::Broken(failure) => self.fail(failure),
            SourceInput::Tick if self.is_silent() => {
                self.fail(Failure::Deadline("sign of life from the destination"));
            }
            SourceInput::Tick => self.go_on_ahead(),
            SourceInput::Ready
            | SourceInput::Reserved(_)
            | SourceInput::Running { .. }
            | SourceInput::PageRequested(_)
            | SourceInput::Drained => self.fail(Failure::Protocol("an answer before its question")),
            SourceInput::Connected
            | SourceInput::Captured { .. }
            | SourceInput::CaptureFailed(_)
            | SourceInput::Scanned { .. }
            | SourceInput::Reconnected
            | SourceInput::ReconnectFailed(_)
            | SourceInput::Unscanned(_)
            | SourceInput::Listed { .. }
            | SourceInput::ListDone => {}
        }
    }

    fn swept(&mut self, written: &[PageRange], lost: &[PageRange]) {
        let Phase::Precopy(precopy) = &mut self.phase else { return };
        if precopy.step != Step::Sweeping {
            return;
        }
        precopy.swept(written, lost);
        if precopy.has_converged(&self.config, &self.plan) {
            let sent = core::mem::take(&mut precopy.sent);
            self.actions.push_back(SourceAction::SendRoundEnd { last: true });
            return self.begin_capture(sent);
        }
        precopy.begin_round(self.now);
        self.go_on_ahead();
    }

    fn round_taken(&mut self) {
        let Phase::Precopy(precopy) = &mut self.phase else { return };
        if precopy.step != Step::Settling {
            return self.fail(Failure::Protocol("a round was taken that was not sent"));
        }
        let took = self.now.since(precopy.round_began).as_nanos();
        precopy.last_took_ns = u64::try_from(took).unwrap_or(u64::MAX);
        precopy.step = Step::Sweeping;
        self.actions.push_back(SourceAction::Sweep);
    }

    /// Keeps the push window full; ends the round when everything is out.
    fn go_on_ahead(&mut self) {
        let (window, most) = (self.config.push_window.max(1), self.most_pushed());
        let Phase::Precopy(precopy) = &mut self.phase else { return };
        if precopy.step != Step::Sending {
            return;
        }
        while precopy.unsent < window
            && self.pace.is_due(self.now)
            && let Some(pages) = precopy.next(most)
        {
            self.pace.count(self.now, pages, self.plan.bandwidth);
            self.actions.push_back(SourceAction::SendPages { channel: protocol::Channel::Push, pages });
        }
        if precopy.to_send.is_empty() && precopy.unsent == 0 {
            precopy.step = Step::Settling;
            self.actions.push_back(SourceAction::SendRoundEnd { last: false });
        }
    }
}

/// When the next page may go out unasked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    next: Instant,
}

impl Pace {
    /// Whether one may now.
    pub(super) fn is_due(self, now: Instant) -> bool {
        self.next <= now
    }

    /// When one may, if that is later.
    pub(super) fn due(self, now: Instant) -> Option<Instant> {
        (!self.is_due(now)).then_some(self.next)
    }

    /// These pages go out.
    pub(super) fn count(&mut self, now: Instant, pages: PageRange, bandwidth: u64) {
        const SECOND_NS: u64 = 1_000_000_000;
        let bytes = pages.pages() * PAGE_SIZE;
        if let Some(takes_ns) = bytes.saturating_mul(SECOND_NS).checked_div(bandwidth) {
            self.next = Instant(self.next.max(now).0.saturating_add(takes_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether rounds are over, where the first one had 100,000 pages, `total` have been sent, 40,000 of them by the last
    /// round in a second, and `left` have been written since.
    fn ends(total: u64, left: u64) -> bool {
        let mut precopy = Precopy {
            rounds: 2,
            first_pages: 100_000,
            last_pages: 40_000,
            total_pages: total,
            last_took_ns: 1_000_000_000,
            ..Precopy::default()
        };
        precopy.to_send.insert(PageRange::from_pages(Addr(0), left).expect("a small range"));
        precopy.has_converged(&Config::default(), &Plan { ahead: true, follows: true, ..Plan::default() })
    }

    #[test]
    fn rounds_end_before_all_that_is_sent_is_more_than_one_and_a_half_times_the_memory() {
        assert!(!ends(120_000, 24_000), "it would come to 150,000");
        assert!(ends(121_000, 24_000), "what that round leaves is sent as well");
        assert!(ends(130_000, 24_000));
        assert!(ends(100_000, 31_000), "three quarters are no progress");
        assert!(ends(100_000, 64), "little is left");
    }
}
