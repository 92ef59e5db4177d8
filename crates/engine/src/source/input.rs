//! What happens to the source, in the loop's words.

use alloc::vec::Vec;

use memory::PageRange;
use protocol::Channel;

use crate::{Failure, Plan};

/// What can happen to the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceInput {
    /// The three channels are open and welcomed; the manifest of the running process is captured.
    Connected,
    /// `Reserved` received: the destination can have everything, and wants the pages to travel like this.
    Reserved(Plan),
    /// The sweep that was asked for is done.
    Swept {
        /// Pages that may hold other bytes than at the last sweep; at the first one, all that hold any. Ascending runs.
        written: Vec<PageRange>,
        /// Ranges of which nothing is known any more: what was sent of them counts no longer.
        lost: Vec<PageRange>,
    },
    /// `RoundTaken` received: every page that was sent ahead is there.
    RoundTaken,
    /// Every thread stands still and the final manifest is captured.
    Captured {
        /// Pages that must arrive before `Ready`.
        eager: Vec<PageRange>,
        /// Ranges whose pages come after `Run`.
        lazy: Vec<PageRange>,
        /// Pages of those sent ahead that still hold the same bytes.
        kept: Vec<PageRange>,
        /// Bytes of content that travelled by itself.
        content: u64,
    },
    /// Parking or capturing did not work; the process may still be parked in part.
    CaptureFailed(Failure),
    /// `Ready` received.
    Ready,
    /// `Running` received: the process lives at the destination.
    Running {
        /// Seconds that the destination waits for the source behind a lost link; 0 for as long as it takes.
        patience_s: u16,
    },
    /// `PageRequest` received.
    PageRequested(PageRange),
    /// The scan that was asked for is done, or its first part.
    Scanned {
        /// What was scanned: a piece from the start of what was asked for; the rest is asked for again.
        scanned: PageRange,
        /// Pages of it that hold data, ascending runs.
        data: Vec<PageRange>,
    },
    /// A `SendPages` on this channel has left the process's memory: the next one may be made.
    Sent(Channel),
    /// `Drained` received.
    Drained,
    /// `Abort` received: the destination has never run the process and never will.
    Aborted(Failure),
    /// `Refused` or `Failed` received, a connection ended, or a frame made no sense.
    Broken(Failure),
    /// New connections to the same destination stand. What earlier actions would have answered is void.
    Reconnected,
    /// There are no new connections yet.
    ReconnectFailed(Failure),
    /// `Unscanned` received: the destination has not been told which of these pages hold data.
    Unscanned(PageRange),
    /// `PageBits` received.
    Listed {
        /// Whether these pages of unscanned ranges have arrived; else they hold data and are missing.
        arrived: bool,
        /// Ascending runs.
        pages: Vec<PageRange>,
    },
    /// `Recover` received: that is all that the destination lacks.
    ListDone,
    /// Time has passed; see [`crate::Source::poll_timeout`].
    Tick,
}
