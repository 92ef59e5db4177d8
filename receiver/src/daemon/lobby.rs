//! Connections that do not have a session yet: greeted one by one, put together by migration.
//!
//! Room is limited: when it is full the oldest visitor gives way. A source says `Hello` at once, so that a
//! crowd of silent visitors cannot keep it out.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use protocol::{Channel, Hello, MigrationId, PROTOCOL_VERSION};
use transport::{Connection, Expected};

use crate::config::{GREETING_DEADLINE, MAX_UNFINISHED};

/// All visitors, the oldest first: tokens only grow.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    visitors: BTreeMap<Token, Visitor>,
}

#[derive(Debug)]
struct Visitor {
    connection: Connection<TcpStream>,
    peer: SocketAddr,
    deadline: Instant,
    /// Once welcomed; the other channels of its migration are still to come.
    waiting: Option<Hello>,
}

/// The three channels of a migration, greeted.
#[derive(Debug)]
pub(super) struct Party {
    /// What the control channel said.
    pub(super) hello: Hello,
    /// Where it comes from.
    pub(super) peer: SocketAddr,
    /// Control, fault, push.
    pub(super) channels: [OwnedFd; 3],
}

/// What a visitor's bytes have led to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing to tell.
    Nothing,
    /// All three channels of a migration are here.
    Complete(Box<Party>),
    /// A connection that is not a source's was closed.
    Stranger(SocketAddr),
    /// A source was turned away and told why.
    Refused {
        /// Where it came from.
        peer: SocketAddr,
        /// Which migration.
        migration: MigrationId,
        /// What it was told.
        reason: String,
    },
}

impl Lobby {
    /// Lets a connection in; the visitor that had to give way for it, if any.
    ///
    /// # Errors
    /// The registration with the poll.
    pub(super) fn admit(
        &mut self,
        registry: &Registry,
        token: Token,
        mut stream: TcpStream,
        peer: SocketAddr,
        now: Instant,
    ) -> io::Result<Option<SocketAddr>> {
        let evicted = if self.visitors.len() >= MAX_UNFINISHED { self.evict_oldest() } else { None };
        transport::prepare(&stream)?;
        registry.register(&mut stream, token, Interest::READABLE)?;
        let connection = Connection::new(stream, Expected::Greeting);
        let deadline = now + GREETING_DEADLINE;
        self.visitors.insert(token, Visitor { connection, peer, deadline, waiting: None });
        Ok(evicted)
    }

    /// Closes the oldest connection.
    pub(super) fn evict_oldest(&mut self) -> Option<SocketAddr> {
        self.visitors.pop_first().map(|(_, visitor)| visitor.peer)
    }

    /// Closes the oldest connection if its time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Option<SocketAddr> {
        self.next_deadline().filter(|&deadline| deadline <= now).and_then(|_| self.evict_oldest())
    }

    /// When [`Self::expire`] has something to do at the earliest.
    #[must_use]
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.visitors.first_key_value().map(|(_, visitor)| visitor.deadline)
    }

    /// Hears a visitor out. `admission` says whether a migration is taken, or why not.
    pub(super) fn readable(
        &mut self,
        registry: &Registry,
        token: Token,
        hung_up: bool,
        admission: impl FnOnce(&Hello) -> Result<(), String>,
    ) -> Outcome {
        let Some(visitor) = self.visitors.get_mut(&token) else { return Outcome::Nothing };
        let peer = visitor.peer;
        if visitor.waiting.is_some() {
            // What it sends behind its greeting is for the session.
            if hung_up {
                self.visitors.remove(&token);
            }
            return Outcome::Nothing;
        }
        match transport::poll_hello(&mut visitor.connection) {
            Ok(None) => Outcome::Nothing,
            Ok(Some(hello)) => match self.judge(&hello, admission) {
                Ok(()) => self.welcome(registry, token, &hello),
                Err(reason) => self.refuse(token, hello.migration, reason),
            },
            Err(error) => {
                self.visitors.remove(&token);
                if error.is_link_loss() { Outcome::Nothing } else { Outcome::Stranger(peer) }
            }
        }
    }

    /// Whether this channel is taken, or why not.
    fn judge(
        &self,
        hello: &Hello,
        admission: impl FnOnce(&Hello) -> Result<(), String>,
    ) -> Result<(), String> {
        let Hello { oldest, newest, channel, .. } = *hello;
        if transport::negotiate(oldest, newest).is_none() {
            return Err(format!(
                "this receiver speaks version {PROTOCOL_VERSION} of the protocol and the source {oldest} to \
                 {newest}: install the same release on both sides"
            ));
        }
        if self.find(hello, channel).is_some() {
            return Err(format!("it has a {channel} channel already"));
        }
        admission(hello)
    }

    fn welcome(&mut self, registry: &Registry, token: Token, hello: &Hello) -> Outcome {
        let Some(visitor) = self.visitors.get_mut(&token) else { return Outcome::Nothing };
        visitor.waiting = Some(hello.clone());
        let sent = transport::welcome(&mut visitor.connection, hello);
        // The first bytes on a new connection always fit its buffer; if not, it is broken.
        if sent.is_err() || visitor.connection.wants_write() {
            self.visitors.remove(&token);
            return Outcome::Nothing;
        }
        let party = self.gather(registry, hello);
        party.map_or(Outcome::Nothing, |party| Outcome::Complete(Box::new(party)))
    }

    fn refuse(&mut self, token: Token, migration: MigrationId, reason: String) -> Outcome {
        let Some(mut visitor) = self.visitors.remove(&token) else { return Outcome::Nothing };
        // If the source does not hear it, it sees the connection close.
        let _ = transport::refuse(&mut visitor.connection, reason.clone());
        Outcome::Refused { peer: visitor.peer, migration, reason }
    }

    /// Who waits on this channel of the same party.
    fn find(&self, hello: &Hello, channel: Channel) -> Option<Token> {
        let wanted = Some(Hello { channel, ..hello.clone() });
        self.visitors.iter().find(|(_, visitor)| visitor.waiting == wanted).map(|(&token, _)| token)
    }

    /// Takes the three channels of a migration out of the lobby, once all are there.
    fn gather(&mut self, registry: &Registry, hello: &Hello) -> Option<Party> {
        let tokens = Channel::ALL.map(|channel| self.find(hello, channel));
        let [Some(control), Some(fault), Some(push)] = tokens else { return None };
        let peer = self.visitors.get(&control)?.peer;
        let mut leave = |token: Token| {
            let mut stream = self.visitors.remove(&token)?.connection.into_stream();
            registry.deregister(&mut stream).ok()?;
            Some(OwnedFd::from(std::net::TcpStream::from(stream)))
        };
        let channels = [leave(control)?, leave(fault)?, leave(push)?];
        Some(Party { hello: hello.clone(), peer, channels })
    }
}
