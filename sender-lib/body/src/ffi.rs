//! Where the body touches the machine: its entries, the heap, the frames of threads at rest. The only unsafe code of this
//! crate; it decides nothing.
#![allow(unsafe_code, reason = "the crate's unsafe code lives here")]

mod allocator;
mod park;

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use memory::PageRange;
use sender_seam::Resident;
use sender_seam::restart::Interrupted;
use sys::signal_frame::{self, Register, context_at};
use sys::{Fd, own_memory};

use crate::arena::Header;
use crate::migration;
use crate::own_memory::OwnMemory;

pub(crate) use park::{install_park_handler, park_handler_is_installed, restore_park_action};

static RESIDENT: AtomicPtr<Resident> = AtomicPtr::new(null_mut());

/// Where the body begins: see [`sender_seam::Body`].
#[unsafe(export_name = "posthaste_body")]
extern "C" fn begin(resident: &'static Resident) -> bool {
    RESIDENT.store(core::ptr::from_ref(resident).cast_mut(), Relaxed);
    resident.state.set_rest((park::rest as *const ()).addr() as u64);
    migration::run()
}

/// The other half.
pub(crate) fn resident() -> &'static Resident {
    // SAFETY: the body is entered by `begin`, which gets a reference that is good for as long as the body is there.
    unsafe { &*RESIDENT.load(Relaxed) }
}

/// The arena's header, while a migration of this process is under way.
///
/// The reference is good until the arena is unmapped: the helper does that with its last instructions, other
/// threads look only while the state counts them as inside.
pub(crate) fn header() -> Option<&'static Header> {
    resident().state.arena()?;
    header_at_room()
}

/// The header, in an arena that is known to be there.
fn header_at_room() -> Option<&'static Header> {
    let at = usize::try_from(resident().room).ok()?;
    // SAFETY: the arena is mapped, zeroed by the kernel and large enough for the page-aligned header; a header
    // is made of atomics, for which all zero is a value and sharing is allowed.
    Some(unsafe { &*core::ptr::with_exposed_provenance::<Header>(at) })
}

/// The signals that a thread at rest had blocked, whose frame is at `frame`.
pub(crate) fn blocked_at(frame: u64) -> u64 {
    // SAFETY: a seat holds the address while its thread rests.
    unsafe { signal_frame::get(context_at(frame), Register::Mask) }
}

/// Lets the call in which a thread came to rest have returned `EINTR`.
pub(crate) fn interrupt(frame: u64, was: Interrupted) {
    const EINTR: u64 = (-4_i64).cast_unsigned();
    for (register, value) in
        [(Register::Instruction, was.instruction), (Register::Stack, was.stack), (Register::Result, EINTR)]
    {
        // SAFETY: as above; the code goes on behind its call, as after any `EINTR`.
        unsafe { signal_frame::set(context_at(frame), register, value) };
    }
}

/// Drops the content of private memory of a program that runs elsewhere.
pub(crate) fn empty(range: PageRange) {
    let Ok(len) = usize::try_from(range.len()) else { return };
    // SAFETY: the program's threads rest for ever, and the range is none of the parasite's. An error only keeps memory.
    let _ = unsafe { own_memory::empty(range.start().0, len) };
}

/// The bytes of private memory of the program where they are, if all of them can be read; for as long as `_stopped` knows its
/// mappings, which is from when it has come to rest until it is released.
pub(crate) fn bytes(_stopped: &OwnMemory, pages: PageRange) -> Option<&[u8]> {
    let len = usize::try_from(pages.len()).ok()?;
    // SAFETY: the program's threads rest for as long as its mappings are known, nobody else shares private memory, and the
    // range is none of the parasite's. What a debugger writes meanwhile arrives or does not. Memory that fails behind the
    // look is the end of the process, as it would be if the program touched it.
    unsafe { own_memory::brought_in(pages.start().0, len) }
}

/// Unmaps memory of a program that runs elsewhere.
pub(crate) fn unmap(range: PageRange) {
    let Ok(len) = usize::try_from(range.len()) else { return };
    // SAFETY: as above.
    let _ = unsafe { own_memory::unmap(range.start().0, len) };
}

/// Closes a descriptor that the parasite opened and whose `Fd` will never be dropped.
pub(crate) fn close(raw: i32) {
    // SAFETY: `arena::Header::remember` got the number from an `Fd` of the parasite that nobody drops any more.
    drop(unsafe { Fd::from_raw(raw) });
}
