//! What happens to the source, in the loop's words.

use alloc::vec::Vec;

use memory::PageRange;
use protocol::Channel;

use crate::Failure;

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
    /// `Refused`, `Abort` or `Failed` received, a connection ended, or a frame made no sense.
    Broken(Failure),
    /// Time has passed; see [`crate::Source::poll_timeout`].
    Tick,
}
