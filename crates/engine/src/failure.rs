//! Why a migration ended otherwise than planned.

use alloc::string::String;
use core::fmt;

use protocol::Channel;

/// The reason of a failure. `Display` gives one lower-case line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The other side refused, aborted or cancelled, in its own words.
    Peer(String),
    /// This side could not do what was needed (park, reserve, map …), in words for the user.
    Local(String),
    /// A connection ended.
    LinkLost(Channel),
    /// Nothing came in time; what was awaited.
    Deadline(&'static str),
    /// The other side sent what the protocol does not allow here.
    Protocol(&'static str),
    /// The process itself has ended.
    ProcessGone,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(text) | Self::Local(text) => f.write_str(text),
            Self::LinkLost(channel) => write!(f, "the {channel} connection was lost"),
            Self::Deadline(what) => write!(f, "no {what} in time"),
            Self::Protocol(what) => write!(f, "the other side broke the protocol: {what}"),
            Self::ProcessGone => f.write_str("the process has ended"),
        }
    }
}
