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
use transport::sealing::{Key, is_genuine};
use transport::{Connection, Expected};

use crate::config::{GREETING_DEADLINE, MAX_UNFINISHED};
use crate::sealing::{Proof, Sealing, random};

/// All visitors, the oldest first: tokens only grow.
#[derive(Debug)]
pub(super) struct Lobby {
    visitors: BTreeMap<Token, Visitor>,
    /// What every source has to have, if there is one.
    key: Option<Key>,
}

#[derive(Debug)]
struct Visitor {
    connection: Connection<TcpStream>,
    peer: SocketAddr,
    deadline: Instant,
    progress: Progress,
}

/// How far a visitor is.
#[derive(Debug)]
enum Progress {
    /// Its `Hello` is awaited.
    Greeting,
    /// It was welcomed and has to prove that it has the key. Until then anybody may claim anything.
    Proving { hello: Hello, prologue: Vec<u8> },
    /// It belongs to a migration whose other channels are still to come.
    Waiting { hello: Hello, proof: Option<Proof> },
}

/// The three channels of a migration, or the link over which its connections are relayed, greeted.
#[derive(Debug)]
pub(super) struct Party {
    /// What the control channel said.
    pub(super) hello: Hello,
    /// Where it comes from.
    pub(super) peer: SocketAddr,
    /// Control, fault, push; or the link alone.
    pub(super) channels: Vec<OwnedFd>,
    /// What they are to be sealed with.
    pub(super) sealing: Option<Sealing>,
}

