//! The destination's state machine.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use memory::{Addr, PageRange};
use protocol::Channel;

use crate::{Config, Failure, Instant};

/// One address space of the migrated program: the process itself, or a child that it forked in post-copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpaceId(pub u32);

impl SpaceId {
    /// The migrated process itself.
    pub const MAIN: Self = Self(0);
}

/// What is known of some pages' bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The bytes are in the receive buffer.
    Data,
    /// All zero.
    Zero,
    /// The source could not read them.
    Lost,
}

/// How the installation of a run of pages ended. The first pages of a run may be done and the rest not:
/// the loop reports each part by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstallOutcome {
    /// The pages are there, waiters are awake.
    Installed,
    /// A page was there already; it is as good.
    AlreadyPresent,
    /// Nothing is mapped or registered there (any more). What is still wanted must be asked for again
    /// after the events in the queue have been handled.
    RangeGone,
    /// The address space is gone (exit or exec).
    SpaceGone,
}

/// What can happen to the destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DestinationInput {
    /// `Reserve` received.
    ReserveRequested,
    /// Everything asked for can be had.
    Reserved,
    /// `Switchover` received.
    SwitchoverRequested {
        /// Pages that must be in place before `Ready`.
        eager: Vec<PageRange>,
        /// Registered ranges: all their other pages come after `Run`.
        lazy: Vec<PageRange>,
    },
    /// Mappings stand and are registered.
    Mapped,
    /// Reserving or mapping did not work.
    PrepareFailed(Failure),
    /// `Pages`, `ZeroPages` or `LostPages` received; source addresses.
    PagesArrived {
        /// On which channel.
        channel: Channel,
        /// Which pages.
        pages: PageRange,
        /// What they hold.
        content: Content,
    },
    /// What became of an `Install`, in whole or in part; source addresses.
    Installed {
        /// Where.
        space: SpaceId,
        /// Which pages.
        pages: PageRange,
        /// How it ended.
        outcome: InstallOutcome,
    },
    /// `Run` received.
    Run {
        /// Its epoch.
        epoch: u64,
    },
    /// The threads have been let go.
    Resumed,
    /// `PageMap` received.
    PageMap {
        /// What was scanned.
        scanned: PageRange,
        /// Pages of it that hold data.
        data: Vec<PageRange>,
    },
    /// `PageMapDone` received.
    PageMapDone,
    /// `PushDone` received.
    PushDone,
    /// A thread touched a missing page; current address.
    Fault {
        /// In which space.
        space: SpaceId,
        /// The address touched.
        addr: Addr,
        /// Which thread, as its own PID namespace numbers it.
        thread: u32,
    },
    /// The program moved a range with `mremap`; current addresses.
    Remapped {
        /// In which space.
        space: SpaceId,
        /// Old place.
        from: PageRange,
        /// New place.
        to: Addr,
    },
    /// The program dropped the content of a range (`MADV_DONTNEED` and its kin); current addresses.
    Removed {
        /// In which space.
        space: SpaceId,
        /// Which pages.
        pages: PageRange,
    },
    /// The program unmapped a range; current addresses.
    Unmapped {
        /// In which space.
        space: SpaceId,
        /// Which pages.
        pages: PageRange,
    },
    /// The program forked.
    Forked {
        /// Who.
        parent: SpaceId,
        /// The id that the loop gave to the child.
        child: SpaceId,
    },
    /// An address space is gone: exit, exec or kill.
    SpaceGone(SpaceId),
    /// `Cancel` received, a connection ended, or a frame made no sense.
    Broken(Failure),
    /// Time has passed; see [`Destination::poll_timeout`].
    Tick,
}

/// What the destination has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DestinationAction {
    /// Reserve everything that the manifest asks for; answer `Reserved` or `PrepareFailed`.
    Reserve,
    /// Send `Reserved` with the verdicts.
    SendReserved,
    /// Build mappings, descriptors and threads of the final manifest, register; answer `Mapped` or `PrepareFailed`.
    Map,
    /// Send `Ready`.
    SendReady,
    /// Let every thread go; answer `Resumed`. After this the process has run here.
    Resume,
    /// Send `Running`.
    SendRunning,
    /// Send `PageRequest`; source addresses, at most `MAX_PAGES_PER_FRAME` pages.
    RequestPages(PageRange),
    /// Install pages whose bytes are in the receive buffer of the frame in hand. Answer `Installed`.
    Install {
        /// Where.
        space: SpaceId,
        /// Source addresses.
        pages: PageRange,
        /// Where these pages are in the space; same length.
        at: PageRange,
        /// `Data`, `Zero` (zero pages) or `Lost` (poison).
        content: Content,
    },
    /// The program touched pages of its own making (grown stack, dropped pages): zero; current addresses, no
    /// answer is awaited.
    ZeroFill {
        /// Where.
        space: SpaceId,
        /// Which pages.
        at: PageRange,
    },
    /// Answer every touch of these missing pages with SIGBUS; current addresses.
    Poison {
        /// Where.
        space: SpaceId,
        /// Which pages.
        at: PageRange,
    },
    /// Nothing in this range is outstanding: give it back to the kernel; current addresses.
    Unregister {
        /// Where.
        space: SpaceId,
        /// Which pages.
        at: PageRange,
    },
    /// Every page is there, zero or gone: unregister everything and close the userfaultfds.
    Finish,
    /// Send `Drained`.
    SendDrained,
    /// Send `Abort`: this migration will never run here.
    SendAbort(Failure),
    /// End whatever was built; the process never ran here. Final.
    Discard(Failure),
    /// Write the report: done, or lost in part with this reason. Final.
    Complete(Option<Failure>),
}

/// The destination of one migration.
#[derive(Clone, Debug)]
pub struct Destination {
    config: Config,
    actions: VecDeque<DestinationAction>,
}

impl Destination {
    /// A destination that waits for [`DestinationInput::ReserveRequested`].
    #[must_use]
    pub fn new(config: Config, _now: Instant) -> Self {
        Self { config, actions: VecDeque::new() }
    }

    /// Takes one input; actions come out of [`Self::poll_action`].
    pub fn handle(&mut self, _now: Instant, _input: DestinationInput) {
        let _ = self.config;
    }

    /// The next thing to do; call until `None`.
    pub fn poll_action(&mut self) -> Option<DestinationAction> {
        self.actions.pop_front()
    }

    /// When to hand in [`DestinationInput::Tick`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
