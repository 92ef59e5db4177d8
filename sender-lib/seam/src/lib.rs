//! Where the two halves of the parasite meet: what each may know of the other.
//!
//! `sender-lib` is resident: it is in the program from its first to its last moment. `sender-body` is there only while a
//! migration lasts. They are linked apart from each other, so whatever goes from one to the other goes through
//! [`Resident`] and [`state::State`], by functions with the C calling convention and types with a fixed layout.
#![no_std]
#![deny(unsafe_code)]
#![deny(clippy::indexing_slicing)]

pub mod log;
pub mod remembered;
pub mod restart;
pub mod state;
mod symbols;

use sys::signal::Action;

use log::Line;
use remembered::Remembered;
use restart::{Call, Interrupted};
use state::State;

/// glibc's `SIGSETXID`; musl's `SIGCANCEL` is 33 too. Neither can be blocked through its libc.
pub const PARK_SIGNAL: u32 = 33;
/// `si_errno` of a park signal.
pub const MARK: i32 = 0x7057_4853;

/// What the body finds of the resident half, for as long as the body is there.
#[repr(C)]
#[derive(Debug)]
pub struct Resident {
    /// The parasite's own mutable state.
    pub state: &'static State,
    /// The setting `POSTHASTE_RECEIVER`, read afresh.
    pub receiver: &'static Remembered,
    /// The setting `POSTHASTE_KEY_FILE`, read afresh.
    pub key_file: &'static Remembered,
    /// What the park signal is to do.
    pub park_action: Action,
    /// Address of the leaving gate.
    pub leaving_gate: u64,
    /// From here to the end the arena is the body's own.
    pub room: u64,
    /// Writes a line of log.
    pub say: extern "C" fn(&Line),
    /// Lets the call that a signal handler has interrupted be made again: see [`restart`]. The context is what the handler
    /// got, the call is what the thread was seen in before.
    pub repeat: unsafe extern "C" fn(context: *mut u8, call: Option<&Call>, was: &mut Interrupted),
    /// Ends the helper thread, and with `true` the arena: for the end without a return.
    pub leave: extern "C" fn(bool) -> !,
}

/// Where the body begins: one migration, on the helper thread. Returns only when the program goes on here, with every
/// thread released; true if nobody needs the arena any more.
pub type Body = extern "C" fn(&'static Resident) -> bool;

/// What a thread does in the body that is to rest; returns when it is released. The ticket is the value of the park
/// signal, the context what its handler got.
pub type Rest = unsafe extern "C" fn(ticket: u64, context: *mut u8);
