//! The copy of a session that goes on if the session is killed.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use fault_handler::Role;
use nix::fcntl::{FcntlArg, fcntl};
use sys::birth::{Birth, Kind, birth};
use sys::fd::received;

use super::teller::Teller;
use crate::events::SessionEvent;
use crate::guardian::wait_for;

/// How long the end of a copy is waited for.
const DEADLINE: Duration = Duration::from_secs(2);
/// For numbers up to here there is room in the table of descriptors before it is shared: to make it larger then, the kernel
/// waits for every processor (`expand_fdtable`).
const DESCRIPTORS: i32 = 1000;
/// How long a copy sleeps at a time.
const A_WHILE: Duration = Duration::from_secs(1 << 20);

/// Who stands by.
#[derive(Debug, Default)]
pub(super) struct Standby {
    /// The valid copy.
    current: Option<OwnedFd>,
    /// One that was just made.
    next: Option<OwnedFd>,
    /// This process, for its copies to watch.
    own: Option<OwnedFd>,
}

impl Standby {
    /// Makes a copy of this process. In the copy, returns when this process has died and `is_next` holds.
    pub(super) fn make(&mut self, teller: &Teller, is_next: &dyn Fn() -> bool) -> Role {
        if self.own.is_none() {
            self.own = sys::pidfd::open(std::process::id()).ok();
            let _ =
                self.own.as_ref().map(|own| fcntl(own, FcntlArg::F_DUPFD_CLOEXEC(DESCRIPTORS)).map(received));
        }
        let Some(own) = &self.own else { return Role::Alone };
        match birth(Kind::Sibling) {
            Err(_) => Role::Alone,
            Ok(Birth::Parent(copy)) => {
                self.next = Some(copy.pidfd);
                let pid = u32::try_from(copy.pid).unwrap_or(0);
                teller.tell(&SessionEvent::StandsBy { pid, of: std::process::id() });
                Role::Server
            }
            Ok(Birth::Child) => {
                sys::thread::set_name(c"standby");
                while !wait_for(own.as_fd(), A_WHILE).unwrap_or(true) {}
                if !is_next() {
                    sys::thread::exit_process(0);
                }
                sys::thread::set_name(c"receiver");
                // These numbers are the other process's to close, and it has died.
                std::mem::forget(std::mem::take(self));
                Role::Successor
            }
        }
    }

    /// Whether the valid copy is alive.
    pub(super) fn is_there(&self) -> bool {
        self.current.as_ref().is_some_and(|copy| matches!(wait_for(copy.as_fd(), Duration::ZERO), Ok(false)))
    }

    /// The copy made last is the valid one.
    pub(super) fn turn(&mut self) {
        if let Some(old) = std::mem::replace(&mut self.current, self.next.take()) {
            // It may have been killed by somebody else.
            let _ = sys::pidfd::kill(old.as_fd());
        }
    }

    /// Nobody is to go on any more, after the last word has been told: the daemon sees the copy end before this process.
    pub(super) fn dismiss(&mut self) {
        for copy in [self.current.take(), self.next.take()].into_iter().flatten() {
            let _ = sys::pidfd::kill(copy.as_fd());
            let _ = wait_for(copy.as_fd(), DEADLINE);
        }
    }
}
