//! Memory that a session needs while the program stands still, had before: the first touch of a page is a fault, and takes
//! ten times as long where the machine is a guest whose host has yet to find the page.

use memory::{PAGE_SIZE, Sharing};
use protocol::Manifest;
use sys::own_memory::{SparePages, touch};
use sys::proc::maps::own_mappings;

/// How the allocator of a session is told to keep what is freed, rather than to give it back and fault it in again.
pub const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_TOP_PAD_", "262144"),
    ("MALLOC_TRIM_THRESHOLD_", "67108864"),
    ("MALLOC_MMAP_THRESHOLD_", "1048576"),
];

/// Bytes of heap for any program; what is large is mapped rather than taken from the heap.
const HEAP: usize = 384 << 10;
/// And for each thread and each mapping: for what the manifest says of it, and for its pages.
const HEAP_PER_THREAD: usize = 16 << 10;
const HEAP_PER_MAPPING: usize = 512;
/// At most.
const MOST_HEAP: usize = 8 << 20;
/// In pieces that the allocator takes from the heap.
const PIECE: usize = 128 << 10;
/// Mappings beyond this length are not touched: they are used a part at a time.
const LARGE: u64 = 16 << 20;
/// Pages for others: for the program's memory, and for page tables.
const PAGES: usize = 96;
const PAGES_PER_THREAD: usize = 4;
/// At most.
const MOST_PAGES: usize = 2048;

/// What the final image of a program will take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Bytes of heap.
    heap: usize,
    /// Pages.
    pages: usize,
}

impl Needs {
    /// Of a program like `manifest`.
    pub(super) fn of(manifest: &Manifest) -> Self {
        let (threads, mappings) = (manifest.threads.len(), manifest.vmas.len());
        let heap = HEAP + threads * HEAP_PER_THREAD + mappings * HEAP_PER_MAPPING;
        Self { heap: heap.min(MOST_HEAP), pages: (PAGES + threads * PAGES_PER_THREAD).min(MOST_PAGES) }
    }

    /// Touches it, behind the last fork, and returns pages for others. What cannot be had now is had later.
    pub(super) fn prepare(self) -> Option<SparePages> {
        let pieces = (0..self.heap / PIECE).map(|_| Vec::with_capacity(PIECE));
        drop(std::hint::black_box(pieces.collect::<Vec<Vec<u8>>>()));
        for mapping in own_mappings().unwrap_or_default() {
            let is_own = mapping.sharing == Sharing::Private && mapping.protection.write;
            if is_own && mapping.range.pages() * PAGE_SIZE <= LARGE {
                let _ = touch(mapping.range);
            }
        }
        SparePages::find(self.pages).ok()
    }
}
