//! Connections that stay at the source: their ends here, and the process that relays them.
//!
//! ```text
//! source ◄── link ──► relaying process ──► one end of each pair
//!                        ▲   its own network    ╎ TCP
//!                        │ orders               ╎
//!                     session ───────────► the other end: the program's
//! ```
//! A process of its own, because it outlives the session and does not share its dangers: what serves memory may be killed
//! and succeeded, bytes that a process has taken from a socket are gone with it.

mod companion;
mod network;
mod process;

use serde::{Deserialize, Serialize};

pub use companion::Companion;
pub use process::{RELAY_OPTION, run};

/// What the session asks of the relaying process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Order {
    /// Make a pair of connected sockets and pass the program's.
    Make {
        /// What the connection is called on the link: its descriptor.
        name: u32,
        /// `AF_INET` or `AF_INET6`
        domain: u32,
        /// What the program's socket is to be called, as getsockname(2) says it.
        own: Vec<u8>,
        /// What its other side is to be called; empty if that is forgotten.
        other: Vec<u8>,
    },
    /// The program runs.
    Go,
}
