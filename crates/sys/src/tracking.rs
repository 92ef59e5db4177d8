//! Watching which pages of the calling process are written: a userfaultfd in `WP_ASYNC` mode (Linux 6.7), of which
//! [`crate::pagemap`] reads the result. Nothing waits for anybody: it has no events and no faults.
//!
//! It may be had without privileges: in this mode the kernel lets its own writes through too, and notes them, although
//! the descriptor is for user mode only.

use memory::PageRange;

use crate::raw::{nr, syscall3};
use crate::{Errno, Fd};

const CLOSE_ON_EXEC: usize = 0o200_0000;
const NON_BLOCKING: usize = 0o4000;
const USER_MODE_ONLY: usize = 1;
const UFFDIO_API: usize = 0xc018_aa3f;
const UFFDIO_REGISTER: usize = 0xc020_aa00;
const UFFDIO_UNREGISTER: usize = 0x8010_aa01;
const VERSION: u64 = 0xaa;
const WP_ASYNC: u64 = 1 << 15;
const MODE_WP: u64 = 1 << 1;

/// Watches ranges of the calling process for as long as it is there.
#[derive(Debug)]
pub struct Tracking(Fd);

impl Tracking {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// Those of userfaultfd(2), and `EINVAL` from a kernel before 6.7.
    pub fn begin() -> Result<Self, Errno> {
        let flags = CLOSE_ON_EXEC | NON_BLOCKING | USER_MODE_ONLY;
        // SAFETY: the call takes no pointer.
        let fd = Fd::from_result(unsafe { syscall3(nr::USERFAULTFD, flags, 0, 0) }?)?;
        let tracking = Self(fd);
        tracking.ioctl(UFFDIO_API, [VERSION, WP_ASYNC, 0, 0])?;
        Ok(tracking)
    }

    /// The same behind another number.
    #[must_use]
    pub fn moved_from(self, lowest: u32) -> Self {
        self.0.duplicate_from(lowest).map_or(self, Self)
    }

    /// The descriptor behind it.
    #[must_use]
    pub const fn descriptor(&self) -> &Fd {
        &self.0
    }

    /// Watches the mappings in `range`, if they can be watched. All their pages count as written then.
    ///
    /// # Errors
    /// Those of `UFFDIO_REGISTER`: `EBUSY` if another userfaultfd has them, `EINVAL` or `ENOENT` if they cannot be
    /// watched or are not there.
    pub fn watch(&self, range: PageRange) -> Result<(), Errno> {
        self.ioctl(UFFDIO_REGISTER, [range.start().0, range.len(), MODE_WP, 0])
    }

    /// Watches `range` no more; nothing of it stays.
    ///
    /// # Errors
    /// Those of `UFFDIO_UNREGISTER`.
    pub fn forget(&self, range: PageRange) -> Result<(), Errno> {
        self.ioctl(UFFDIO_UNREGISTER, [range.start().0, range.len(), 0, 0])
    }

