//! The first two frames of every connection: `Hello`, and `Welcome` or `Refused`.
//!
//! ```text
//! source                                   destination
//! greet ──────────── Hello ─────────────►  poll_hello
//! poll_answer ◄── Welcome │ Refused ─────  welcome │ refuse
//! ```
//!
//! Neither side reads a byte beyond the other's greeting here, so a daemon can hand the socket to another process
//! afterwards. `Hello` keeps its encoding in all versions, because a version is only agreed on by it.
//!
//! Authentication and encryption belong between these two frames and everything else: a keyed handshake runs right
//! after `Hello` names the migration, and from then on a [`Stream`] that seals and opens takes the place of the
//! socket. Frames and callers stay as they are.

use alloc::string::String;

use protocol::{Hello, Kind, PROTOCOL_VERSION, Reason, Welcome};

use crate::{Connection, ConnectionError, Expected, Stream};

/// What the destination says to a `Hello`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Go on, in this version.
    Welcome {
        /// The version that both speak.
        version: u16,
    },
    /// No, in the destination's words.
    Refused(String),
}

/// The version to speak with a side that speaks `oldest` to `newest`, if there is one.
#[must_use]
pub const fn negotiate(oldest: u16, newest: u16) -> Option<u16> {
    if oldest <= PROTOCOL_VERSION && PROTOCOL_VERSION <= newest { Some(PROTOCOL_VERSION) } else { None }
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
        return Ok(Some(Answer::Refused(connection.message::<Reason>()?.text)));
    }
    let Welcome { version } = connection.message()?;
    if !(hello.oldest..=hello.newest).contains(&version) {
        return Err(ConnectionError::Version { oldest: version, newest: version, ours: PROTOCOL_VERSION });
    }
    connection.expect(Expected::FromDestination(hello.channel));
    Ok(Some(Answer::Welcome { version }))
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

/// Destination: takes the connection, which from here on takes what the source sends on its channel.
///
/// # Errors
/// The link has ended, or there is no common version: then the source has been told.
pub fn welcome<S: Stream>(connection: &mut Connection<S>, hello: &Hello) -> Result<(), ConnectionError> {
    let Some(version) = negotiate(hello.oldest, hello.newest) else {
        let error =
            ConnectionError::Version { oldest: hello.oldest, newest: hello.newest, ours: PROTOCOL_VERSION };
        refuse(connection, alloc::format!("no common version: {error}"))?;
        return Err(error);
    };
    connection.expect(Expected::FromSource(hello.channel));
    connection.send_message(Kind::Welcome, &Welcome { version })
}

/// Destination: does not take the connection. The caller flushes and closes it.
///
/// # Errors
/// The link has ended.
pub fn refuse<S: Stream>(connection: &mut Connection<S>, text: String) -> Result<(), ConnectionError> {
    connection.send_message(Kind::Refused, &Reason { text })
}
