//! Connections to a receiver, opened side by side: the three channels, and one over which others are relayed.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use engine::Failure;
use page_server::{Channels, introduce};
use protocol::{Channel, Hello, text};
use relay::Socket;
use sys::{Errno, Fd, clock, net};
use transport::Connection;
use transport::sealing::Key;

use crate::config::{CONNECT_DEADLINE, LOWEST_DESCRIPTOR};
use crate::ffi;
use crate::log::log;
use crate::settings::{self, Receiver};

/// The way to a receiver, for one migration.
pub(crate) struct Route {
    receiver: Receiver,
    hello: Hello,
    /// The user has been told that the connection is lost.
    is_lost: bool,
}

impl Route {
    pub(crate) const fn new(receiver: Receiver, hello: Hello) -> Self {
        Self { receiver, hello, is_lost: false }
    }

    /// Opens the three channels.
    ///
    /// # Errors
    /// Why not: what the receiver says, or that nobody could be asked.
    pub(crate) fn open(&self) -> Result<Channels, Failure> {
        let (sockets, key) = self.sockets(Channel::ALL.len())?;
        Channels::open(sockets, &self.hello, key.as_ref(), CONNECT_DEADLINE)
    }

    /// Opens the link over which connections are relayed.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub(crate) fn open_relay(&self) -> Result<Connection<Socket>, Failure> {
        let (sockets, key) = self.sockets(1)?;
        let hello = Hello { relays: true, ..self.hello.clone() };
        let opened = introduce(sockets, &[hello], key.as_ref(), CONNECT_DEADLINE)?;
        opened.into_iter().next().ok_or(Failure::LinkLost(Channel::Control))
    }

    /// Connected sockets, and the key to introduce them with.
    fn sockets(&self, count: usize) -> Result<(Vec<Fd>, Option<Key>), Failure> {
        // Read anew each time, so that it does not have to be kept.
        let key = settings::key_for(&self.receiver).map_err(Failure::Local)?;
        let sockets = connected(&self.receiver, count).map_err(Failure::Local)?;
        // Later ones are opened only when the process is not to go on here if anything goes wrong.
        if let Some(header) = ffi::header().filter(|_| self.hello.attempt == 0) {
            sockets.iter().for_each(|socket| header.remember(socket.raw()));
        }
        Ok((sockets, key))
    }

    /// Opens them again; tells the user when this begins, and when it has worked.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub(crate) fn open_again(&mut self, attempt: u32) -> Result<Channels, Failure> {
        if !self.is_lost {
            log!("the connection to ", self.receiver.name, " is lost; connecting again");
        }
        self.is_lost = true;
        self.hello.attempt = attempt;
        let channels = self.open().map_err(|failure| match failure {
            Failure::Peer(_) => failure,
            _ => Failure::LinkLost(Channel::Control),
        })?;
        log!("connected again");
        self.is_lost = false;
        Ok(channels)
    }

    /// A failure to open, in words for the user.
    pub(crate) fn words(&self, failure: Failure) -> String {
        match failure {
            Failure::Local(words) => words,
            _ => text!["the receiver at ", self.receiver.name, ": ", failure],
        }
    }
}

/// So many connected and non-blocking sockets, their numbers out of the host's way.
fn connected(receiver: &Receiver, count: usize) -> Result<Vec<Fd>, String> {
    open(receiver.address, count).map_err(|errno| {
        let hint = if errno == Errno::ECONNREFUSED { "; no receiver listens there" } else { "" };
        text!["connecting to ", receiver.name, ": ", errno, hint]
    })
}

fn open(address: SocketAddr, count: usize) -> Result<Vec<Fd>, Errno> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(begin(address)?);
    }
    let deadline = clock::monotonic_ns() + u64::try_from(CONNECT_DEADLINE.as_nanos()).unwrap_or(0);
    for socket in &sockets {
        net::finish_connecting(socket, deadline)?;
    }
    Ok(sockets)
}

fn begin(address: SocketAddr) -> Result<Fd, Errno> {
    let socket = net::connect(address)?;
    // A low limit of descriptors forbids high numbers; then any number does.
    Ok(socket.duplicate_from(LOWEST_DESCRIPTOR).unwrap_or(socket))
}
