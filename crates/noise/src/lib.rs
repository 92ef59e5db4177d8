//! `Noise_NNpsk0_25519_ChaChaPoly_SHA256`: two sides that hold the same key agree on a session that nobody else can
//! read, change, shorten, replay or continue.
//!
//! ```text
//! source                                          destination
//! Initiator::new ── message: e ─────────────────► is_genuine, respond
//! Initiator::finish ◄── answer: e, ee ───────────
//! Session::seal / open ◄── records ─────────────► Session::seal / open
//! ```
//!
//! The pattern, the key schedule and the counting of records are `noise-protocol`'s, the primitives those of `RustCrypto`
//! and `curve25519-dalek`; this crate puts them together and adds nothing of its own. A test holds all of it against
//! `snow`, which knows all patterns and is 12 KiB larger for it. Both messages and every record are
//! bound to a *prologue*: what both sides have said in clear before. (Noise, revision 34; RFC 7748, RFC 8439.)
//!
//! What this crate does not do: sockets, frames, files, random numbers (its caller brings [`FillRandom`]).
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

extern crate alloc;

mod key;
mod primitives;
mod session;
#[cfg(test)]
mod tests;

pub use key::{KEY_TEXT_BYTES, Key, forget};
pub use session::{FillRandom, Initiator, MESSAGE_BYTES, Refuted, Session, TAG_BYTES, is_genuine, respond};
