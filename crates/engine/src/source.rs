//! The source's state machine.
//!
//! ```text
//! Setup ─Connected─► Reserving ─Reserved─► (Precopy ─►) Capturing ─Captured─► Switchover ─Ready─► Committing
//!   └────────────────────┴──── any failure ───┴──► Cancelled ◄───────┴────────────────────┤
//!                                            ▲                         `SendRun` handed out ▼
//!                     the destination aborts └──── not heard that it runs ──── Postcopy ─Drained─► Completed
//!                                                                  link lost ▼ ▲ reconnected
//!                                                       Failed ◄─deadline─ Paused
//! ```
//!
//! From `SendRun` until it hears `Running` the source is in doubt: only the destination knows who runs the process.
//! It stays stopped and asks again, for as long as it takes; a destination that has promised never to run it gives
//! it back.

mod action;
mod head_start;
mod input;
mod phases;
mod precopy;
mod recovery;
mod scan;
mod send_queue;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use memory::PageRange;
use protocol::{Channel, MAX_PAGES_PER_FRAME};

pub use action::SourceAction;
pub use input::SourceInput;

use crate::ranges::are_ascending_runs;
use crate::{Config, Failure, Instant, Plan};
use head_start::HeadStart;
use precopy::{Pace, Precopy};
use recovery::Pause;
use scan::{Scan, WrongScan};
use send_queue::SendQueue;

/// The epoch of a migration's first `Run`.
const FIRST_EPOCH: u64 = 1;

/// The source of one migration.
#[derive(Clone, Debug)]
pub struct Source {
    config: Config,
    plan: Plan,
    phase: Phase,
    now: Instant,
    pace: Pace,
    /// When the phase began, as far as a deadline counts from there.
    since: Instant,
    /// What the destination is granted on top for the content of memory objects.
    grace: Duration,
    /// When the other side last gave a sign of life.
    heard: Instant,
    /// Until when the last page request counts as one of many.
    fire_until: Instant,
    /// Answers to page requests: handed out before all else.
    urgent: VecDeque<SourceAction>,
    actions: VecDeque<SourceAction>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Waits for the connections.
    Setup,
    /// The process runs; the destination looks whether it can have everything.
    Reserving,
    /// The process runs, and its pages go ahead.
    Precopy(Precopy),
    /// The process is being stopped.
    Capturing,
    /// Eager pages go out; the destination builds.
    Switchover(Serving),
    /// `SendRun` waits to be handed out: the last moment at which the process can be taken back.
    Committing(Serving),
    /// The process lives elsewhere; its pages follow.
    Postcopy(Serving),
    /// The same, behind a link that is lost.
    Paused(Pause),
    /// The destination has everything.
    Completed,
    /// The process goes on here.
    Cancelled,
    /// The process lives elsewhere, or nowhere.
    Failed,
}

/// What it takes to serve the pages of the stopped process.
#[derive(Clone, Debug, Default)]
struct Serving {
    queue: SendQueue,
    scan: Scan,
    /// Push frames that have not left the process's memory.
    unsent: u32,
    page_map_done: bool,
    push_done: bool,
    head_start: HeadStart,
    /// What the destination has said of itself, once it runs the process.
    patience: Option<Patience>,
    /// A new link stands, and the destination still tells what it lacks: nothing is pushed.
    is_listing: bool,
}

/// How long the destination waits behind a lost link.
#[derive(Clone, Copy, Debug)]
struct Patience {
    seconds: u16,
}

impl Source {
    /// A source that waits for [`SourceInput::Connected`].
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            plan: Plan::default(),
            phase: Phase::Setup,
            now,
            pace: Pace::default(),
            since: now,
            grace: Duration::ZERO,
            heard: now,
            fire_until: now,
            urgent: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes one input; actions come out of [`Self::poll_action`]. An input that has lost its meaning, such as the
    /// answer to an action that a failure has overtaken, changes nothing.
    pub fn handle(&mut self, now: Instant, input: SourceInput) {
        self.now = now;
        match &input {
            SourceInput::Tick | SourceInput::ReconnectFailed(_) => {}
            SourceInput::Connected
            | SourceInput::Reserved(_)
            | SourceInput::Swept { .. }
            | SourceInput::RoundTaken
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
            | SourceInput::Reconnected
            | SourceInput::Unscanned(_)
            | SourceInput::Listed { .. }
            | SourceInput::ListDone => self.heard = now,
        }
        match self.phase {
            Phase::Setup => self.in_setup(input),
            Phase::Reserving => self.in_reserving(input),
            Phase::Precopy(_) => self.in_precopy(input),
            Phase::Capturing => self.in_capturing(input),
            Phase::Switchover(_) => self.in_switchover(input),
            Phase::Committing(_) => self.in_committing(input),
            Phase::Postcopy(_) => self.in_postcopy(input),
            Phase::Paused(_) => self.in_pause(input),
            Phase::Completed | Phase::Cancelled | Phase::Failed => {}
        }
    }

