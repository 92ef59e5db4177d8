//! What the loop needs of the process that it builds and serves.

use std::os::fd::BorrowedFd;

use engine::{Failure, Place, Progress, SpaceId};
use memory::PageRange;
use protocol::{Header, Manifest, Reserved, SourceReport};
use sys::uffd::Uffd;

use crate::Channels;

/// Something that happened to the process or to who watches over it.
#[derive(Debug)]
pub enum Notification {
    /// The process has ended, by itself or by a signal.
    Ended,
    /// The source has connected again: these take the place of the channels that were lost.
    Reconnected(Box<Channels>),
    /// Nobody waits for the outcome any more: give up at once.
    Abandoned(Failure),
    /// An address space stands, with the userfaultfd that serves it and the process that has it, if that is known.
    Space(SpaceId, Uffd, Option<u32>),
    /// Everything stands that [`DestinationProcess::assemble`] has begun to build, or not.
    Assembled(Result<(), Failure>),
    /// What [`DestinationProcess::resume`] has begun to let go runs, as this process, or never ran.
    Resumed(Result<u32, Failure>),
}

/// Something to tell whoever watches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Measurement {
    /// The source's side of the report.
    Source(SourceReport),
    /// The link is lost, for this reason; the process runs on as far as its pages reach.
    Paused(Failure),
    /// The link stands again.
    Recovered,
    /// How far the migration has got; at most some ten a second.
    Progress(Progress),
}

/// What stands once everything is mapped.
#[derive(Debug)]
pub enum Mapped {
    /// One address space.
    One(Uffd),
    /// Nothing yet; where the pages of each address space belong. The userfaultfds follow by
    /// [`Notification::Space`].
    Places(Vec<Place>),
}

/// How far the building is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assembly {
    /// Everything stands.
    Done,
    /// [`Notification::Assembled`] will say.
    Begun,
}

/// Whether the process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumption {
    /// It does, with this process id here.
    Done(u32),
    /// [`Notification::Resumed`] will say. Its memory may be touched meanwhile.
    Begun,
}

/// Who returns from [`DestinationProcess::stand_by`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The caller, which goes on; a copy of it waits for its death.
    Server,
    /// The copy: the caller has died, and this one goes on in its place. It shares the caller's descriptors as they were
    /// at its death.
    Successor,
    /// The caller, which goes on alone.
    Alone,
}

/// The process at the destination, from the first reservation to its last missing page.
///
/// The loop calls [`reserve`](Self::reserve), [`map`](Self::map) and [`resume`](Self::resume) once each, in this
/// order, then [`finished`](Self::finished); [`discard`](Self::discard) instead of whatever is left.
pub trait DestinationProcess {
    /// Proves that everything the manifest asks for can be had, and holds it. Nothing has stopped at the source.
    ///
    /// # Errors
    /// What cannot be had, in words for the user.
    fn reserve(&mut self, manifest: &Manifest) -> Result<Reserved, Failure>;

    /// Takes content of a file or memory object: `Content`, which names it, then each `ContentBytes`.
    ///
    /// # Errors
    /// It is not what was agreed on, or there is no room for it.
    fn content(&mut self, header: Header, body: &[u8]) -> Result<(), Failure> {
        let _ = (header, body);
        Err(Failure::Protocol("content that nobody wants"))
    }

    /// Builds the mappings of the final manifest and returns the userfaultfd of their address space, with which every range of
    /// `manifest.lazy` is registered; descriptors and threads may be under way until [`assemble`](Self::assemble). Or only
    /// says where those ranges belong: then that builds.
    ///
    /// # Errors
    /// What did not work.
    fn map(&mut self, manifest: &Manifest) -> Result<Mapped, Failure>;

    /// Builds what is made of pages that were [written](Self::write), the last of which is in place.
    ///
    /// # Errors
    /// What did not work.
    fn assemble(&mut self) -> Result<Assembly, Failure> {
        Ok(Assembly::Done)
    }

    /// What was [written](Self::write) to these pages ahead of the switchover does not hold: [`map`](Self::map), which
    /// follows, leaves them as if nobody had ever written there.
    fn forget(&mut self, pages: Vec<PageRange>) {
        let _ = pages;
    }

    /// The pages of `kept` that [`map`](Self::map) found no way to leave in place.
    fn remade(&mut self) -> Vec<PageRange> {
        Vec::new()
    }

    /// Writes pages, before the process runs: pages that cannot be registered (changed pages of private file mappings),
    /// and before [`map`](Self::map) private memory that comes ahead of the switchover.
    ///
    /// # Errors
    /// What did not work.
    fn write(&mut self, at: PageRange, bytes: &[u8]) -> Result<(), Failure>;

    /// Lets every thread go. **From here on the process may run.**
    ///
    /// # Errors
    /// What did not work: it never ran. [`discard`](Self::discard) follows.
    fn resume(&mut self) -> Result<Resumption, Failure>;

    /// Makes a copy of this process, which shares its descriptors and waits for its death. The copy ends instead of
    /// returning unless `is_next` says that it is the one to go on.
    fn stand_by(&mut self, is_next: &dyn Fn() -> bool) -> Role {
        let _ = is_next;
        Role::Alone
    }

    /// The copy that was made last is the valid one: earlier ones may end.
    fn stood_by(&mut self) {}

    /// Whether a copy that was made at the end of [`reserve`](Self::reserve) can go on with the process as it was resumed.
    /// Asked when all stands.
    fn can_be_inherited(&self) -> bool {
        false
    }

    /// Called on such a copy: the process was built by `manifest` and let go since. Returns its userfaultfd.
    fn inherit(&mut self, manifest: &Manifest) -> Option<Uffd> {
        let _ = manifest;
        None
    }

    /// Called on a copy that goes on in the place of its original, which has died after the process was let go. Returns
    /// the process id here and the descriptors that are still of use; all others are closed.
    ///
    /// # Errors
    /// There is no process to go on with.
    fn succeed(&mut self) -> Result<(u32, Vec<BorrowedFd<'_>>), Failure> {
        Err(Failure::Local("there is nobody to succeed".into()))
    }

    /// The process forked: whoever holds a duplicate of its userfaultfd needs one of its child's as well, so that
    /// no page of the child reads as zero when the loop ends early.
    ///
    /// # Errors
    /// The duplicate cannot be had.
    fn forked(&mut self, child: &Uffd) -> Result<(), Failure>;

    /// Every page is there: duplicates of userfaultfds are to be closed. **The process depends on nobody.** A successor
    /// may say so again.
    fn finished(&mut self);

    /// Ends whatever was built, and the process with it if it runs already.
    fn discard(&mut self, reason: &Failure);

    /// Descriptors that become readable when there is a [`Notification`]. Asked for after each step above and each
    /// notification; the list may only grow at its end.
    fn watched(&mut self) -> Vec<BorrowedFd<'_>>;

    /// The next notification, without waiting.
    fn notification(&mut self) -> Option<Notification>;

    /// Takes a measurement; a page waits meanwhile.
    fn measured(&mut self, measurement: Measurement);
}
