//! What the loop needs of the process that moves.

use alloc::sync::Arc;
use alloc::vec::Vec;

use engine::Failure;
use memory::{PageRange, PageSet};
use protocol::{Header, Manifest, Reserved};
use sys::poll::Interest;

use crate::Channels;

/// How a read of pages went: the first `pages` pages of the range are alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadRun<'a> {
    /// How many pages from the start of the range this is about; at least one.
    pub pages: u64,
    /// Begins with their bytes, wherever these are. `None`: nobody can read them, they are not mapped, or beyond a file's
    /// end.
    pub content: Option<&'a [u8]>,
}

/// What has changed since an earlier look.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sweep {
    /// Pages that may hold other bytes.
    pub written: Vec<PageRange>,
    /// Ranges of which nothing is known any more.
    pub lost: Vec<PageRange>,
}

/// The process at the source. Until [`Self::park`] it runs; after it nothing but this trait's owner touches it.
pub trait SourceProcess {
    /// Called when the manifest of the running process is on its way, and the destination will be at work on it: what takes
    /// time and can be done meanwhile. A long one may still wait for the socket, and then for this.
    ///
    /// # Errors
    /// Why the process cannot move, in words for the user.
    fn await_reservation(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes what the destination found for each file of the manifest, and what it cannot do; the capture decides by
    /// it which pages are eager and which lazy.
    ///
    /// # Errors
    /// Why the process cannot move to this destination, in words for the user.
    fn accept(&mut self, answer: Reserved) -> Result<(), Failure>;

    /// Looks which pages have been written since the last time, all that hold data at first, and watches them from there
    /// on. The process runs. Pages that it cannot watch are never told of.
    fn sweep(&mut self) -> Sweep {
        Sweep::default()
    }

    /// These pages were sent ahead: the capture says in `kept` which of them still hold the same bytes.
    fn sent_ahead(&mut self, sent: PageSet) {
        let _ = sent;
    }

    /// Called right before [`Self::park`]: what takes time and can be done while the process runs, but should not be
    /// older than it has to be when the process stops.
    ///
    /// # Errors
    /// Why the process cannot move, in words for the user.
    fn prepare(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Brings every thread to rest.
    ///
    /// # Errors
    /// Why not, in words for the user. Threads may be parked in part until [`Self::release`].
    fn park(&mut self) -> Result<(), Failure>;

    /// Captures the stopped process.
    ///
    /// # Errors
    /// Why not, in words for the user.
    fn capture(&mut self) -> Result<Arc<Manifest>, Failure>;

    /// Hands out content that travels by itself ([`protocol::Kind::Content`]), of the captured process; `send` says
    /// whether more is wanted. `buffer` is for its pieces.
    ///
    /// # Errors
    /// It cannot be read.
    fn send_content(
        &mut self,
        buffer: &mut [u8],
        send: &mut dyn FnMut(Header, &[u8]) -> bool,
    ) -> Result<(), Failure> {
        let _ = (buffer, send);
        Ok(())
    }

    /// Why the stopped process cannot go after all: asked when the destination is ready, before anything is given up.
    fn obstacle(&mut self) -> Option<Failure> {
        None
    }

    /// The point of no return: called right before `Run` leaves. From here on the process never runs here again,
    /// unless the destination gives its word that it never will: then [`Self::release`] follows.
    fn commit(&mut self);

    /// The destination runs the process: from here on it is never given back. Called once at most.
    fn confirmed(&mut self) {}

    /// Opens new connections to the destination: the `attempt`th time that this migration does.
    ///
    /// # Errors
    /// It cannot be reached ([`Failure::LinkLost`]), or knows nothing of this migration ([`Failure::Peer`]). As long as it
    /// is not known who runs the process, [`Failure::Local`] is the word that the destination never will: it goes on here.
    fn reconnect(&mut self, attempt: u32) -> Result<Channels, Failure>;

    /// Reads pages, which may take `buffer`: it is `pages.len()` bytes long.
    fn read<'a>(&'a mut self, pages: PageRange, buffer: &'a mut [u8]) -> ReadRun<'a>;

    /// The maximal runs of pages in `range` that hold data, ascending; pages of which it cannot tell count as such.
    fn scan(&mut self, range: PageRange) -> Vec<PageRange>;

    /// Lets every thread go on as if nothing had happened. Called at most once, also if nothing was parked.
    fn release(&mut self);

    /// Does a bounded piece of whatever else there is to do, without waiting; false when there was none.
    fn work(&mut self) -> bool;

    /// What to wait for on behalf of [`Self::work`].
    fn interests(&self) -> Vec<Interest>;

    /// Takes one line for the log: a phase that has begun.
    fn note(&mut self, line: &'static str);
}

/// How a migration ended, seen from the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The process lives at the destination and needs nothing more from here: end this one.
    Moved {
        /// Its process id there, as seen from outside its own PID namespace; 0 if the destination did not say.
        pid_there: u64,
    },
    /// Every thread runs here again; the migration never happened.
    Released(Failure),
    /// The destination had begun to run it, or may have: it never runs here again.
    Lost(Failure),
}
