//! The three connections of a migration, and how they are opened.

use core::time::Duration;

use engine::{Failure, Instant};
use protocol::{Channel, Hello};
use sys::Fd;
use sys::poll::Interest;
use transport::sealing::{Initiator, Key};
use transport::{
    Answer, Connection, ConnectionError, Expected, exchange_key, greet, poll_answer, poll_key_answer,
};

use crate::socket::{Socket, now, wait};

/// Control, fault and push.
#[derive(Debug)]
pub struct Channels {
    control: Connection<Socket>,
    fault: Connection<Socket>,
    push: Connection<Socket>,
}

impl Channels {
    /// Introduces three connected, non-blocking sockets as the channels that `hello` names one of, in the order of
    /// [`Channel::ALL`], and waits until the destination has welcomed all of them; with a key, until all are
    /// sealed.
    ///
    /// # Errors
    /// The destination refuses, does not answer within `timeout`, hangs up or is something else.
    pub fn open(
        sockets: [Fd; 3],
        hello: &Hello,
        key: Option<&Key>,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let deadline = now() + timeout;
        let mut hello = Hello { sealed: key.is_some(), ..hello.clone() };
        let [control, fault, push] = sockets.map(|fd| Connection::new(Socket::new(fd), Expected::Answer));
        let mut channels = Self { control, fault, push };
        for channel in Channel::ALL {
            hello.channel = channel;
            greet(channels.get_mut(channel), &hello).map_err(|error| failure_of(channel, &error))?;
        }
        let mut initiators = [None, None, None];
        for (channel, initiator) in Channel::ALL.into_iter().zip(&mut initiators) {
            hello.channel = channel;
            let answer = channels.await_answer(&hello, &mut None, deadline)?;
            if let (Some(key), Answer::Welcome(greeting)) = (key, answer) {
                let sent = exchange_key(channels.get_mut(channel), (&hello, greeting), key, random);
                *initiator = Some(sent.map_err(|error| failure_of(channel, &error))?);
            }
        }
        for (channel, initiator) in Channel::ALL.into_iter().zip(&mut initiators) {
            hello.channel = channel;
            if initiator.is_some() {
                channels.await_answer(&hello, initiator, deadline)?;
            }
        }
        Ok(channels)
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

    /// The answer to `hello`, or with an initiator to its key.
    fn await_answer(
        &mut self,
        hello: &Hello,
        initiator: &mut Option<Initiator>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let channel = hello.channel;
        let connection = self.get_mut(channel);
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
