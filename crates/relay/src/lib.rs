//! Connections that stay behind when their program moves: what is said over them goes over one link, both ways.
//!
//! ```text
//! other side ◄──TCP──► end ┐                            ┌ end ◄──TCP──► program
//! other side ◄──TCP──► end ┼─ Relay ◄── link ──► Relay ─┼ end ◄──TCP──► program
//! other side ◄──TCP──► end ┘  source         destination└ end ◄──TCP──► program
//! ```
//! Both sides are the same. Nothing leaves an end before the other side has room for it (`RelayCredit`), so that a
//! connection that nobody reads holds up none but itself, and nothing is taken from the source's sockets before the
//! destination, where the program runs by then, has given the first credit.
//!
//! An end of a stream comes out as an end, a broken connection as a broken one. A link that is lost breaks all of them:
//! none ever looks as if it had ended in order.
//!
//! What this crate does not do: make the ends and the link, wait for ever, know who runs the program.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

extern crate alloc;

mod config;
mod end;
mod relay;
mod socket;

pub use relay::Relay;
pub use socket::Socket;
