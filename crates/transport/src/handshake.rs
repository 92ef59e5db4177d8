//! The first frames of every connection: `Hello`, and `Welcome` or `Refused`; with a key one more in each direction.
//!
//! ```text
//! source                                         destination
//! greet ───────────────── Hello ──────────────►  poll_hello
//! poll_answer ◄──── Welcome │ Refused ─────────  welcome │ refuse
//! exchange_key ──────── KeyExchange ──────────►  poll_key
//! poll_key_answer ◄─ KeyExchange │ Refused ────  answer_key │ refuse
//! ```
//!
//! Neither side reads a byte beyond the other's greeting here, so a daemon can hand the socket to another process
//! afterwards. `Hello` keeps its encoding in all versions, because a version is only agreed on by it.
//!
//! Both key messages are bound to the [`prologue`], all that was said in clear: version, migration, channel, and the
//! destination's challenge. So nothing of it can be changed, no channel be taken for another, and no recorded message be
//! used again. Whoever has no key gets no further than to the daemon's [`is_genuine`](crate::sealing::is_genuine).

use alloc::string::String;
use alloc::vec::Vec;

use protocol::{Channel, Header, Hello, Kind, PROTOCOL_VERSION, Reason, Welcome, encode};

use crate::sealing::{FillRandom, Initiator, Key, Refuted};
use crate::{Connection, ConnectionError, Expected, Stream};

/// What the destination's `Welcome` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// The version that both speak.
    pub version: u16,
    /// Random, another for each connection that is to be sealed, so that what was recorded earlier opens nothing; 0 for
    /// others.
    pub challenge: u64,
}

/// What the destination says to a `Hello` or to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Go on, in this version.
    Welcome(Greeting),
    /// It has the same key: the connection is sealed.
    Sealed,
    /// No, in the destination's words.
    Refused(String),
}

/// The version to speak with a side that speaks `oldest` to `newest`, if there is one.
#[must_use]
pub const fn negotiate(oldest: u16, newest: u16) -> Option<u16> {
    if oldest <= PROTOCOL_VERSION && PROTOCOL_VERSION <= newest { Some(PROTOCOL_VERSION) } else { None }
}

/// Everything that both sides have said in clear.
///
/// # Errors
/// None for greetings that have come in a frame.
pub fn prologue(hello: &Hello, greeting: Greeting) -> Result<Vec<u8>, ConnectionError> {
    let mut bytes = encode(hello).map_err(|source| ConnectionError::Body { kind: Kind::Hello, source })?;
    bytes.extend_from_slice(&greeting.version.to_le_bytes());
    bytes.extend_from_slice(&greeting.challenge.to_le_bytes());
    Ok(bytes)
}

/// Source: introduces a connection.
///
/// # Errors
/// The link has ended.
pub fn greet<S: Stream>(connection: &mut Connection<S>, hello: &Hello) -> Result<(), ConnectionError> {
    connection.expect(Expected::Answer);
    connection.send_message(Kind::Hello, hello)
}

/// Source: the answer to `hello`, once it is here. From `Welcome` on the connection takes what the destination
/// sends on its channel.
///
/// # Errors
/// The link has ended, or what came is no answer, or a version that was not offered.
pub fn poll_answer<S: Stream>(
    connection: &mut Connection<S>,
    hello: &Hello,
) -> Result<Option<Answer>, ConnectionError> {
    let Some(frame) = connection.receive()? else { return Ok(None) };
    if frame.header.kind == Kind::Refused {
        return Ok(Some(Answer::Refused(connection.message::<Reason>()?.printable())));
    }
    let challenge = frame.header.argument;
    let Welcome { version } = connection.message()?;
    if !(hello.oldest..=hello.newest).contains(&version) {
        return Err(ConnectionError::Version { oldest: version, newest: version, ours: PROTOCOL_VERSION });
    }
    connection.expect(Expected::FromDestination(hello.channel));
    Ok(Some(Answer::Welcome(Greeting { version, challenge })))
}

/// Source: shows that it has the key, behind `greeting`.
///
/// # Errors
/// The link has ended, or there are no random numbers.
pub fn exchange_key<S: Stream>(
    connection: &mut Connection<S>,
    (hello, greeting): (&Hello, Greeting),
    key: &Key,
    random: FillRandom,
) -> Result<Initiator, ConnectionError> {
    let (initiator, message) =
        Initiator::new(key, &prologue(hello, greeting)?, random).map_err(|Refuted| ConnectionError::Key)?;
    connection.expect(Expected::KeyAnswer);
    connection.send(Header::plain(Kind::KeyExchange, 0), &message)?;
    Ok(initiator)
}