/// What a visitor's bytes have led to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing to tell.
    Nothing,
    /// All three channels of a migration are here, or its link.
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
    /// An empty lobby; with a key it lets nobody through who does not have the same.
    pub(super) const fn new(key: Option<Key>) -> Self {
        Self { visitors: BTreeMap::new(), key }
    }

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
        self.visitors.insert(token, Visitor { connection, peer, deadline, progress: Progress::Greeting });
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
        match &visitor.progress {
            Progress::Greeting => {}
            Progress::Proving { .. } => return self.hear_proof(registry, token, admission),
            Progress::Waiting { .. } => {
                // What it sends behind its greeting is for the session.
                if hung_up {
                    self.visitors.remove(&token);
                }
                return Outcome::Nothing;
            }
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
        let Hello { oldest, newest, sealed, .. } = *hello;
        if transport::negotiate(oldest, newest).is_none() {
            return Err(format!(
                "this receiver speaks version {PROTOCOL_VERSION} of the protocol and the source {oldest} to \
                 {newest}: install the same release on both sides"
            ));
        }
        match (&self.key, sealed) {
            (Some(_), false) => {
                Err("this receiver has a key: give the program the same by POSTHASTE_KEY_FILE".to_owned())
            }
            (None, true) => {
                Err("this receiver has no key: start it with --key-file, or the program without".to_owned())
            }
            (Some(_), true) | (None, false) => self.may_join(hello, admission),
        }
    }

    fn may_join(
        &self,
        hello: &Hello,
        admission: impl FnOnce(&Hello) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.find(hello, hello.channel).is_some() {
            return Err(format!("it has a {} channel already", hello.channel));
        }
        admission(hello)
    }

    /// Hears whether a welcomed visitor has the key.
    fn hear_proof(
        &mut self,
        registry: &Registry,
        token: Token,
        admission: impl FnOnce(&Hello) -> Result<(), String>,
    ) -> Outcome {
        let Some(visitor) = self.visitors.get_mut(&token) else { return Outcome::Nothing };
        let peer = visitor.peer;
        let message = match transport::poll_key(&mut visitor.connection) {
            Ok(None) => return Outcome::Nothing,
            Ok(Some(message)) => message,
            Err(error) => {
                self.visitors.remove(&token);
                return if error.is_link_loss() { Outcome::Nothing } else { Outcome::Stranger(peer) };
            }
        };
        let progress = std::mem::replace(&mut visitor.progress, Progress::Greeting);
        let Progress::Proving { hello, prologue } = progress else { return Outcome::Nothing };
        if !self.key.as_ref().is_some_and(|key| is_genuine(key, &prologue, &message)) {
            return self.refuse(token, hello.migration, "it does not have this receiver's key".to_owned());
        }
        // Another one may have come first since it was welcomed.
        match self.may_join(&hello, admission) {
            Ok(()) => self.join(registry, token, &hello, Some(Proof { prologue, message })),
            Err(reason) => self.refuse(token, hello.migration, reason),
        }
    }

    fn welcome(&mut self, registry: &Registry, token: Token, hello: &Hello) -> Outcome {
        let Some(visitor) = self.visitors.get_mut(&token) else { return Outcome::Nothing };
        let sent = challenge(hello)
            .and_then(|challenge| transport::welcome(&mut visitor.connection, hello, challenge).ok())
            // The first bytes on a new connection always fit its buffer; if not, it is broken.
            .filter(|_| !visitor.connection.wants_write());
        let prologue = sent.and_then(|greeting| transport::prologue(hello, greeting).ok());
        let Some(prologue) = prologue else {
            self.visitors.remove(&token);
            return Outcome::Nothing;
        };
        if hello.sealed {
            visitor.progress = Progress::Proving { hello: hello.clone(), prologue };
            return Outcome::Nothing;
        }
        self.join(registry, token, hello, None)
    }

    /// Lets a visitor wait for the other channels of its migration, or go with them if they are here.
    fn join(&mut self, registry: &Registry, token: Token, hello: &Hello, proof: Option<Proof>) -> Outcome {
        if let Some(visitor) = self.visitors.get_mut(&token) {
            visitor.progress = Progress::Waiting { hello: hello.clone(), proof };
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
        let wanted = Hello { channel, ..hello.clone() };
        let is_it = |visitor: &Visitor| match &visitor.progress {
            Progress::Waiting { hello, .. } => *hello == wanted,
            Progress::Greeting | Progress::Proving { .. } => false,
        };
        self.visitors.iter().find(|(_, visitor)| is_it(visitor)).map(|(&token, _)| token)
    }

    /// Takes the channels of a migration out of the lobby, once all are there.
    fn gather(&mut self, registry: &Registry, hello: &Hello) -> Option<Party> {
        let wanted = if hello.relays { vec![hello.channel] } else { Channel::ALL.to_vec() };
        let tokens: Vec<Token> =
            wanted.into_iter().map(|channel| self.find(hello, channel)).collect::<Option<_>>()?;
        let peer = self.visitors.get(tokens.first()?)?.peer;
        let mut leave = |token: Token| {
            let visitor = self.visitors.remove(&token)?;
            let mut stream = visitor.connection.into_stream();
            registry.deregister(&mut stream).ok()?;
            let proof = match visitor.progress {
                Progress::Waiting { proof, .. } => proof,
                Progress::Greeting | Progress::Proving { .. } => None,
            };
            Some((OwnedFd::from(std::net::TcpStream::from(stream)), proof))
        };
        let left: Vec<_> = tokens.into_iter().map(&mut leave).collect::<Option<_>>()?;
        let (channels, proofs): (Vec<_>, Vec<_>) = left.into_iter().unzip();
        let proofs: Option<Vec<Proof>> = proofs.into_iter().collect();
        let sealing = match (&self.key, proofs) {
            (Some(key), Some(proofs)) => Some(Sealing::new(key, proofs)),
            (Some(_), None) => return None,
            (None, _) => None,
        };
        Some(Party { hello: hello.clone(), peer, channels, sealing })
    }
}

/// What a source has to mix into its proof, so that none that was recorded earlier is one; `None` if there are no
/// random numbers.
fn challenge(hello: &Hello) -> Option<u64> {
    let mut bytes = [0; 8];
    (!hello.sealed || random(&mut bytes)).then(|| u64::from_le_bytes(bytes))
}
