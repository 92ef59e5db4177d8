//! The body of the parasite: what moves a program.
//!
//! It is there only while a migration lasts: the resident half puts it into the arena and calls it on the helper thread.
//! It needs no libc. Nothing of it may be reached by a thread that goes on at the destination.
//!
//! ```text
//! ffi::begin ─► migration::run
//!                 settings     where to
//!                 connect      three channels
//!                 quiesce      every thread at rest
//!                 capture      the manifest
//!                 page-server  the rest
//! ```
#![no_std]
#![deny(unsafe_code)]
#![deny(clippy::indexing_slicing)]

extern crate alloc;

mod ahead;
mod arena;
mod commit;
mod config;
mod connect;
mod dumpable;
mod ffi;
mod log;
mod migration;
mod own_memory;
mod own_process;
mod panic;
mod quiesce;
mod rseq;
mod settings;
mod staying;
