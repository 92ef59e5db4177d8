//! What happens to the destination, in the loop's words.

use alloc::vec::Vec;

use memory::{Addr, PageRange};
use protocol::Channel;

use crate::Failure;

/// One address space of the migrated program: the process itself, or a child that it forked in post-copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SpaceId(pub u32);

impl SpaceId {
    /// The migrated process itself.
    pub const MAIN: Self = Self(0);
}

/// Lazy pages of the source that belong somewhere else: a source with many processes numbers the pages of all of them
/// in one sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// In which address space; any but [`SpaceId::MAIN`].
    pub space: SpaceId,
    /// Which pages there.
    pub at: PageRange,
    /// The first of as many pages of the source.
    pub source: Addr,
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
    /// A page was there already; it is as good. The loop has woken whoever waits for it.
    AlreadyPresent,
    /// The program is changing its mappings (`EAGAIN`, userfaultfd(2) `mmap_changing`): nothing was done. The
    /// loop has read the events in the queue, waiting a millisecond if there were none yet, and has handed
    /// them in before this. It never tries the same place again by itself: the range may have moved or
    /// been dropped. The engine asks again for what is still wanted, at its place by then.
    Retry,
    /// Nothing is mapped or registered there (any more), tried page by page. The loop has woken whoever waits
    /// there (`UFFDIO_WAKE`). What is still wanted is asked for again.
    RangeGone,
    /// The address space is gone (exit or exec).
    SpaceGone,
}

/// What can happen to the destination.
///
/// **Order.** The kernel hands out fault messages before the events that came ahead of them. So the loop reads
/// the userfaultfd until it is empty, hands in all events, then all faults, and only then performs
/// actions: an event that has been read and not handed in protects nothing any more.
///
/// **Page frames** are taken from the sockets only while [`crate::Destination::takes_pages`] is true, and one at a
/// time: the next one when `poll_action` has returned `None`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DestinationInput {
    /// `Reserve` received.
    ReserveRequested,
    /// Everything asked for can be had.
    Reserved,
    /// `Content` or `ContentBytes` received, and put in its place.
    ContentArrived,
    /// `RoundEnd` received.
    RoundEnded {
        /// All that comes behind it belongs to the stopped process.
        last: bool,
    },
    /// `Switchover` received.
    SwitchoverRequested {
        /// Pages that must be in place before `Ready`.
        eager: Vec<PageRange>,
        /// Registered ranges: all their other pages come after `Run`.
        lazy: Vec<PageRange>,
        /// Pages that came ahead and still hold.
        kept: Vec<PageRange>,
    },
    /// In the final image these pages, which came ahead, are not in place any more.
    Remade(Vec<PageRange>),
    /// Mappings stand and are registered, or will be when all is assembled.
    Mapped {
        /// What belongs into other address spaces than the process's own; all else is where it was at the source.
        places: Vec<Place>,
    },
    /// Everything stands that is made of eager pages.
    Assembled,
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
    /// `Pushed` received: these pages have been asked for, and come all the same, by the push; source addresses.
    Pushed(PageRange),
    /// What became of an `Install`, in whole or in part; source addresses.
    Installed {
        /// Where.
        space: SpaceId,
        /// Which pages.
        pages: PageRange,
        /// How it ended.
        outcome: InstallOutcome,
    },
    /// What became of a `ZeroFill` or `Poison`, in whole or in part; current addresses.
    Filled {
        /// Where.
        space: SpaceId,
        /// Which pages.
        at: PageRange,
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
    /// The program forked. Ranges that `madvise(2)` keeps from the child are handed in behind this, for the
    /// child: `Unmapped` for `MADV_DONTFORK`, `Removed` for `MADV_WIPEONFORK`.
    Forked {
        /// Who.
        parent: SpaceId,
        /// The id that the loop gave to the child.
        child: SpaceId,
    },
    /// An address space is gone: exit, exec or kill.
    SpaceGone(SpaceId),
    /// The source has opened new connections for this migration; the old ones are of no use any more.
    Reconnected,
    /// This engine goes on in the place of a loop that has died: inputs and actions since it was copied are lost, but
    /// for those that are handed in next. Threads that wait are told of anew.
    TakenOver,
    /// `Cancel` or `Failed` received, a connection ended, or a frame made no sense.
    Broken(Failure),
    /// Time has passed; see [`crate::Destination::poll_timeout`].
    Tick,
}

impl DestinationInput {
    /// Whether this is a sign of life from the source.
    pub(super) const fn is_from_source(&self) -> bool {
        match self {
            Self::ReserveRequested
            | Self::ContentArrived
            | Self::RoundEnded { .. }
            | Self::SwitchoverRequested { .. }
            | Self::PagesArrived { .. }
            | Self::Pushed(_)
            | Self::Run { .. }
            | Self::PageMap { .. }
            | Self::PageMapDone
            | Self::PushDone
            | Self::Reconnected => true,
            Self::Reserved
            | Self::Remade(_)
            | Self::Mapped { .. }
            | Self::Assembled
            | Self::PrepareFailed(_)
            | Self::Installed { .. }
            | Self::Filled { .. }
            | Self::Resumed
            | Self::Fault { .. }
            | Self::Remapped { .. }
            | Self::Removed { .. }
            | Self::Unmapped { .. }
            | Self::Forked { .. }
            | Self::SpaceGone(_)
            | Self::TakenOver
            | Self::Broken(_)
            | Self::Tick => false,
        }
    }
}
