//! Connections that do not have a session yet: greeted one by one, put together by migration.
//!
//! Room is limited: when it is full the oldest visitor gives way. A source says `Hello` at once, so that a
//! crowd of silent visitors cannot keep it out.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use protocol::{Channel, MigrationId, PROTOCOL_VERSION};

use super::greeting::{Greeted, Greeting, refused, welcome};
use crate::config::{GREETING_DEADLINE, MAX_UNFINISHED};

/// All visitors, the oldest first: tokens only grow.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    visitors: BTreeMap<Token, Visitor>,
}

#[derive(Debug)]
struct Visitor {
    stream: TcpStream,
    peer: SocketAddr,
    deadline: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Greeting(Greeting),
    /// Welcomed; the other channels of its migration are still to come.
    Waiting(MigrationId, Channel),
}

/// The three channels of a migration, greeted.
#[derive(Debug)]
pub(super) struct Party {
    /// Which migration.
    pub(super) migration: MigrationId,
    /// Where the control channel comes from.
    pub(super) peer: SocketAddr,
    /// Channel `control`.
    pub(super) control: OwnedFd,
    /// Channel `fault`.
    pub(super) fault: OwnedFd,
    /// Channel `push`.
    pub(super) push: OwnedFd,
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
        /// Which migration, if it got as far as saying so.
        migration: Option<MigrationId>,
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
        stream.set_nodelay(true)?;
        registry.register(&mut stream, token, Interest::READABLE)?;
        let stage = Stage::Greeting(Greeting::default());
        self.visitors.insert(token, Visitor { stream, peer, deadline: now + GREETING_DEADLINE, stage });
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
        admission: impl FnOnce(MigrationId) -> Result<(), String>,
    ) -> Outcome {
        let Some(visitor) = self.visitors.get_mut(&token) else { return Outcome::Nothing };
        let peer = visitor.peer;
        let Stage::Greeting(greeting) = &mut visitor.stage else {
            if hung_up {
                self.visitors.remove(&token);
            }
            return Outcome::Nothing;
        };
        match greeting.read(&mut visitor.stream) {
            Greeted::NotYet => Outcome::Nothing,
            Greeted::HungUp => {
                self.visitors.remove(&token);
                Outcome::Nothing
            }
            Greeted::Stranger => {
                self.visitors.remove(&token);
                Outcome::Stranger(peer)
            }
            Greeted::TooForeign { oldest, newest } => {
                let reason = format!(
                    "this receiver speaks version {PROTOCOL_VERSION} and the source {oldest} to {newest}: \
                     install the same release on both sides"
                );
                self.refuse(token, None, reason)
            }
            Greeted::Hello { migration, channel } => {
                let taken =
                    self.is_waiting(migration, channel).then(|| format!("a second {channel} channel"));
                match taken.map_or_else(|| admission(migration), Err) {
                    Ok(()) => self.welcome(registry, token, migration, channel),
                    Err(reason) => self.refuse(token, Some(migration), reason),
                }
            }
        }
    }

    fn welcome(
        &mut self,
        registry: &Registry,
        token: Token,
        migration: MigrationId,
        channel: Channel,
    ) -> Outcome {
        let Some(visitor) = self.visitors.get_mut(&token) else { return Outcome::Nothing };
        visitor.stage = Stage::Waiting(migration, channel);
        // The first bytes on a new connection always fit its buffer; if not, it is broken.
        if visitor.stream.write_all(&welcome()).is_err() {
            self.visitors.remove(&token);
            return Outcome::Nothing;
        }
        self.gather(registry, migration).map_or(Outcome::Nothing, |party| Outcome::Complete(Box::new(party)))
    }

    fn refuse(&mut self, token: Token, migration: Option<MigrationId>, reason: String) -> Outcome {
        let Some(mut visitor) = self.visitors.remove(&token) else { return Outcome::Nothing };
        // If the source does not hear it, it sees the connection close.
        let _ = visitor.stream.write_all(&refused(&reason));
        Outcome::Refused { peer: visitor.peer, migration, reason }
    }

    fn is_waiting(&self, migration: MigrationId, channel: Channel) -> bool {
        self.find(migration, channel).is_some()
    }

    fn find(&self, migration: MigrationId, channel: Channel) -> Option<Token> {
        let is_it = |stage: &Stage| matches!(stage, Stage::Waiting(m, c) if (*m, *c) == (migration, channel));
        self.visitors.iter().find(|(_, visitor)| is_it(&visitor.stage)).map(|(&token, _)| token)
    }

    /// Takes the three channels of a migration out of the lobby, once all are there.
    fn gather(&mut self, registry: &Registry, migration: MigrationId) -> Option<Party> {
        let tokens = Channel::ALL.map(|channel| self.find(migration, channel));
        let [Some(control), Some(fault), Some(push)] = tokens else { return None };
        let peer = self.visitors.get(&control)?.peer;
        let mut leave = |token: Token| {
            let mut stream = self.visitors.remove(&token)?.stream;
            registry.deregister(&mut stream).ok()?;
            Some(OwnedFd::from(std::net::TcpStream::from(stream)))
        };
        Some(Party { migration, peer, control: leave(control)?, fault: leave(fault)?, push: leave(push)? })
    }
}
