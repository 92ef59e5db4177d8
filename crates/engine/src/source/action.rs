//! What the source wants done; the loop performs each action by one call.

use alloc::vec::Vec;

use memory::{PageRange, PageSet};
use protocol::Channel;

use crate::Failure;

/// What the source has to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceAction {
    /// Send `Reserve` with the manifest.
    SendReserve,
    /// Look which pages have been written since the last time, and begin to watch them; answer `Swept`. The process
    /// runs.
    Sweep,
    /// Send `RoundEnd` behind the last page.
    SendRoundEnd {
        /// There will be no other round: all that comes behind it belongs to the stopped process.
        last: bool,
    },
    /// Park every thread and capture the final manifest; answer `Captured` or `CaptureFailed`.
    Capture {
        /// Pages that were sent ahead.
        sent: PageSet,
    },
    /// Send `Switchover` with the final manifest.
    SendSwitchover,
    /// Read these pages and send them; answer `Sent` once the socket has taken them.
    SendPages {
        /// On which channel.
        channel: Channel,
        /// At most `MAX_PAGES_PER_FRAME` pages.
        pages: PageRange,
    },
    /// Send `ZeroPages` on the fault channel: these pages, which were asked for, hold nothing.
    SendZero(PageRange),
    /// Send `Pushed` on the fault channel: these pages, which were asked for, have been pushed already.
    SendPushed(PageRange),
    /// Send `Run` with this epoch: the point of no return.
    SendRun {
        /// Counts the moves of this migration id; 1 for the first.
        epoch: u64,
    },
    /// Look which pages of this range hold data; answer `Scanned`. One scan is under way at a time; the loop
    /// looks at its sockets between two of them, so that a page request never waits for more than one.
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
    /// Send `SourceReport`: once the process runs at the destination, and at the end with the final figures.
    SendReport,
    /// Send `Cancel` if the link still stands.
    SendCancel(Failure),
    /// Close the connections, which have broken, and open new ones to the same destination; answer `Reconnected` or
    /// `ReconnectFailed`.
    Reconnect,
    /// Let every thread go on as if nothing had happened, close the channels, say why. Final.
    Release(Failure),
    /// The process lives elsewhere (or is lost, with the failure): end this one. Final.
    End(Option<Failure>),
}
