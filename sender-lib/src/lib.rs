//! The parasite: a library that lives in programs that are not ours and moves them on a signal.
//!
//! At rest it is one signal handler: no thread, no descriptor, no mapping. It needs no libc, imports no symbol and
//! exports none, so that it works under glibc and musl alike and never meets the host's locks.
//!
//! ```text
//! loader ─► trigger::install          signal ─► trigger::start ─► helper thread: migration::run
//!                                                                    settings   where to
//!                                                                    quiesce    every thread at rest
//!                                                                    capture    the manifest
//!                                                                    page-server  the rest
//! ```
#![no_std]
#![deny(unsafe_code)]
#![deny(clippy::indexing_slicing)]

extern crate alloc;

mod arena;
mod capture;
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
mod restart;
mod rseq;
mod settings;
mod state;
mod trigger;
