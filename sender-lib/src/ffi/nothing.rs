//! A heap that has nothing: the crates that are shared with the body name one, but what is used of them here does without.

use core::alloc::{GlobalAlloc, Layout};

struct Nothing;

#[global_allocator]
static NOTHING: Nothing = Nothing;

// SAFETY: no block is ever given out.
unsafe impl GlobalAlloc for Nothing {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
