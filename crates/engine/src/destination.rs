//! The destination's state machine.
//!
//! ```text
//! Setup ─Reserve─► Reserving ─Reserved─► Reserved ─Switchover─► Listening ─eager, assembled─► Ready ─Run─► Resuming
//!   └───────────────────┴──── any failure ───┴──► Aborted ◄─────────┴──────────────────────────┘             │
//!                                                                                                       Resumed
//!                             Completed ◄─ nothing wanted ─ Postcopy ◄───────────────────────────────────────┘
//!                                 ▲                  link lost ▼ ▲ reconnected
//!                                 ├── nothing wanted ──────── Paused ─ deadline: killed ─► Completed
//!                                 │                            ▼ deadline, or any other failure of `Postcopy`
//!                                 └── all poisoned ────────── Lost
//! ```
//!
//! In `Reserved` pages may come ahead of the switchover.

mod action;
mod ahead;
mod ending;
mod fault_table;
mod input;
mod page_map;
mod phases;
mod prefetch;
mod recovery;
mod space;
mod work;

use alloc::collections::VecDeque;
use core::time::Duration;

pub use action::DestinationAction;
pub use input::{Content, DestinationInput, InstallOutcome, Place, SpaceId};

use crate::report::{Progress, Report};
use crate::{Config, Failure, Instant, OnLoss};
use ahead::Ahead;
use page_map::{Desk, PageMap};

/// The destination of one migration.
#[derive(Clone, Debug)]
pub struct Destination {
    config: Config,
    phase: Phase,
    report: Report,
    actions: VecDeque<DestinationAction>,
    now: Instant,
    started: Instant,
    /// When the phase began.
    since: Instant,
    /// When the source last gave a sign of life.
    heard: Instant,
    /// When `Switchover` was received.
    stopped: Instant,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Waits for `Reserve`.
    Setup,
    /// Looks whether everything can be had.
    Reserving,
    /// Everything can be had; the process still runs at the source.
    Reserved {
        /// As in [`Listening`].
        too_early: bool,
        /// What has come already.
        ahead: Ahead,
    },
    /// Builds the process; eager pages arrive as soon as the mappings stand.
    Listening(Listening),
    /// `Ready` is sent.
    Ready(PageMap),
    /// `Run` has come: the process lives here from now on, or nowhere.
    Resuming {
        pages: PageMap,
        /// The source was lost meanwhile.
        lost: Option<Failure>,
        push_done: bool,
        /// The source has connected again meanwhile, and has not been told what is lacking.
        reconnected: bool,
    },
    /// The process runs; its pages follow.
    Postcopy {
        pages: PageMap,
        /// When to ask for what the push has left out; after `PushDone`.
        leftovers: Option<Leftovers>,
    },
    /// The process runs; what it lacks is behind a link that is lost, for this reason.
    Paused { pages: PageMap, failure: Failure },
    /// The process runs; what it lacks will never come.
    Lost { pages: PageMap, failure: Failure },
    /// Nothing is missing, or nothing more can be done.
    Completed,
    /// The process never ran here and never will.
    Aborted,
}

/// When to ask for what the push has left out, and how long the wait was: it doubles from one time to the next.
#[derive(Clone, Copy, Debug)]
struct Leftovers {
    due: Instant,
    delay: Duration,
}

impl Leftovers {
    fn after(now: Instant, delay: Duration) -> Self {
        Self { due: now + delay, delay }
    }
}

#[derive(Clone, Debug)]
struct Listening {
    pages: PageMap,
    mapped: bool,
    /// `Assemble` is on its way.
    assembling: bool,
    /// A page frame came before there was a place for it.
    too_early: bool,
}

