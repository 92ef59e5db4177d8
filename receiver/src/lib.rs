//! The receiver: a daemon that takes in running processes and lets them go on here.
//!
//! [`daemon`] accepts connections and groups them by migration; each migration then gets a process of its
//! own ([`session`]), so that a bad one harms neither the daemon nor the others. What a session has to tell
//! comes back over a pipe as [`events`]. A session rebuilds the process with the [`restorer`], in a namespace
//! that a [`guardian`] watches.
#![deny(unsafe_code, reason = "but for the trampoline of the restorer")]

pub mod announcer;
pub mod check;
pub mod cli;
pub mod config;
pub mod confinement;
pub mod daemon;
pub mod events;
pub mod guardian;
pub mod handover;
pub mod inherited;
pub mod journal;
pub mod peer;
pub mod policy;
pub mod progress;
pub mod relaying;
pub mod report;
pub mod restorer;
pub mod sealing;
pub mod session;
