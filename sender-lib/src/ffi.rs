//! Where the parasite touches the machine: entries from the loader and the kernel, the helper's first and last
//! instructions. The only unsafe code of this crate; it decides nothing.
#![allow(unsafe_code, reason = "the crate's unsafe code lives here")]

mod continuation;
mod gate;
mod helper;
mod memory;
mod nothing;
mod repeat;
mod signals;

use core::mem::ManuallyDrop;

use sys::Fd;
use sys::own_memory::{self, Access};

pub(crate) use helper::{leave, spawn_helper};
pub(crate) use memory::Memory;
pub(crate) use signals::install_trigger;

/// Forbids access to the lowest bytes of the arena, below the stack; without effect if the kernel refuses.
pub(crate) fn guard(start: u64, bytes: usize) {
    // SAFETY: nothing but this page's guard lives there (`arena`).
    let _ = unsafe { own_memory::protect(start, bytes, Access::None) };
}

/// Hands the host's standard error to `action`, without taking it over.
pub(crate) fn with_standard_error(action: impl FnOnce(&Fd)) {
    // SAFETY: the descriptor is only borrowed, `ManuallyDrop` keeps it open; if it is closed, its uses fail.
    let fd = ManuallyDrop::new(unsafe { Fd::from_raw(2) });
    action(&fd);
}

/// Unmaps the arena before anybody uses it.
pub(crate) fn unmap(start: u64, bytes: u64) {
    let Ok(bytes) = usize::try_from(bytes) else { return };
    // SAFETY: only `arena::unmap` calls this, when no helper was started: nobody has a reference into it.
    let _ = unsafe { own_memory::unmap(start, bytes) };
}
