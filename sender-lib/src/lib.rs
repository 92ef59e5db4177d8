//! The parasite: a library that lives in programs that are not ours and moves them on a signal.
//!
//! At rest it is one signal handler: no thread, no descriptor, no mapping. It needs no libc, imports no symbol and
//! exports none, so that it works under glibc and musl alike and never meets the host's locks.
//!
//! This is its resident half: what is there from the program's first moment to its last. The other half, the body, does
//! the work, and is there only while a migration lasts.
//!
//! ```text
//! loader ─► trigger::install          signal ─► trigger::start ─► helper thread ─► body::unpack ─► the body
//! ```
#![no_std]
#![deny(unsafe_code)]
#![deny(clippy::indexing_slicing)]

extern crate alloc;

mod arena;
mod body;
mod config;
mod ffi;
mod log;
mod panic;
mod settings;
mod trigger;

use sender_seam::state::State;

/// The one instance.
static STATE: State = State::new();
