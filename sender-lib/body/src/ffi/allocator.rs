//! The heap in the arena: powers of two, one free list for each, the rest taken from the front.
//!
//! Only the helper thread allocates; the arena goes as a whole. No lock, no header per block, no return of memory
//! to the kernel before the end.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::Ordering::Relaxed;

use super::{header_at_room, resident};
use crate::arena::{self, CLASSES, Header};

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// Blocks are at least this large: room for the link of a free list, and the alignment of a large integer.
const SMALLEST: usize = 16;

/// Bytes of the block that holds `layout`, and its class; `None` if it is out of all proportion.
fn block(layout: Layout) -> Option<(usize, usize)> {
    let bytes = layout.size().max(layout.align()).max(SMALLEST).checked_next_power_of_two()?;
    let class = bytes.trailing_zeros() as usize;
    (class < CLASSES).then_some((bytes, class))
}

/// The arena's header and its end.
fn arena() -> Option<(&'static Header, u64)> {
    let (start, len) = resident().state.arena_of_helper()?;
    Some((header_at_room()?, start + len))
}

fn take(layout: Layout) -> Option<*mut u8> {
    let (header, end_of_arena) = arena()?;
    let (bytes, class) = block(layout)?;
    let free = header.heap_free.get(class)?;
    let first = free.load(Relaxed);
    if let Some(at) = usize::try_from(first).ok().filter(|at| *at != 0) {
        let at = core::ptr::with_exposed_provenance_mut::<u64>(at);
        // SAFETY: `dealloc` put the block on the list and the address of the next one into it.
        free.store(unsafe { at.read() }, Relaxed);
        return Some(at.cast());
    }
    let next = header.heap_next.load(Relaxed).max(arena::heap());
    // Large blocks begin on a page, so that a freed and reused one never shares one with small fry.
    let at = next.next_multiple_of(bytes.min(4096).max(layout.align()) as u64);
    let end = at.checked_add(bytes as u64).filter(|end| *end <= end_of_arena)?;
    header.heap_next.store(end, Relaxed);
    usize::try_from(at).ok().map(core::ptr::with_exposed_provenance_mut)
}

// SAFETY: blocks come from the arena, do not overlap, are aligned to their size (up to a page, or what the layout
// asks beyond), and are reused only after `dealloc`.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout).unwrap_or(core::ptr::null_mut())
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let (Some((header, _)), Some((_, class))) = (arena(), block(layout)) else { return };
        let Some(free) = header.heap_free.get(class) else { return };
        // SAFETY: the caller gives the block back; it is at least 16 bytes and aligned to 16.
        unsafe { at.cast::<u64>().write(free.load(Relaxed)) };
        free.store(at.expose_provenance() as u64, Relaxed);
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller vouches for the size together with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if block(wanted).map(|(bytes, _)| bytes) == block(layout).map(|(bytes, _)| bytes) {
            return at;
        }
        let Some(new) = take(wanted) else { return core::ptr::null_mut() };
        // SAFETY: both blocks are valid for the smaller of the sizes and distinct.
        unsafe { new.copy_from_nonoverlapping(at, layout.size().min(new_size)) };
        // SAFETY: handed on: the block is given back with the layout that it was taken with.
        unsafe { self.dealloc(at, layout) };
        new
    }
}
