//! Where things are in the hole: the one stretch of address space that neither the blank child's parent nor
//! the program to be restored uses.

use memory::{Addr, PAGE_SIZE, PageRange, USER_END};

use super::trampoline;

/// Bytes of one operation.
pub(super) const OP_BYTES: u64 = 64;
/// Operations of the largest program.
pub(super) const MAX_OPS: u64 = 4096;
/// Data bytes of the largest program.
pub(super) const MAX_DATA_BYTES: u64 = 1 << 20;
/// Bytes for one thread: its operations and their data.
pub(super) const THREAD_BYTES: u64 = 8192;
/// Operations of one thread.
pub(super) const THREAD_OPS: u64 = 48;

/// Bytes of data that threads share.
pub(super) const SHARED_DATA_BYTES: u64 = PAGE_SIZE - 256;

/// Offsets from the hole's start.
const LOOP: u64 = 2 * PAGE_SIZE;
const FAILURE: u64 = LOOP + 8 * OP_BYTES;
const TOKEN: u64 = LOOP + 2048;
const WORDS: u64 = 3 * PAGE_SIZE;
const OPS: u64 = 4 * PAGE_SIZE;
const DATA: u64 = OPS + MAX_OPS * OP_BYTES;
const THREADS: u64 = DATA + MAX_DATA_BYTES;

/// Address space kept free on both sides of the hole, for heaps and stacks that grow before it is in use.
const MARGIN: u64 = 1 << 30;
/// The hole starts at a multiple of this.
const ALIGNMENT: u64 = 2 << 20;

/// The hole's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole(PageRange);

impl Hole {
    /// A hole with room for `threads` threads in the middle of the largest gap that `occupied` leaves.
    /// `None` if no gap is large enough.
    #[must_use]
    pub fn find(occupied: &[PageRange], threads: u64) -> Option<Self> {
        let len = THREADS.checked_add(threads.checked_mul(THREAD_BYTES)?)?;
        let mut sorted: Vec<PageRange> = occupied.iter().copied().filter(|range| !range.is_empty()).collect();
        sorted.sort_unstable();
        let mut from = ALIGNMENT;
        let mut best: Option<(u64, u64)> = None;
        for (start, end) in sorted.iter().map(|r| (r.start().0, r.end().0)).chain([(USER_END, USER_END)]) {
            let size = start.saturating_sub(from);
            if best.is_none_or(|(_, largest)| size > largest) {
                best = Some((from, size));
            }
            from = from.max(end);
        }
        let (start, size) = best?;
        if size < len.checked_add(2 * MARGIN)? {
            return None;
        }
        let middle = (start + size / 2).next_multiple_of(ALIGNMENT);
        PageRange::covering(Addr(middle), len).map(Self)
    }

    /// All of it.
    #[must_use]
    pub const fn range(self) -> PageRange {
        self.0
    }
}

/// The hole's inner layout, as addresses in the child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    hole: Hole,
}

impl Layout {
    /// The layout of `hole`.
    #[must_use]
    pub const fn new(hole: Hole) -> Self {
        Self { hole }
    }

    /// The hole.
    #[must_use]
    pub const fn hole(self) -> Hole {
        self.hole
    }

    const fn at(self, offset: u64) -> Addr {
        Addr(self.hole.0.start().0 + offset)
    }

    /// The three operations between programs: write "done", read "go", jump to the program.
    #[must_use]
    pub const fn idle_loop(self) -> Addr {
        self.at(LOOP)
    }

    /// Where a program goes on after an operation that must not fail has failed.
    #[must_use]
    pub const fn failure(self) -> Addr {
        self.at(FAILURE)
    }

    /// Eight bytes for "go" and "done".
    #[must_use]
    pub const fn token(self) -> Addr {
        self.at(TOKEN)
    }

    /// How many threads have still to leave.
    #[must_use]
    pub const fn leaving_count(self) -> Addr {
        self.at(WORDS)
    }

    /// Becomes 1 when threads can read what they are to become.
    #[must_use]
    pub const fn begin(self) -> Addr {
        self.at(WORDS + 64)
    }

    /// Becomes 1 when threads shall leave.
    #[must_use]
    pub const fn leave(self) -> Addr {
        self.at(WORDS + 128)
    }

    /// Data that stays, for operations of threads: the credentials.
    #[must_use]
    pub const fn shared_data(self) -> Addr {
        self.at(WORDS + 256)
    }

    /// The program's first operation.
    #[must_use]
    pub const fn program(self) -> Addr {
        self.at(OPS)
    }

    /// The program's data.
    #[must_use]
    pub const fn data(self) -> Addr {
        self.at(DATA)
    }

    /// The operations of thread number `index`; `None` if the hole was made for fewer threads.
    #[must_use]
    pub fn thread(self, index: u64) -> Option<Addr> {
        let offset = THREADS.checked_add(index.checked_mul(THREAD_BYTES)?)?;
        (offset + THREAD_BYTES <= self.hole.0.len()).then(|| self.at(offset))
    }

    /// The data of a thread whose operations are at `ops`.
    #[must_use]
    pub const fn thread_data(ops: Addr) -> Addr {
        Addr(ops.0 + THREAD_OPS * OP_BYTES)
    }

    /// Offset in the shared memory of an address in the hole.
    #[must_use]
    pub const fn offset(self, addr: Addr) -> u64 {
        addr.0 - self.hole.0.start().0
    }

    /// The word that names the first failed operation.
    #[must_use]
    pub const fn failed(self) -> Addr {
        self.at(trampoline::STATUS_FAILED)
    }

    /// The word that says where to go on after a failure.
    #[must_use]
    pub const fn on_failure(self) -> Addr {
        self.at(trampoline::STATUS_ON_FAILURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(Addr(start), Addr(end)).expect("whole pages")
    }

    #[test]
    fn the_hole_lies_in_the_largest_gap_and_touches_nothing() {
        let occupied = [range(0x5555_5555_0000, 0x5555_5575_0000), range(0x7f00_0000_0000, 0x7fff_ffff_0000)];
        let hole = Hole::find(&occupied, 256).expect("there is room").range();
        assert!(hole.end().0 + MARGIN <= 0x5555_5555_0000 && hole.start().0 >= MARGIN, "{hole}");
        assert!(occupied.iter().all(|taken| taken.intersection(hole).is_none()));
    }

    #[test]
    fn there_is_no_hole_in_a_full_address_space() {
        assert_eq!(Hole::find(&[range(0, USER_END)], 1), None);
    }

    #[test]
    fn each_thread_has_a_place_of_its_own() {
        let layout = Layout::new(Hole::find(&[], 3).expect("there is room"));
        assert_eq!(
            layout.thread(2).map(|at| at.0 - layout.thread(1).unwrap_or_default().0),
            Some(THREAD_BYTES)
        );
        assert!(layout.thread(3).is_none());
    }
}