    /// The next thing to do; call until `None`. `SendRun` is the point of no return: from the moment when it is
    /// handed out, the process never runs here again, unless the destination gives its word that it never will.
    pub fn poll_action(&mut self) -> Option<SourceAction> {
        if let Some(answer) = self.urgent.pop_front() {
            return Some(answer);
        }
        let action = self.actions.pop_front()?;
        if matches!(action, SourceAction::SendRun { .. }) {
            self.commit();
        }
        Some(action)
    }

    /// When to hand in [`SourceInput::Tick`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Setup | Phase::Reserving => Some(self.since + self.config.setup_deadline),
            Phase::Precopy(_) => Some(self.when_paced(self.heard + self.config.silence_deadline)),
            Phase::Capturing | Phase::Switchover(_) | Phase::Committing(_) => {
                Some(self.since + self.config.switchover_deadline + self.grace)
            }
            Phase::Postcopy(ref serving) => {
                let silence = self.when_paced(self.heard + self.config.silence_deadline);
                Some(serving.head_start.due().map_or(silence, |due| due.min(silence)))
            }
            Phase::Paused(ref pause) => pause.due(),
            Phase::Completed | Phase::Cancelled | Phase::Failed => None,
        }
    }

    /// Whether the process may run here: true until `Run` is handed out, and when the destination has given it back.
    #[must_use]
    pub const fn may_still_run_here(&self) -> bool {
        match self.phase {
            Phase::Setup
            | Phase::Reserving
            | Phase::Precopy(_)
            | Phase::Capturing
            | Phase::Switchover(_)
            | Phase::Committing(_)
            | Phase::Cancelled => true,
            Phase::Postcopy(_) | Phase::Paused(_) | Phase::Completed | Phase::Failed => false,
        }
    }

    /// One word for the phase, for logs.
    #[must_use]
    pub const fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Setup => "setup",
            Phase::Reserving => "reserving",
            Phase::Precopy(_) => "precopy",
            Phase::Capturing => "capturing",
            Phase::Switchover(_) => "switchover",
            Phase::Committing(_) => "committing",
            Phase::Postcopy(_) => "postcopy",
            Phase::Paused(_) => "paused",
            Phase::Completed => "completed",
            Phase::Cancelled => "cancelled",
            Phase::Failed => "failed",
        }
    }

    /// The only place where the phase changes.
    fn enter(&mut self, phase: Phase, since: Instant) {
        self.since = since;
        self.phase = phase;
    }

    fn ready(&mut self) {
        match self.serving().filter(|serving| serving.queue.is_empty()).map(core::mem::take) {
            Some(serving) => {
                self.enter(Phase::Committing(serving), self.since);
                self.actions.push_back(SourceAction::SendRun { epoch: FIRST_EPOCH });
            }
            None => self.fail(Failure::Protocol("readiness before the last eager page")),
        }
    }

    /// `SendRun` leaves the machine.
    fn commit(&mut self) {
        if let Some(mut serving) = self.serving().map(core::mem::take) {
            serving.head_start = HeadStart::new(&self.config);
            self.enter(Phase::Postcopy(serving), self.since);
            self.go_on();
        }
    }

    /// Before `Run`: the process goes on here. After it: never.
    fn fail(&mut self, failure: Failure) {
        self.urgent.clear();
        self.actions.clear();
        match self.phase {
            Phase::Setup => {
                self.enter(Phase::Cancelled, self.since);
                self.actions.push_back(SourceAction::Release(failure));
            }
            Phase::Reserving
            | Phase::Precopy(_)
            | Phase::Capturing
            | Phase::Switchover(_)
            | Phase::Committing(_) => {
                self.enter(Phase::Cancelled, self.since);
                self.actions.push_back(SourceAction::SendCancel(failure.clone()));
                self.actions.push_back(SourceAction::Release(failure));
            }
            Phase::Postcopy(_) | Phase::Paused(_) => {
                self.enter(Phase::Failed, self.since);
                self.end(Some(failure));
            }
            Phase::Completed | Phase::Cancelled | Phase::Failed => {}
        }
    }

    fn end(&mut self, failure: Option<Failure>) {
        self.urgent.clear();
        self.actions.clear();
        if failure.is_none() {
            self.actions.push_back(SourceAction::SendReport);
        }
        self.actions.push_back(SourceAction::End(failure));
    }

    fn check_deadline(&mut self, awaited: &'static str) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= self.now) {
            self.fail(Failure::Deadline(awaited));
        }
    }

    fn serving(&mut self) -> Option<&mut Serving> {
        match &mut self.phase {
            Phase::Switchover(serving) | Phase::Committing(serving) | Phase::Postcopy(serving) => {
                Some(serving)
            }
            Phase::Setup
            | Phase::Reserving
            | Phase::Precopy(_)
            | Phase::Capturing
            | Phase::Paused(_)
            | Phase::Completed
            | Phase::Cancelled
            | Phase::Failed => None,
        }
    }

    fn answer(&mut self, pages: PageRange) {
        let (now, config) = (self.now, self.config);
        self.fire_until = now + self.config.under_fire;
        if let Some(serving) = self.serving() {
            serving.head_start.prolong(now, &config);
        }
        let fits = pages.pages() <= MAX_PAGES_PER_FRAME;
        // Out of the way for as long as the queue is borrowed.
        let mut urgent = core::mem::take(&mut self.urgent);
        let serving = self.serving().filter(|_| fits);
        if !serving.is_some_and(|serving| serving.queue.answer(pages, &mut urgent)) {
            self.fail(Failure::Protocol("a request for pages that are not served"));
            return;
        }
        self.urgent = urgent;
        self.go_on();
    }

    fn sent(&mut self, channel: Channel) {
        if let (Channel::Push, Some(serving)) = (channel, self.serving()) {
            serving.unsent = serving.unsent.saturating_sub(1);
        }
        self.go_on();
    }

    fn scanned(&mut self, scanned: PageRange, data: &[PageRange]) {
        let Some(serving) = self.serving() else { return };
        let noted = serving.scan.done(scanned, !data.is_empty());
        if noted == Err(WrongScan) || !are_ascending_runs(data, scanned) {
            self.fail(Failure::Local(String::from(
                "a scan answered for another range than it was asked for",
            )));
            return;
        }
        serving.queue.scanned(scanned, data);
        self.send_page_maps(scanned, data);
        self.go_on();
    }

    /// Hands the scan's result over in messages of bounded length, each for a part of `scanned` of its own.
    fn send_page_maps(&mut self, scanned: PageRange, data: &[PageRange]) {
        let mut rest = scanned;
        let mut runs = data;
        while runs.len() > self.config.page_map_runs.max(1) {
            let (now, later) = runs.split_at(self.config.page_map_runs.max(1));
            let until = now.last().map_or(rest.end(), |run| run.end());
            let (part, behind) = rest.split_at_pages((until.0 - rest.start().0) / memory::PAGE_SIZE);
            self.actions.push_back(SourceAction::SendPageMap { scanned: part, data: now.to_vec() });
            (rest, runs) = (behind, later);
        }
        self.actions.push_back(SourceAction::SendPageMap { scanned: rest, data: Vec::from(runs) });
    }

    /// Keeps the push window full and, after `Run`, one scan under way; says when either has come to its end.
    fn go_on(&mut self) {
        let now = self.now;
        if self.serving().is_some_and(|serving| !serving.head_start.is_over(now)) {
            return;
        }
        self.fill_push_window();
        let Phase::Postcopy(serving) = &mut self.phase else { return };
        if serving.is_listing {
            return;
        }
        if !serving.page_map_done && serving.scan.is_complete() {
            serving.page_map_done = true;
            self.actions.push_back(SourceAction::SendPageMapDone);
        }
        if let Some(piece) = serving.scan.next() {
            self.actions.push_back(SourceAction::Scan(piece));
        }
        let all_pushed = serving.page_map_done && serving.queue.is_empty() && serving.unsent == 0;
        if all_pushed && !serving.push_done {
            serving.push_done = true;
            // Whatever is asked for from here on did not arrive, or not in time.
            serving.queue.forget_pushed();
            self.actions.push_back(SourceAction::SendPushDone);
        }
    }

    /// Whether pages have been asked for just now: more will be.
    #[must_use]
    pub fn is_under_fire(&self) -> bool {
        self.now < self.fire_until
    }

    fn most_pushed(&self) -> u64 {
        match self.config.push_pages {
            0 => MAX_PAGES_PER_FRAME,
            pages => pages.min(MAX_PAGES_PER_FRAME),
        }
    }

    /// `deadline`, or when the next page may go out, whichever is first.
    fn when_paced(&self, deadline: Instant) -> Instant {
        self.pace.due(self.now).map_or(deadline, |due| due.min(deadline))
    }

    fn fill_push_window(&mut self) {
        let (window, most) = (self.config.push_window.max(1), self.most_pushed());
        let (now, bandwidth) = (self.now, self.plan.bandwidth);
        // While the process stands still there is no time to be lost.
        let is_paced = matches!(self.phase, Phase::Postcopy(_));
        while (!is_paced || self.pace.is_due(now))
            && let Some(serving) =
                self.serving().filter(|serving| !serving.is_listing && serving.unsent < window)
            && let Some(pages) = serving.queue.next(most)
        {
            serving.unsent += 1;
            if is_paced {
                serving.queue.pushed(pages);
            }
            self.pace.count(now, pages, bandwidth);
            self.actions.push_back(SourceAction::SendPages { channel: Channel::Push, pages });
        }
    }
}
