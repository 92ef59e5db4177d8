//! The three connections of a migration, and how they are opened.

use alloc::vec::Vec;
use core::time::Duration;

use engine::{Failure, Instant};
use protocol::{Channel, Hello};
use relay::Socket;
use sys::poll::Interest;
use sys::{Fd, net};
use transport::sealing::{Initiator, Key};
use transport::{
    Answer, Connection, ConnectionError, Expected, exchange_key, greet, poll_answer, poll_key_answer,
};

use crate::socket::{now, wait};

/// Control, fault and push.
#[derive(Debug)]
pub struct Channels {
    control: Connection<Socket>,
    fault: Connection<Socket>,
    push: Connection<Socket>,
}

impl Channels {
    /// Introduces three connected, non-blocking sockets as the channels that `hello` names one of, in the order of
    /// [`Channel::ALL`]; see [`introduce`].
    ///
    /// # Errors
    /// As for [`introduce`].
    pub fn open(
        sockets: Vec<Fd>,
        hello: &Hello,
        key: Option<&Key>,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let hellos = Channel::ALL.map(|channel| Hello { channel, ..hello.clone() });
        let mut opened = introduce(sockets, &hellos, key, timeout)?.into_iter();
        match (opened.next(), opened.next(), opened.next()) {
            (Some(control), Some(fault), Some(push)) => Ok(Self { control, fault, push }),
            _ => Err(Failure::LinkLost(Channel::Control)),
        }
    }

    /// Takes three connected, non-blocking sockets to a destination that needs no greeting, in the order of
    /// [`Channel::ALL`].
    #[must_use]
    pub fn over(sockets: [Fd; 3]) -> Self {
        let [control, fault, push] = sockets.map(Socket::new);
        let over = |socket, channel| Connection::new(socket, Expected::FromDestination(channel));
        Self {
            control: over(control, Channel::Control),
            fault: over(fault, Channel::Fault),
            push: over(push, Channel::Push),
        }
    }

    /// The connection of this channel.
    pub(crate) const fn get_mut(&mut self, channel: Channel) -> &mut Connection<Socket> {
        match channel {
            Channel::Control => &mut self.control,
            Channel::Fault => &mut self.fault,
            Channel::Push => &mut self.push,
        }
    }

    /// The connection of this channel.
    pub(crate) const fn get(&self, channel: Channel) -> &Connection<Socket> {
        match channel {
            Channel::Control => &self.control,
            Channel::Fault => &self.fault,
            Channel::Push => &self.push,
        }
    }

    /// Bytes that the three sockets have taken.
    pub(crate) const fn bytes_sent(&self) -> u64 {
        self.control.bytes_sent() + self.fault.bytes_sent() + self.push.bytes_sent()
    }
}

/// Introduces connected, non-blocking sockets with one greeting each, and waits until the destination has welcomed all of
/// them; with a key, until all are sealed.
///
/// # Errors
/// The destination refuses, does not answer within `timeout`, hangs up or is something else.
pub fn introduce(
    sockets: Vec<Fd>,
    hellos: &[Hello],
    key: Option<&Key>,
    timeout: Duration,
) -> Result<Vec<Connection<Socket>>, Failure> {
    let deadline = now() + timeout;
    let mut guests = Vec::new();
    for (socket, hello) in sockets.into_iter().zip(hellos) {
        net::keep_alive(socket.raw());
        let hello = Hello { sealed: key.is_some(), ..hello.clone() };
        let connection = Connection::new(Socket::new(socket), Expected::Answer);
        let mut guest = Guest { connection, hello, initiator: None };
        greet(&mut guest.connection, &guest.hello)
            .map_err(|error| failure_of(guest.hello.channel, &error))?;
        guests.push(guest);
    }
    for guest in &mut guests {
        let answer = guest.await_answer(deadline)?;
        if let (Some(key), Answer::Welcome(greeting)) = (key, answer) {
            let sent = exchange_key(&mut guest.connection, (&guest.hello, greeting), key, random);
            guest.initiator = Some(sent.map_err(|error| failure_of(guest.hello.channel, &error))?);
        }
    }
    let mut opened = Vec::new();
    for mut guest in guests {
        if guest.initiator.is_some() {
            guest.await_answer(deadline)?;
        }
        opened.push(guest.connection);
    }
    Ok(opened)
}

/// A connection that is being introduced.
struct Guest {
    connection: Connection<Socket>,
    hello: Hello,
    initiator: Option<Initiator>,
}

impl Guest {
    /// The answer to the greeting, or with an initiator to the key.
    fn await_answer(&mut self, deadline: Instant) -> Result<Answer, Failure> {
        let Self { connection, hello, initiator } = self;
        let channel = hello.channel;
        loop {
            connection.flush().map_err(|error| failure_of(channel, &error))?;
            let polled = if initiator.is_some() {
                poll_key_answer(connection, channel, initiator)
            } else {
                poll_answer(connection, hello)
            };
            match polled.map_err(|error| failure_of(channel, &error))? {
                Some(Answer::Refused(text)) => return Err(Failure::Peer(text)),
                Some(answer) => return Ok(answer),
                None if now() >= deadline => return Err(Failure::Deadline("answer to the greeting")),
                None => {
                    let interest = Interest::new(connection.stream().fd(), connection.wants_write());
                    wait(&mut [interest], deadline).map_err(|_| Failure::LinkLost(channel))?;
                }
            }
        }
    }
}

fn random(bytes: &mut [u8]) -> bool {
    sys::random::fill(bytes).is_ok()
}

/// The engine's word for the end of a connection.
pub(crate) const fn failure_of(channel: Channel, error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::Closed
        | ConnectionError::ClosedInFrame
        | ConnectionError::Broken { .. }
        | ConnectionError::QueueFull { .. }
        | ConnectionError::Altered => Failure::LinkLost(channel),
        ConnectionError::Frame(_) => Failure::Protocol("bytes that are no frame"),
        ConnectionError::Unexpected(_) => Failure::Protocol("a frame that has no place there"),
        ConnectionError::Body { .. } => Failure::Protocol("a message that does not decode"),
        ConnectionError::Key => Failure::Protocol("no proof that it has the same key"),
        ConnectionError::Stranger => Failure::Protocol("a greeting of another protocol"),
        ConnectionError::Version { .. } => Failure::Protocol("a version that was not offered"),
        ConnectionError::TooLong { .. } => Failure::Protocol("its limits are too narrow for this process"),
    }
}
