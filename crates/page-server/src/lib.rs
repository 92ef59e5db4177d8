//! The source's data plane: one loop between the engine's [`engine::Source`], a stopped process and three sockets.
//!
//! ```text
//!            ┌── turn: page requests, control frames, what sockets took, one scan, one push frame ──┐
//! Channels ──┤                                                                                      ├─► engine
//!            └── nothing to do: wait for a socket or the engine's deadline ─────────────────────────┘     │
//! SourceProcess ◄── park, capture, read, scan, release ◄────── perform: one call per action ◄─────────────┘
//! ```
//!
//! A page request is looked for before every other step, and no step is longer than one push frame or one bounded
//! scan: that is the longest that a request waits here.
//!
//! The loop turns pages that are all zero into `ZeroPages`, unreadable ones into `LostPages`, and others into `PackedPages`
//! where the engine says so; it decides nothing else. What this crate does not do: park threads, read memory (trait [`SourceProcess`]), connect (its caller).
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod channels;
mod config;
mod input;
mod measure;
mod packer;
mod pages;
mod perform;
mod process;
mod serve;
mod socket;
mod vigil;

pub use channels::{Channels, introduce};
pub use process::{Outcome, ReadRun, SourceProcess, Sweep};
pub use serve::{Serving, serve};
