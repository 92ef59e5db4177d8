//! The arena: the one mapping that a migration adds to the host, and what lies where in it.
//!
//! ```text
//! start   guard page (no access)
//!         stack of the helper thread, growing down towards the guard
//!         room for the body, up to the end
//! ```
//! Mapped at the trigger, kept out of forked children, unmapped by the helper's last instructions.

use sys::{Errno, own_memory};

use crate::config::{ARENA_BYTES, SMALLEST_ARENA_BYTES, STACK_BYTES};
use crate::{STATE, ffi};

const GUARD_BYTES: usize = 4096;

/// Maps the arena, as large as the host's limits allow, and returns where it is.
pub(crate) fn map() -> Result<u64, Errno> {
    let mut bytes = ARENA_BYTES;
    loop {
        match own_memory::map_anonymous(bytes) {
            Ok(start) => {
                STATE.set_arena(start, bytes);
                // Old kernels without the advice let children inherit the arena: they waste it, no more.
                let _ = own_memory::keep_from_children(start, bytes);
                ffi::guard(start, GUARD_BYTES);
                return Ok(start);
            }
            Err(errno) if bytes <= SMALLEST_ARENA_BYTES => return Err(errno),
            Err(_) => bytes /= 2,
        }
    }
}

/// The top of the helper's stack in an arena at `start`.
pub(crate) const fn stack_top(start: u64) -> u64 {
    start + (GUARD_BYTES + STACK_BYTES) as u64
}

/// Unmaps an arena on which no helper was started.
pub(crate) fn unmap() {
    if let Some((start, bytes)) = STATE.arena() {
        ffi::unmap(start, bytes);
    }
}