    fn ioctl(&self, request: usize, mut words: [u64; 4]) -> Result<(), Errno> {
        let pointer = words.as_mut_ptr().expose_provenance();
        // SAFETY: each request reads and writes at most these four words, and changes no content of memory.
        unsafe { syscall3(nr::IOCTL, self.0.arg(), request, pointer) }.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own_memory::map_anonymous;
    use crate::pagemap::{Pagemap, Wanted};
    use alloc::vec::Vec;
    use memory::{Addr, PAGE_SIZE, RangeSet};

    /// More than one page table has entries for.
    const PAGES: u64 = 1024;

    struct Watched {
        at: u64,
        tracking: Tracking,
        pagemap: Pagemap,
    }

    impl Watched {
        /// Every page holds data and has been swept.
        fn new() -> Option<Self> {
            let Ok(tracking) = Tracking::begin() else {
                std::println!("skipped: this kernel has no WP_ASYNC, or does not permit it");
                return None;
            };
            let at = map_anonymous(1024 * 4096).expect("a mapping");
            let mut watched = Self { at, tracking, pagemap: Pagemap::open().expect("readable") };
            (0..PAGES).for_each(|page| watched.write(page));
            watched.tracking.watch(watched.pages(0, PAGES)).expect("private anonymous memory");
            assert_eq!(watched.written(), [watched.pages(0, PAGES)]);
            Some(watched)
        }

        fn pages(&self, from: u64, count: u64) -> PageRange {
            PageRange::from_pages(Addr(self.at + from * PAGE_SIZE), count).expect("a small range")
        }

        fn pointer(&self, page: u64) -> *mut u8 {
            let at = usize::try_from(self.at + page * PAGE_SIZE).expect("64 bit");
            core::ptr::with_exposed_provenance_mut(at)
        }

        fn write(&self, page: u64) {
            // SAFETY: the page is mapped and only this test knows it.
            unsafe { self.pointer(page).write_volatile(7) };
        }

        fn read(&self, page: u64) -> u8 {
            // SAFETY: as above.
            unsafe { self.pointer(page).read_volatile() }
        }

        fn drop_content(&self, page: u64, count: u64) {
            const MADV_DONTNEED: usize = 4;
            let len = usize::try_from(count * PAGE_SIZE).expect("64 bit");
            // SAFETY: as above.
            unsafe { syscall3(nr::MADVISE, self.pointer(page).addr(), len, MADV_DONTNEED) }.expect("mapped");
        }

        fn written(&mut self) -> Vec<PageRange> {
            self.pagemap.scan(self.pages(0, PAGES), Wanted::WrittenSince).expect("mapped")
        }

        fn unchanged(&mut self) -> Vec<PageRange> {
            let mut unchanged: RangeSet = [self.pages(0, PAGES)].into_iter().collect();
            for changed in self.pagemap.scan(self.pages(0, PAGES), Wanted::Changed).expect("mapped") {
                unchanged.remove(changed);
            }
            unchanged.runs().collect()
        }
    }

    #[test]
    fn what_is_written_is_told_once_and_is_not_unchanged() {
        let Some(mut watched) = Watched::new() else { return };
        assert_eq!(watched.unchanged(), [watched.pages(0, PAGES)]);
        watched.write(5);
        assert_eq!(watched.unchanged(), [watched.pages(0, 5), watched.pages(6, PAGES - 6)]);
        assert_eq!(watched.written(), [watched.pages(5, 1)]);
        assert_eq!(watched.written(), []);
        assert_eq!(watched.unchanged(), [watched.pages(0, PAGES)]);
    }

    #[test]
    fn a_dropped_page_is_never_unchanged_whatever_becomes_of_it() {
        let Some(mut watched) = Watched::new() else { return };
        for page in [1, 3, 5] {
            watched.drop_content(page, 1);
        }
        assert_eq!(watched.read(3), 0);
        watched.write(5);
        let unchanged = watched.unchanged();
        for page in [1, 3, 5] {
            let page = watched.pages(page, 1);
            assert!(unchanged.iter().all(|run| run.intersection(page).is_none()), "{page}");
        }
        assert_eq!(watched.written(), [watched.pages(5, 1)]);
        assert_eq!(watched.unchanged().iter().map(|run| run.pages()).sum::<u64>(), PAGES - 2);
    }

    #[test]
    fn where_all_was_dropped_nothing_is_unchanged() {
        let Some(mut watched) = Watched::new() else { return };
        watched.drop_content(0, PAGES);
        assert_eq!(watched.unchanged(), []);
    }

    #[test]
    fn what_is_not_watched_is_neither_written_nor_unchanged() {
        let Some(mut watched) = Watched::new() else { return };
        watched.tracking.forget(watched.pages(0, PAGES)).expect("it was watched");
        let first = watched.pages(0, 1);
        assert_eq!(watched.pagemap.scan(first, Wanted::Watched), Ok(Vec::new()));
        assert_eq!((watched.written(), watched.unchanged()), (Vec::new(), Vec::new()));
        watched.tracking.watch(watched.pages(0, PAGES)).expect("again");
        assert_eq!(watched.pagemap.scan(first, Wanted::Watched), Ok(alloc::vec![first]));
        assert_eq!(watched.unchanged(), []);
    }
}
