//! What stays here when the program has moved: TCP connections that the destination relays, and the process with them.

use alloc::vec::Vec;

use engine::Failure;
use protocol::{Connection as Record, DescriptionKind, Manifest, text};
use relay::{Relay, Socket};
use sys::poll::{Interest, poll};
use sys::{descriptor, signal};
use transport::Connection;

use crate::config::LOWEST_DESCRIPTOR;
use crate::connect::Route;
use crate::ffi;
use crate::log::log;

/// `SIGTERM`, as a set.
const TERMINATE: u64 = 1 << 14;

/// See the module.
#[derive(Default)]
pub(crate) struct Staying {
    /// Open from before the stop on.
    link: Option<Connection<Socket>>,
    relay: Option<Relay>,
    /// The program's own numbers of what is relayed, and all others that it will not have let go of by then.
    relayed: Vec<u32>,
    others: Vec<u32>,
}

impl Staying {
    /// Opens the way over which connections are relayed; `expected` of them there are now.
    ///
    /// # Errors
    /// Why not, in words for the user.
    pub(crate) fn open(&mut self, route: &Route, expected: usize) -> Result<(), Failure> {
        let opened = route.open_relay().map_err(|failure| Failure::Local(route.words(failure)))?;
        // In the stop each gets a number of its own, and the kernel would take 10 ms to make the table longer.
        let most = LOWEST_DESCRIPTOR.saturating_add(u32::try_from(expected).unwrap_or(0));
        drop(descriptor::duplicate(opened.stream().fd().raw().cast_unsigned(), most + 8));
        self.link = Some(opened);
        if expected > 0 {
            log!(
                expected as u64,
                " TCP connections go on by way of this process, which stays until they are closed"
            );
        }
        Ok(())
    }

    /// Whether connections are relayed.
    pub(crate) const fn relays(&self) -> bool {
        self.link.is_some()
    }

    /// Takes over the connections of the stopped process that `manifest` says are relayed; `bound` are
    /// the numbers that are closed with the word to run. Nothing is read from them
    /// before the program runs at the destination.
    ///
    /// # Errors
    /// There are not enough descriptors.
    pub(crate) fn take(&mut self, manifest: &Manifest, bound: &[u32]) -> Result<(), Failure> {
        let Some(link) = self.link.take() else { return Ok(()) };
        let mut connections = Vec::new();
        let mut seen = alloc::vec![false; manifest.descriptions.len()];
        for known in &manifest.descriptors {
            let index = known.description as usize;
            if !manifest.descriptions.get(index).is_some_and(|found| is_relayed(&found.kind)) {
                if !bound.contains(&known.fd) {
                    self.others.push(known.fd);
                }
                continue;
            }
            self.relayed.push(known.fd);
            let Some(seen) = seen.get_mut(index) else { continue };
            if !core::mem::replace(seen, true) {
                let socket = descriptor::duplicate(known.fd, LOWEST_DESCRIPTOR)
                    .map_err(|errno| Failure::Local(text!["keeping a connection: ", errno]))?;
                connections.push((known.fd, socket));
            }
        }
        self.relay = Some(Relay::new(link, connections));
        Ok(())
    }

    /// Whether connections would be lost, because the way over which they are relayed is.
    pub(crate) fn is_cut_off(&mut self) -> bool {
        self.work();
        self.relay.as_ref().is_some_and(Relay::has_lost_link)
    }

    /// The program may run at the destination, which may send.
    pub(crate) fn begin(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.begin();
        }
    }

    /// The program runs at the destination: its connections are never again this process's to end, and what ends
    /// a process was not meant for it so far.
    pub(crate) fn keep(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.keep();
            let _ = signal::take(TERMINATE);
        }
    }

    /// The program goes on here, with its connections.
    pub(crate) fn release(&mut self) {
        if let Some(relay) = &self.relay {
            relay.give_back();
        }
        *self = Self::default();
    }

    /// Relays what there is to relay; see [`page_server::SourceProcess::work`].
    pub(crate) fn work(&mut self) -> bool {
        let Some(relay) = &mut self.relay else { return false };
        let worked = relay.turn();
        if relay.has_begun() {
            close(&mut self.relayed);
        }
        worked
    }

    /// See [`page_server::SourceProcess::interests`].
    pub(crate) fn interests(&self) -> Vec<Interest> {
        self.relay.as_ref().map(Relay::interests).unwrap_or_default()
    }

    /// Whether there is anything to stay for.
    pub(crate) fn has_to_stay(&self) -> bool {
        self.relay.as_ref().is_some_and(|relay| !relay.is_empty())
    }

    /// Lets go of all other descriptors of the program and stays until no connection is left, or somebody wants this
    /// process to end: then those that are left break.
    pub(crate) fn stay(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.keep();
        }
        close(&mut self.others);
        let asked = signal::descriptor(TERMINATE);
        while self.relay.as_ref().is_some_and(|relay| !relay.is_over()) {
            let timeout = if self.work() { Some(0) } else { None };
            let mut interests = self.interests();
            if let Ok(asked) = &asked {
                interests.push(Interest::new(asked, false));
            }
            let waited = poll(&mut interests, timeout);
            let is_asked = asked.is_ok() && interests.last().is_some_and(Interest::is_readable);
            if waited.is_err() || is_asked {
                return;
            }
        }
    }
}

fn close(numbers: &mut Vec<u32>) {
    for number in numbers.drain(..) {
        ffi::close(number.cast_signed());
    }
}

/// Whether a description is of a connection that is relayed.
fn is_relayed(kind: &DescriptionKind) -> bool {
    matches!(kind, DescriptionKind::Socket(socket) if socket.connection.len() == Record::RELAYED_BYTES)
}
