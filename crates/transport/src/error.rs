//! Why a connection cannot be used any further.

use protocol::{DecodeError, FrameError, Kind};

use crate::IoOutcome;

/// The end of a connection. After any of these nothing more is received or sent on it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The other side has ended the stream between two frames.
    #[error("the other side has closed the connection")]
    Closed,
    /// The other side has ended the stream within a frame.
    #[error("the other side has closed the connection within a frame")]
    ClosedInFrame,
    /// The socket failed.
    #[error("the connection broke (error {os_error})")]
    Broken {
        /// The operating system's error number, 0 if there is none.
        os_error: i32,
    },
    /// What came is not what the other side has sealed: changed on the way, or from somebody else.
    #[error("what came over the connection was altered on the way")]
    Altered,
    /// The keys of the two sides differ, or there are no random numbers to make a session's keys of.
    #[error("the other side does not have the same key")]
    Key,
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame that has no place on this connection, in this direction, at this time.
    #[error("a {0:?} frame has no place here")]
    Unexpected(Kind),
    /// A body that does not decode, or a message that cannot be encoded within its limit.
    #[error("{kind:?}: {source}")]
    Body {
        /// Which kind of frame.
        kind: Kind,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A `Hello` without the magic bytes: a stranger.
    #[error("the other side does not speak this protocol")]
    Stranger,
    /// The other side speaks no version that this one does.
    #[error("the other side speaks versions {oldest} to {newest} of the protocol, this one {ours}")]
    Version {
        /// The oldest that it offered.
        oldest: u16,
        /// The newest that it offered.
        newest: u16,
        /// The only one that this side speaks.
        ours: u16,
    },
    /// This side wants to send a body that its kind does not allow.
    #[error("a {kind:?} frame of {len} bytes is longer than it may be")]
    TooLong {
        /// Which kind of frame.
        kind: Kind,
        /// Bytes of its body.
        len: usize,
    },
    /// The other side reads so slowly that the bound of the send queue is reached.
    #[error("{queued} bytes wait for the other side to read them")]
    QueueFull {
        /// Bytes in the queue.
        queued: usize,
    },
}

impl ConnectionError {
    /// The end that a read or a write has led to.
    pub(crate) const fn of(outcome: IoOutcome) -> Self {
        match outcome {
            IoOutcome::Failed { os_error } => Self::Broken { os_error },
            IoOutcome::Altered => Self::Altered,
            IoOutcome::Closed | IoOutcome::Done(_) | IoOutcome::WouldBlock => Self::Closed,
        }
    }

    /// Whether the link is at fault, rather than what came over it: another one may do.
    #[must_use]
    pub const fn is_link_loss(&self) -> bool {
        matches!(
            self,
            Self::Closed | Self::ClosedInFrame | Self::Broken { .. } | Self::QueueFull { .. } | Self::Altered
        )
    }
}
