//! What the body has in the arena, the one mapping that a migration adds to the host. (The resident half maps it, has
//! the helper's stack in it and unpacks the body into it.)
//!
//! ```text
//! room    Header: the roster of threads, the allocator's state, the own descriptors
//!         heap, up to the end
//! ```

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memory::{Addr, PAGE_SIZE, PageRange};
use sys::descriptor::tcp;

use crate::config::{MAX_CONNECTIONS, MAX_THREADS};
use crate::ffi::{self, resident};
use crate::quiesce::{Board, Seat};
use capture::connections;

/// Size classes of the heap: powers of two up to 2^31.
pub(crate) const CLASSES: usize = 32;
/// Descriptors that a panic has to close.
const OWN_DESCRIPTORS: usize = 8;

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
    /// The count for which it is to be woken: every thread that wakes it earlier is in the way of those that follow.
    pub(crate) awaited: AtomicU32,
    /// `__rseq_offset` of the host's libc plus one bit: see `rseq`.
    pub(crate) rseq_offset: AtomicU64,
    /// 1 if `rseq_offset` is known.
    pub(crate) rseq_known: AtomicU32,
    /// Bytes that the kernel may have registered for rseq beside the usual 32; 0 if none.
    pub(crate) rseq_len: AtomicU32,
    /// Start and end of code in which no thread may rest.
    pub(crate) restless: [AtomicU64; 2],
    /// 1 if the process was not dumpable and was made so.
    pub(crate) opened: AtomicU32,
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

    /// Forbids threads to rest in `range`.
    pub(crate) fn forbid(&self, range: PageRange) {
        for (slot, end) in self.restless.iter().zip([range.start(), range.end()]) {
            slot.store(end.0, Ordering::SeqCst);
        }
    }

    /// Whether a thread may rest with `instruction` as its next one.
    pub(crate) fn forbids(&self, instruction: u64) -> bool {
        let [start, end] = self.restless.each_ref().map(|slot| slot.load(Ordering::SeqCst));
        (start..end).contains(&instruction)
    }

    /// Whether there is a place where no thread may rest.
    pub(crate) fn forbids_any(&self) -> bool {
        let [_, end] = &self.restless;
        end.load(Ordering::SeqCst) != 0
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

/// Where the arena is, for whoever has to leave it out.
pub(crate) fn range() -> Option<PageRange> {
    let (start, bytes) = resident().state.arena()?;
    PageRange::from_pages(Addr(start), bytes / PAGE_SIZE)
}

/// Where the heap begins.
pub(crate) fn heap() -> u64 {
    (resident().room + size_of::<Header>() as u64).next_multiple_of(PAGE_SIZE)
}
