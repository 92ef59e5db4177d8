//! The decisions of a migration: two state machines, [`Source`] and [`Destination`], without I/O.
//!
//! An input and a time go in, actions come out. No clock, no lock, no callback, no trait, no page content.
//!
//! ```text
//! SOURCE  ┌──────────── the process still lives here ────────────┐┌── it never runs here again ──┐
//!  Setup ─Reserved─► Switchover ─Ready─► [send Run] Postcopy ─Drained─► Completed
//!    └── any failure ──┴─► Cancelled        └─ link lost, deadline ─► Failed
//!
//! DESTINATION
//!  Setup ─Reserve─► Reserved ─Switchover─► Listening ─Run─► Postcopy ─last page─► Completed
//!    └── any failure ──┴──────────┴─► Aborted    └─ source lost ─► poison what is missing ─► Failed
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

extern crate alloc;

mod config;
mod destination;
mod failure;
mod instant;
mod packing;
mod plan;
mod ranges;
mod report;
mod source;

pub use config::{Config, OnLoss};
pub use destination::{
    Content, Destination, DestinationAction, DestinationInput, InstallOutcome, Place, SpaceId,
};
pub use failure::Failure;
pub use instant::Instant;
pub use packing::Packing;
pub use plan::Plan;
pub use report::{EventCounts, Latency, LostPages, PageCounts, PhaseDurations, Progress, Report};
pub use source::{Source, SourceAction, SourceInput};
