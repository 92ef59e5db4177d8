//! Where the parasite touches the machine: entries from the loader and the kernel, the helper's first and last
//! instructions, the heap. The only unsafe code of this crate; it decides nothing.
#![allow(unsafe_code, reason = "the crate's unsafe code lives here")]

mod allocator;
mod continuation;
mod frame;
mod gate;
mod helper;
mod signals;
mod symbols;

use core::mem::ManuallyDrop;

use sys::{Fd, own_memory};

use crate::arena::{self, Header};
use crate::state::STATE;

pub(crate) use frame::{FrameFacts, Interrupted};
#[allow(unused_imports, reason = "the capture is on its way")]
pub(crate) use gate::leaving_gate;
pub(crate) use helper::{leave, spawn_helper};
pub(crate) use signals::{
    install_park_handler, install_trigger, park_handler_is_installed, restore_park_action,
};

/// The arena's header, while a migration of this process is under way.
///
/// The reference is good until the arena is unmapped: the helper does that with its last instructions, other
/// threads look only while [`STATE`] counts them as inside.
pub(crate) fn header() -> Option<&'static Header> {
    let (start, _) = STATE.arena()?;
    header_at(start)
}

/// The header of the arena at `start`, which [`STATE`] knows.
fn header_at(start: u64) -> Option<&'static Header> {
    let at = usize::try_from(arena::header_at(start)).ok()?;
    // SAFETY: the arena is mapped, zeroed by the kernel and large enough for the page-aligned header; a header
    // is made of atomics, for which all zero is a value and sharing is allowed.
    Some(unsafe { &*core::ptr::with_exposed_provenance::<Header>(at) })
}

/// Forbids access to the lowest bytes of the arena, below the stack; without effect if the kernel refuses.
pub(crate) fn guard(start: u64, bytes: usize) {
    // SAFETY: nothing but this page's guard lives there (`arena`).
    let _ = unsafe { own_memory::forbid(start, bytes) };
}

/// Hands the host's standard error to `action`, without taking it over.
pub(crate) fn with_standard_error(action: impl FnOnce(&Fd)) {
    // SAFETY: the descriptor is only borrowed, `ManuallyDrop` keeps it open; if it is closed, its uses fail.
    let fd = ManuallyDrop::new(unsafe { Fd::from_raw(2) });
    action(&fd);
}

/// The signals that a thread at rest had blocked, whose frame is at `frame`.
pub(crate) fn blocked_at(frame: u64) -> u64 {
    // SAFETY: a seat holds the address while its thread rests.
    unsafe { frame::mask(frame) }
}

/// Lets the call in which a thread came to rest have returned `EINTR`.
pub(crate) fn interrupt(frame: u64, was: Interrupted) {
    // SAFETY: as above.
    unsafe { frame::interrupt(frame, was) };
}

/// Closes a descriptor that the parasite opened and whose `Fd` will never be dropped.
pub(crate) fn close(raw: i32) {
    // SAFETY: `arena::Header::remember` got the number from an `Fd` of the parasite that nobody drops any more.
    drop(unsafe { Fd::from_raw(raw) });
}

/// Unmaps the arena before anybody uses it.
pub(crate) fn unmap(start: u64, bytes: u64) {
    let Ok(bytes) = usize::try_from(bytes) else { return };
    // SAFETY: only `arena::unmap` calls this, when no helper was started: nobody has a reference into it.
    let _ = unsafe { own_memory::unmap(start, bytes) };
}