/// Source: the other side's proof that it has the same key, once it is here. From [`Answer::Sealed`] on the connection
/// is sealed and takes what the destination sends on `channel`.
///
/// # Errors
/// The link has ended, or what came is no proof.
pub fn poll_key_answer<S: Stream>(
    connection: &mut Connection<S>,
    channel: Channel,
    initiator: &mut Option<Initiator>,
) -> Result<Option<Answer>, ConnectionError> {
    let Some(frame) = connection.receive()? else { return Ok(None) };
    if frame.header.kind == Kind::Refused {
        return Ok(Some(Answer::Refused(connection.message::<Reason>()?.printable())));
    }
    let session = initiator.take().and_then(|initiator| initiator.finish(frame.body).ok());
    connection.seal(session.ok_or(ConnectionError::Key)?);
    connection.expect(Expected::FromDestination(channel));
    Ok(Some(Answer::Sealed))
}

/// Destination: the greeting, once it is here. The connection must have been made with [`Expected::Greeting`].
///
/// # Errors
/// The link has ended, or what came is no greeting of this protocol.
pub fn poll_hello<S: Stream>(connection: &mut Connection<S>) -> Result<Option<Hello>, ConnectionError> {
    if connection.receive()?.is_none() {
        return Ok(None);
    }
    let hello: Hello = connection.message()?;
    if hello.magic == Hello::MAGIC { Ok(Some(hello)) } else { Err(ConnectionError::Stranger) }
}

/// Destination: takes the connection. From here on it takes the key if the source announced one, for which `challenge`
/// is random; else what the source sends on its channel.
///
/// # Errors
/// The link has ended, or there is no common version: then the source has been told.
pub fn welcome<S: Stream>(
    connection: &mut Connection<S>,
    hello: &Hello,
    challenge: u64,
) -> Result<Greeting, ConnectionError> {
    let Some(version) = negotiate(hello.oldest, hello.newest) else {
        let error =
            ConnectionError::Version { oldest: hello.oldest, newest: hello.newest, ours: PROTOCOL_VERSION };
        refuse(connection, alloc::format!("no common version: {error}"))?;
        return Err(error);
    };
    connection.expect(if hello.sealed { Expected::Key } else { Expected::FromSource(hello.channel) });
    let body = encode(&Welcome { version })
        .map_err(|source| ConnectionError::Body { kind: Kind::Welcome, source })?;
    connection.send(Header { argument: challenge, ..Header::plain(Kind::Welcome, 0) }, &body)?;
    Ok(Greeting { version, challenge })
}

/// Destination: the source's key message, once it is here.
///
/// # Errors
/// The link has ended, or what came is something else.
pub fn poll_key<S: Stream>(connection: &mut Connection<S>) -> Result<Option<Vec<u8>>, ConnectionError> {
    Ok(connection.receive()?.map(|frame| frame.body.to_vec()))
}

/// Destination: answers the source's key message, seals the connection, and from here on takes what the source sends
/// on `channel`. May happen in another process than the rest.
///
/// # Errors
/// The link has ended, the message is not genuine, or there are no random numbers.
pub fn answer_key<S: Stream>(
    connection: &mut Connection<S>,
    channel: Channel,
    key: &Key,
    (prologue, message): (&[u8], &[u8]),
    random: FillRandom,
) -> Result<(), ConnectionError> {
    let (session, answer) =
        crate::sealing::respond(key, prologue, message, random).map_err(|Refuted| ConnectionError::Key)?;
    connection.send(Header::plain(Kind::KeyExchange, 0), &answer)?;
    if connection.wants_write() {
        // The first bytes on a new connection always fit its buffer; if not, it is broken.
        return Err(ConnectionError::Closed);
    }
    connection.seal(session);
    connection.expect(Expected::FromSource(channel));
    Ok(())
}

/// Destination: does not take the connection. The caller flushes and closes it.
///
/// # Errors
/// The link has ended.
pub fn refuse<S: Stream>(connection: &mut Connection<S>, text: String) -> Result<(), ConnectionError> {
    connection.send_message(Kind::Refused, &Reason { text })
}