impl Destination {
    /// A destination that waits for [`DestinationInput::ReserveRequested`].
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            phase: Phase::Setup,
            report: Report::default(),
            actions: VecDeque::new(),
            now,
            started: now,
            since: now,
            heard: now,
            stopped: now,
        }
    }

    /// Takes one input; actions come out of [`Self::poll_action`]. An input that has lost its meaning, such as the
    /// answer to an action that a failure has overtaken, changes nothing.
    pub fn handle(&mut self, now: Instant, input: DestinationInput) {
        self.now = now;
        if input.is_from_source() {
            self.heard = now;
        }
        match self.phase {
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Listening(_)
            | Phase::Ready(_)
            | Phase::Resuming { .. }
            | Phase::Postcopy { .. }
            | Phase::Paused { .. } => self.act_on(input),
            Phase::Lost { .. } => self.act_on_when_lost(&input),
            Phase::Completed | Phase::Aborted => {}
        }
    }

    /// The next thing to do; call until `None`. Then the page frame in hand is done with.
    pub fn poll_action(&mut self) -> Option<DestinationAction> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if let Some(action) = self.with_pages(PageMap::next_action).flatten() {
                return Some(action);
            }
            self.finish_if_done();
            if self.actions.is_empty() {
                self.with_pages(|pages, _| pages.frame_is_done());
                return None;
            }
        }
    }

    /// Whether threads have been waiting for pages just now: between two pieces of what was pushed, the loop looks
    /// whether more of them do, and whether there is an answer for one.
    #[must_use]
    pub fn is_under_fire(&self) -> bool {
        self.pages().is_some_and(|pages| pages.is_under_fire(self.now, &self.config))
    }

    /// Whether content of files and memory objects may come.
    #[must_use]
    pub const fn takes_content(&self) -> bool {
        matches!(self.phase, Phase::Reserved { .. })
    }

    /// Whether page frames may be taken from the sockets: false until the mappings stand.
    #[must_use]
    pub const fn takes_pages(&self) -> bool {
        match &self.phase {
            Phase::Setup | Phase::Reserving => false,
            Phase::Reserved { ahead, .. } => self.config.takes_ahead && ahead.is_open(),
            Phase::Listening(listening) => listening.mapped,
            Phase::Ready(_)
            | Phase::Resuming { .. }
            | Phase::Postcopy { .. }
            | Phase::Paused { .. }
            | Phase::Lost { .. }
            | Phase::Completed
            | Phase::Aborted => true,
        }
    }

    /// Whether the word to run has come: before it, the process has not run here.
    #[must_use]
    pub const fn may_have_run(&self) -> bool {
        match self.phase {
            Phase::Resuming { .. }
            | Phase::Postcopy { .. }
            | Phase::Paused { .. }
            | Phase::Lost { .. }
            | Phase::Completed => true,
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Listening(_)
            | Phase::Ready(_)
            | Phase::Aborted => false,
        }
    }

    /// What is known so far; complete with [`DestinationAction::Complete`].
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Pages of files that are the same here and did not travel, for the report.
    pub const fn set_same_file_pages(&mut self, pages: u64) {
        self.report.pages.same_file = pages;
    }

    /// How far the pages have got.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let pages = self.pages();
        let counts = &self.report.pages;
        let done_pages = counts.data + counts.zero + counts.lost;
        Progress {
            done_pages,
            total_pages: done_pages + pages.map_or(0, PageMap::outstanding),
            total_is_known: pages.is_none_or(PageMap::is_scanned),
        }
    }

    /// Why the process waits for its source to connect again, if it does.
    #[must_use]
    pub const fn paused_because(&self) -> Option<&Failure> {
        match &self.phase {
            Phase::Paused { failure, .. } => Some(failure),
            Phase::Setup
            | Phase::Reserving
            | Phase::Reserved { .. }
            | Phase::Listening(_)
            | Phase::Ready(_)
            | Phase::Resuming { .. }
            | Phase::Postcopy { .. }
            | Phase::Lost { .. }
            | Phase::Completed
            | Phase::Aborted => None,
        }
    }

    /// One word for the phase, for logs.
    #[must_use]
    pub const fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Setup => "setup",
            Phase::Reserving => "reserving",
            Phase::Reserved { .. } => "reserved",
            Phase::Listening(_) => "listening",
            Phase::Ready(_) => "ready",
            Phase::Resuming { .. } => "resuming",
            Phase::Postcopy { .. } => "postcopy",
            Phase::Paused { .. } => "paused",
            Phase::Lost { .. } => "lost",
            Phase::Completed => "completed",
            Phase::Aborted => "aborted",
        }
    }

    /// When to hand in [`DestinationInput::Tick`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Setup | Phase::Reserving => Some(self.since + self.config.setup_deadline),
            Phase::Reserved { .. } => Some(self.since.max(self.heard) + self.config.setup_deadline),
            // It is the source that decides, and its word may be late: only a lost link says that none will come.
            Phase::Ready(_) => Some(self.since.max(self.heard) + self.config.silence_deadline),
            Phase::Listening(_) => Some(self.since.max(self.heard) + 2 * self.config.switchover_deadline),
            Phase::Resuming { .. } | Phase::Lost { .. } | Phase::Completed | Phase::Aborted => None,
            Phase::Paused { .. } => match self.config.on_loss {
                OnLoss::Wait => None,
                OnLoss::Poison | OnLoss::Kill => Some(self.since + self.config.recovery_deadline),
            },
            Phase::Postcopy { pages, leftovers } => {
                let since = pages.oldest_request().map_or(self.heard, |oldest| oldest.min(self.heard));
                let silence = since + self.config.silence_deadline;
                Some(leftovers.map_or(silence, |leftovers| leftovers.due.min(silence)))
            }
        }
    }

    fn pages(&self) -> Option<&PageMap> {
        match &self.phase {
            Phase::Listening(Listening { pages, .. })
            | Phase::Ready(pages)
            | Phase::Resuming { pages, .. }
            | Phase::Postcopy { pages, .. }
            | Phase::Paused { pages, .. }
            | Phase::Lost { pages, .. } => Some(pages),
            Phase::Setup | Phase::Reserving | Phase::Reserved { .. } | Phase::Completed | Phase::Aborted => {
                None
            }
        }
    }

    /// Does something with the pages, in the phases that have any.
    fn with_pages<R>(&mut self, act: impl FnOnce(&mut PageMap, &mut Desk<'_>) -> R) -> Option<R> {
        let pages = match &mut self.phase {
            Phase::Listening(Listening { pages, .. })
            | Phase::Ready(pages)
            | Phase::Resuming { pages, .. }
            | Phase::Postcopy { pages, .. }
            | Phase::Paused { pages, .. }
            | Phase::Lost { pages, .. } => pages,
            Phase::Setup | Phase::Reserving | Phase::Reserved { .. } | Phase::Completed | Phase::Aborted => {
                return None;
            }
        };
        let mut desk = Desk {
            now: self.now,
            config: &self.config,
            report: &mut self.report,
            actions: &mut self.actions,
        };
        Some(act(pages, &mut desk))
    }

    /// The only place where the phase changes. Returns how long the last one took.
    fn enter(&mut self, phase: Phase) -> Duration {
        let took = self.now.since(self.since);
        self.since = self.now;
        self.phase = phase;
        took
    }
}
