//! The session's end of the event pipe.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::events::SessionEvent;

/// Tells the daemon what happens, as long as it listens.
#[derive(Debug)]
pub struct Teller {
    pipe: File,
}

impl Teller {
    /// Writes to `pipe`.
    #[must_use]
    pub fn new(pipe: OwnedFd) -> Self {
        Self { pipe: File::from(pipe) }
    }

    /// Tells an event. That nobody listens any more is noticed by [`Self::has_hung_up`] and changes nothing here.
    pub fn tell(&self, event: &SessionEvent) {
        let _ = event.write_to(&self.pipe);
    }

    /// Tells an event that is of no use later: not at all, if it would have to wait.
    pub fn tell_in_passing(&self, event: &SessionEvent) {
        if self.state().contains(PollFlags::POLLOUT) {
            self.tell(event);
        }
    }

    /// Whether the daemon is gone.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        self.state().contains(PollFlags::POLLERR)
    }

    /// Becomes ready when the daemon hangs up.
    #[must_use]
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    fn state(&self) -> PollFlags {
        let mut interest = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut interest, PollTimeout::ZERO) {
            Ok(_) => interest.iter().filter_map(PollFd::revents).collect(),
            Err(_) => PollFlags::empty(),
        }
    }
}
