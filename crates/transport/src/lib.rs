//! Frames over sockets: a [`Connection`] collects whole frames from a non-blocking [`Stream`] and sends them.
//!
//! ```text
//! stream ──read──► link ──► inbox: header checked ─► kind expected here? ─► body, grown as it arrives ─► Frame<'_>
//! stream ◄─write── link ◄── outbox: what the socket did not take at once, bounded ◄── header + body, gathered
//! ```
//!
//! **Reading.** [`Connection::receive`] hands out one frame at a time, borrowed from the one buffer; it stays in
//! hand ([`Connection::frame`]) until the next call. A frame may already wait in the buffer when the socket is
//! silent, so a loop asks until it gets `None` before it waits for the socket ([`Connection::is_drained`]).
//!
//! **Writing.** What the socket does not take is kept, up to a bound; [`Connection::wants_write`] says that
//! [`Connection::flush`] has work as soon as the socket is writable. Bulk senders wait for that themselves.
//!
//! **Sealing.** `link.rs` is below the frames: a connection that has been sealed ([`Connection::seal`]) encrypts every
//! byte, one that has not leaves them as they are, and nobody above it knows.
//!
//! **Ending.** The three connections of a migration race each other. So both sides read the control connection
//! until it is drained before they believe that the end of another one means anything, and the destination
//! closes none of them before the source has.
//!
//! What this crate does not do: open, accept or poll sockets, wait, decide anything.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

mod config;
mod connection;
mod error;
mod expected;
mod handshake;
mod inbox;
mod link;
#[cfg(feature = "std")]
mod mio_stream;
mod outbox;
pub mod sealing;
mod stream;
#[cfg(test)]
mod tests;

pub use config::SEND_QUEUE_BYTES;
pub use connection::Connection;
pub use error::ConnectionError;
pub use expected::Expected;
pub use handshake::{
    Answer, Greeting, answer_key, exchange_key, greet, negotiate, poll_answer, poll_hello, poll_key,
    poll_key_answer, prologue, refuse, welcome,
};
#[cfg(feature = "std")]
pub use mio_stream::prepare;
pub use stream::{IoOutcome, Stream};
