//! The destination's data plane: one loop that serves faults, takes frames and carries out what the engine decides.
//!
//! ```text
//!            ┌────────── wait (the only line that blocks) ◄─────────────────────────┐
//!            ▼                                                                      │
//!  userfaultfds: events, then faults ─┐                                             │
//!  fault frames, control frames ──────┼─► engine.handle ─► engine.poll_action ─► perform
//!  one push frame ────────────────────┤                                     │       ▲
//!  notifications, time ───────────────┘     page bytes: socket buffer ──────┴► UFFDIO_COPY
//! ```
//!
//! A fault goes first: the userfaultfds are looked at between any two long frames of bulk. Page bytes go from
//! the receive buffer to the kernel without a copy in between, packed ones from where they were unpacked; the engine sees ranges and outcomes only.
//!
//! What this crate does not do: decide (`engine`), build the process ([`DestinationProcess`]), or follow it once
//! all its memory is there.
#![forbid(unsafe_code)]

mod channels;
mod config;
mod error;
mod fill;
mod handler;
mod perform;
mod placement;
mod process;
mod receive;
mod spaces;
mod succession;
mod testament;

pub use channels::Channels;
pub use error::HandlerError;
pub use fill::{Filling, fill, part};
pub use handler::{Ended, FaultHandler, Outcome, Traffic};
pub use process::{Assembly, DestinationProcess, Mapped, Measurement, Notification, Resumption, Role};
pub use receive::unpack;
