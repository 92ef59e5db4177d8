//! What the destination wants done; the loop performs each action by one call.

use alloc::vec::Vec;

use memory::PageRange;
use protocol::Channel;

use super::input::{Content, SpaceId};
use crate::Failure;

/// What the destination has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DestinationAction {
    /// Reserve everything that the manifest asks for; answer `Reserved` or `PrepareFailed`.
    Reserve,
    /// Send `Reserved` with the verdicts.
    SendReserved,
    /// Put pages of the frame in hand into the process that is being built; it stands still. Hand in `PrepareFailed`
    /// if that does not work.
    Store {
        /// Which.
        pages: PageRange,
        /// `Data` or `Zero`.
        content: Content,
    },
    /// Send `RoundTaken`.
    SendRoundTaken,
    /// What was stored in these pages does not hold: they are to be missing when the process is registered.
    Forget(Vec<PageRange>),
    /// Build the mappings of the final manifest, register, begin with all else; answer `Mapped` or `PrepareFailed`.
    Map,
    /// Every eager page is in place: build what is made of them; answer `Assembled` or `PrepareFailed`. Pages may be
    /// touched meanwhile.
    Assemble,
    /// Send `Ready`.
    SendReady,
    /// Let every thread go; answer `Resumed`. After this the process has run here.
    Resume,
    /// Send `Running`.
    SendRunning {
        /// Seconds that the process waits behind a lost link; 0 for as long as it takes.
        patience_s: u16,
    },
    /// Close the connections, which have broken. The source opens new ones: hand in `Reconnected` then.
    Disconnect,
    /// Send `Unscanned`: nothing is known of what these pages hold.
    SendUnscanned(PageRange),
    /// Send `PageBits`.
    SendList {
        /// Whether these pages, in unscanned ranges, have arrived; else they hold data and are missing.
        arrived: bool,
        /// Ascending runs, from the first page to the last at most `MAX_PAGES_PER_LIST`.
        pages: Vec<PageRange>,
    },
    /// Send `Recover`: that is all that is lacking.
    SendListDone,
    /// Send `PageRequest`; source addresses, at most `MAX_PAGES_PER_FRAME` pages.
    RequestPages(PageRange),
    /// Install pages whose bytes are in the frame in hand of this channel. Answer `Installed`. Behind a piece of a `Push`
    /// frame, an answer on the fault channel may be handed in; no other frame.
    Install {
        /// Where.
        space: SpaceId,
        /// Which frame.
        channel: Channel,
        /// Source addresses.
        pages: PageRange,
        /// Where these pages are in the space; same length.
        at: PageRange,
        /// `Data`, `Zero` (zero pages) or `Lost` (poison).
        content: Content,
    },
    /// Pages without content (holes, grown stack, dropped pages): zero; current addresses. Pages that are there
    /// already stay as they are. Whatever the outcome, whoever waits in the range is woken. Answer `Filled`.
    ZeroFill {
        /// Where.
        space: SpaceId,
        /// Which pages.
        at: PageRange,
    },
    /// Answer every touch of these missing pages with SIGBUS; current addresses. Answer `Filled`.
    Poison {
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
    /// Send `Failed`: what is missing is lost.
    SendFailed(Failure),
    /// Kill the process, which has lost pages. Final.
    Kill(Failure),
    /// End whatever was built; the process never ran here. Final.
    Discard(Failure),
    /// Write the report: done, or lost in part with this reason. Final.
    Complete(Option<Failure>),
}
