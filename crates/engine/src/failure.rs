//! Why a migration ended otherwise than planned.

use alloc::string::String;
use core::fmt;

use protocol::{Channel, Piece, Text, put};

/// The reason of a failure. Its wording is one lower-case line.
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

impl Piece for Failure {
    fn put_into(&self, text: &mut impl Text) {
        match self {
            Self::Peer(words) | Self::Local(words) => text.push_text(words),
            Self::LinkLost(channel) => put!(text, "the ", channel, " connection was lost"),
            Self::Deadline(what) => put!(text, "no ", what, " in time"),
            Self::Protocol(what) => put!(text, "the other side broke the protocol: ", what),
            Self::ProcessGone => text.push_text("the process has ended"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words())
    }
}
