//! The source's state machine.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use memory::PageRange;
use protocol::Channel;

use crate::{Config, Failure, Instant};

/// What can happen to the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceInput {
    /// The three channels are open and welcomed; the manifest of the running process is captured.
    Connected,
    /// `Reserved` received: the destination can have everything.
    Reserved,
    /// Every thread stands still and the final manifest is captured.
    Captured {
        /// Pages that must arrive before `Ready`.
        eager: Vec<PageRange>,
        /// Ranges whose pages come after `Run`.
        lazy: Vec<PageRange>,
    },
    /// Parking or capturing did not work; the process may still be parked in part.
    CaptureFailed(Failure),
    /// `Ready` received.
    Ready,
    /// `Running` received.
    Running,
    /// `PageRequest` received.
    PageRequested(PageRange),
    /// The scan that was asked for is done.
    Scanned {
        /// What was scanned.
        scanned: PageRange,
        /// Pages of it that hold data, ascending runs.
        data: Vec<PageRange>,
    },
    /// A `SendPages` on this channel has left the process's memory: the next one may be made.
    Sent(Channel),
    /// `Drained` received.
    Drained,
    /// `Refused`, `Abort` or `Failed` received, a connection ended, or a frame made no sense.
    Broken(Failure),
    /// Time has passed; see [`Source::poll_timeout`].
    Tick,
}

/// What the source has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceAction {
    /// Send `Reserve` with the manifest.
    SendReserve,
    /// Park every thread and capture the final manifest; answer `Captured` or `CaptureFailed`.
    Capture,
    /// Send `Switchover` with the final manifest.
    SendSwitchover,
    /// Read these pages and send them; answer `Sent` once the socket has taken them.
    SendPages {
        /// On which channel.
        channel: Channel,
        /// At most `MAX_PAGES_PER_FRAME` pages.
        pages: PageRange,
    },
    /// Send `ZeroPages`: these pages hold nothing.
    SendZero {
        /// On which channel.
        channel: Channel,
        /// Which pages.
        pages: PageRange,
    },
    /// Send `Run` with this epoch: the point of no return.
    SendRun {
        /// Counts the moves of this migration id; 1 for the first.
        epoch: u64,
    },
    /// Look which pages of this range hold data; answer `Scanned`.
    Scan(PageRange),
    /// Send `PageMap`.
    SendPageMap {
        /// What was scanned.
        scanned: PageRange,
        /// Pages of it that hold data.
        data: Vec<PageRange>,
    },
    /// Send `PageMapDone`.
    SendPageMapDone,
    /// Send `PushDone`.
    SendPushDone,
    /// Send `SourceReport`.
    SendReport,
    /// Send `Cancel` if the link still stands.
    SendCancel(Failure),
    /// Let every thread go on as if nothing had happened, close the channels, say why. Final.
    Release(Failure),
    /// The process lives elsewhere (or is lost, with the failure): end this one. Final.
    End(Option<Failure>),
}

/// The source of one migration.
#[derive(Clone, Debug)]
pub struct Source {
    config: Config,
    actions: VecDeque<SourceAction>,
}

impl Source {
    /// A source that waits for [`SourceInput::Connected`].
    #[must_use]
    pub fn new(config: Config, _now: Instant) -> Self {
        Self { config, actions: VecDeque::new() }
    }

    /// Takes one input; actions come out of [`Self::poll_action`].
    pub fn handle(&mut self, _now: Instant, _input: SourceInput) {
        let _ = self.config;
    }

    /// The next thing to do; call until `None`.
    pub fn poll_action(&mut self) -> Option<SourceAction> {
        self.actions.pop_front()
    }

    /// When to hand in [`SourceInput::Tick`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Whether the process may still run here: true until `Run` is handed out.
    #[must_use]
    pub fn may_still_run_here(&self) -> bool {
        true
    }
}
