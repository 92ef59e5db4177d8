//! The arena: the one mapping that a migration adds to the host, and what lies where in it.
//!
//! ```text
//! start   guard page (no access)
//!         stack of the helper thread, growing down towards the guard
//!         Header: the roster of threads, the allocator's state, the own descriptors
//!         heap, up to the end
//! ```
//! Mapped at the trigger, kept out of forked children, unmapped by the helper's last instructions.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memory::{Addr, PAGE_SIZE, PageRange};
use sys::descriptor::tcp;
use sys::{Errno, own_memory};

use crate::capture::connections;
use crate::config::{ARENA_BYTES, MAX_CONNECTIONS, MAX_THREADS, SMALLEST_ARENA_BYTES, STACK_BYTES};
use crate::ffi;
use crate::quiesce::{Board, Seat};
use crate::state::STATE;

/// Size classes of the heap: powers of two up to 2^31.
pub(crate) const CLASSES: usize = 32;
/// Descriptors that a panic has to close.
const OWN_DESCRIPTORS: usize = 8;
const GUARD_BYTES: usize = 4096;

/// What the parasite keeps in the arena beside its heap. All zero is its initial value.
pub(crate) struct Header {
    /// One seat for every thread of the host.
    pub(crate) seats: [Seat; MAX_THREADS],
    /// Seats that were ever taken.
    pub(crate) seats_used: AtomicU32,
    /// What parked threads are to do; they sleep on it: see `quiesce`.
    pub(crate) orders: AtomicU32,
    /// What parked threads are asked.
    pub(crate) board: Board,
    /// Counts threads that came to rest; the coordinator sleeps on it.
    pub(crate) arrivals: AtomicU32,
    /// `__rseq_offset` of the host's libc plus one bit: see `rseq`.
    pub(crate) rseq_offset: AtomicU64,
    /// 1 if `rseq_offset` is known.
    pub(crate) rseq_known: AtomicU32,
    /// Bytes that the kernel may have registered for rseq beside the usual 32; 0 if none.
    pub(crate) rseq_len: AtomicU32,
    /// 1 if the process was not dumpable and was made so.
    pub(crate) opened: AtomicU32,
    /// 1 once `Run` was sent: from here the process must never run here again.
    pub(crate) committed: AtomicU32,
    /// First byte of the heap that was never given out; 0 before the first allocation.
    pub(crate) heap_next: AtomicU64,
    /// Heads of the free lists.
    pub(crate) heap_free: [AtomicU64; CLASSES],
    /// Connections that were frozen: see `capture::connections`.
    pub(crate) frozen: [AtomicU32; MAX_CONNECTIONS],
    /// Own descriptors, each plus one; 0 for none.
    descriptors: [AtomicU32; OWN_DESCRIPTORS],
}

impl Header {
    /// Remembers a descriptor that has to be closed even if nothing is dropped any more.
    pub(crate) fn remember(&self, raw: i32) {
        let mark = raw.cast_unsigned() + 1;
        let free =
            |slot: &&AtomicU32| slot.compare_exchange(0, mark, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let _ = self.descriptors.iter().find(free);
    }

    /// The remembered descriptors.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = u32> + '_ {
        self.descriptors.iter().filter_map(|slot| slot.load(Ordering::SeqCst).checked_sub(1))
    }

    /// Lets frozen connections go on.
    pub(crate) fn thaw(&self) {
        for (fd, before) in connections::frozen(&self.frozen) {
            tcp::thaw(fd, before);
        }
        for mark in &self.frozen {
            if mark.swap(0, Ordering::SeqCst) == 0 {
                break;
            }
        }
    }

    /// Closes every remembered descriptor, for the end without drops.
    pub(crate) fn close_remembered(&self) {
        for slot in &self.descriptors {
            let mark = slot.swap(0, Ordering::SeqCst);
            if let Some(raw) = mark.checked_sub(1) {
                ffi::close(raw.cast_signed());
            }
        }
    }
}

/// Why there is no arena.
pub(crate) struct NoArena(pub(crate) Errno);

/// Maps the arena, as large as the host's limits allow.
pub(crate) fn map() -> Result<(), NoArena> {
    let mut bytes = ARENA_BYTES;
    loop {
        match own_memory::map_anonymous(bytes) {
            Ok(start) => {
                STATE.set_arena(start, bytes);
                // Old kernels without the advice let children inherit the arena: they waste it, no more.
                let _ = own_memory::keep_from_children(start, bytes);
                ffi::guard(start, GUARD_BYTES);
                return Ok(());
            }
            Err(errno) if bytes <= SMALLEST_ARENA_BYTES => return Err(NoArena(errno)),
            Err(_) => bytes /= 2,
        }
    }
}

/// Where the arena is, for whoever has to leave it out.
pub(crate) fn range() -> Option<PageRange> {
    let (start, bytes) = STATE.arena()?;
    PageRange::from_pages(Addr(start), bytes / PAGE_SIZE)
}

/// The top of the helper's stack in an arena at `start`.
pub(crate) const fn stack_top(start: u64) -> u64 {
    start + (GUARD_BYTES + STACK_BYTES) as u64
}

/// Where the header is in an arena at `start`.
pub(crate) const fn header_at(start: u64) -> u64 {
    stack_top(start)
}

/// Where the heap begins in an arena at `start`.
pub(crate) const fn heap_at(start: u64) -> u64 {
    (header_at(start) + size_of::<Header>() as u64).next_multiple_of(4096)
}

/// Unmaps an arena on which no helper was started.
pub(crate) fn unmap() {
    if let Some((start, bytes)) = STATE.arena() {
        ffi::unmap(start, bytes);
    }
}
