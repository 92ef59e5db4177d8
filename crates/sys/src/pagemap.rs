//! Which pages of a process hold bytes of their own: `PAGEMAP_SCAN` (Linux 6.7), or the entries of
//! `/proc/self/pagemap` on older kernels.

use alloc::vec::Vec;
use core::ffi::CStr;

use memory::{Addr, PAGE_SHIFT, PageRange};

use crate::raw::{nr, syscall3};
use crate::{Errno, Fd, file};

const PAGEMAP_SCAN: usize = 0xc060_6610;
const PAGE_IS_WPALLOWED: u64 = 1;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_GUARD: u64 = 1 << 8;
/// What is reported is watched from then on; mappings that are not watched at all are passed over.
const PM_SCAN_WP_MATCHING: u64 = 1;
/// Regions that one call may return.
const REGIONS: usize = 1024;
/// Entries of eight bytes that the older way reads at a time.
const ENTRIES: usize = 2048;
const ENTRY_PRESENT: u64 = 1 << 63;
const ENTRY_SWAPPED: u64 = 1 << 62;
const ENTRY_FILE: u64 = 1 << 61;

/// Which pages to report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Pages of private memory that the process has written: neither the file's own nor the zero page.
    Private,
    /// Pages that must not be touched (`MADV_GUARD_INSTALL`); none where the kernel does not tell (before 6.15).
    Guards,
    /// Pages that the page tables know of, whatever they are: for shared memory, whose pages all count as
    /// those of a file.
    Known,
    /// Pages in [watched](crate::tracking) mappings of private memory that were written since they were last reported; they are
    /// taken for unchanged from here on.
    WrittenSince,
    /// Whatever has not been reported as written, or has been written or dropped since, or is not watched: the other pages
    /// of private memory hold what they held when they were reported.
    Changed,
    /// Whatever lies in a watched mapping.
    Watched,
}

impl Wanted {
    /// Whether a kernel before 6.7 can tell.
    const fn is_old(self) -> bool {
        matches!(self, Self::Private | Self::Guards | Self::Known)
    }
}

/// `struct pm_scan_arg` (linux/fs.h).
#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArgument>() == 96, "struct pm_scan_arg is 96 bytes");

/// `struct page_region` (linux/fs.h).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

const _: () = assert!(size_of::<Region>() == 24, "struct page_region is 24 bytes");

/// The page tables of a process.
#[derive(Debug)]
pub struct Pagemap {
    fd: Fd,
    regions: Vec<Region>,
    /// `PAGE_IS_GUARD`, if the kernel knows it.
    guard: u64,
}

impl core::fmt::Debug for Region {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}

impl Pagemap {
    /// Opens `/proc/thread-self/pagemap`.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open() -> Result<Self, Errno> {
        let mut opened = Self::at(c"/proc/thread-self/pagemap")?;
        if opened.scan_part(0, 0, Wanted::Guards, &mut Vec::new()).is_err() {
            opened.guard = 0;
        }
        Ok(opened)
    }

    /// Those of another process; none where the kernel would have to be asked page by page (before Linux 6.7).
    ///
    /// # Errors
    /// Those of open(2).
    #[cfg(feature = "std")]
    pub fn of(pid: u32) -> Result<Option<Self>, Errno> {
        let path = std::ffi::CString::new(std::format!("/proc/{pid}/pagemap")).map_err(|_| Errno::EINVAL)?;
        let mut opened = Self::at(&path)?;
        let answer = opened.scan_part(0, 0, Wanted::Known, &mut Vec::new());
        Ok((answer != Err(Errno::ENOTTY)).then_some(opened))
    }

    fn at(path: &CStr) -> Result<Self, Errno> {
        let fd = file::open(path, file::READ_ONLY)?;
        Ok(Self { fd, regions: alloc::vec![Region::default(); REGIONS], guard: PAGE_IS_GUARD })
    }

    /// The descriptor behind it.
    #[must_use]
    pub const fn descriptor(&self) -> &Fd {
        &self.fd
    }

    /// The wanted pages of `range`, as ascending maximal runs. A hole in the address space has none.
    ///
    /// # Errors
    /// Those of ioctl(2) and pread(2).
    pub fn scan(&mut self, range: PageRange, wanted: Wanted) -> Result<Vec<PageRange>, Errno> {
        let mut runs = Vec::new();
        let mut from = range.start().0;
        if wanted == Wanted::Guards && self.guard == 0 {
            return Ok(runs);
        }
        while from < range.end().0 {
            from = match self.scan_part(from, range.end().0, wanted, &mut runs) {
                // Kernels before 6.7 do not know the request.
                Err(Errno::ENOTTY) if wanted.is_old() => {
                    self.read_part(from, range.end().0, wanted, &mut runs)?
                }
                other => other?,
            };
        }
        Ok(runs)
    }

    /// One `PAGEMAP_SCAN`; returns where to go on.
    fn scan_part(
        &mut self,
        from: u64,
        to: u64,
        wanted: Wanted,
        runs: &mut Vec<PageRange>,
    ) -> Result<u64, Errno> {
        let held = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
        let not_private = PAGE_IS_FILE | PAGE_IS_PFNZERO | self.guard;
        // To ask for those of a file has the kernel look at each page, not only at its entry: ten times the time.
        let (not, all_of, one_of) = match wanted {
            Wanted::Private => (not_private, not_private, held),
            Wanted::WrittenSince => {
                let nothing = PAGE_IS_PFNZERO | self.guard;
                (nothing, nothing | PAGE_IS_WPALLOWED | PAGE_IS_WRITTEN, held)
            }
            Wanted::Changed => {
                let unchanged = PAGE_IS_WPALLOWED | PAGE_IS_PRESENT;
                (unchanged, 0, unchanged | PAGE_IS_WRITTEN)
            }
            Wanted::Watched => (0, PAGE_IS_WPALLOWED, 0),
            Wanted::Known => (0, 0, held),
            Wanted::Guards => (0, self.guard, 0),
        };
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            flags: if wanted == Wanted::WrittenSince { PM_SCAN_WP_MATCHING } else { 0 },
            start: from,
            end: to,
            vec: self.regions.as_mut_ptr().expose_provenance() as u64,
            vec_len: self.regions.len() as u64,
            category_inverted: not,
            category_mask: all_of,
            category_anyof_mask: one_of,
            return_mask: PAGE_IS_PRESENT,
            ..ScanArgument::default()
        };
        let pointer = (&raw mut argument).expose_provenance();
        // SAFETY: the argument is valid for reads and writes; its vector is `regions`, of which the kernel
        // writes at most `vec_len` elements.
        let found = unsafe { syscall3(nr::IOCTL, self.fd.arg(), PAGEMAP_SCAN, pointer) }?;
        for region in self.regions.iter().take(found) {
            push(runs, PageRange::new(Addr(region.start), Addr(region.end)));
        }
        // With room left in the vector the scan is complete, even where the kernel says that it stopped early. It does where its
        // last piece was not the first one, and then it says where the piece before ended.
        let Some(last) = self.regions.get(found.wrapping_sub(1)).filter(|_| found == self.regions.len())
        else {
            return Ok(to);
        };
        Ok(argument.walk_end.max(last.end).min(to))
    }

    /// One read of entries; returns where to go on.
    fn read_part(&self, from: u64, to: u64, wanted: Wanted, runs: &mut Vec<PageRange>) -> Result<u64, Errno> {
        let mut bytes = alloc::vec![0; ENTRIES * 8];
        let got = file::read_at(&self.fd, &mut bytes, (from >> PAGE_SHIFT) * 8)?;
        let mut at = Addr(from);
        let (entries, _) = bytes.get(..got).unwrap_or_default().as_chunks::<8>();
        for entry in entries {
            let entry = u64::from_le_bytes(*entry);
            let held = entry & (ENTRY_PRESENT | ENTRY_SWAPPED) != 0;
            let Some(page) = PageRange::page_of(at).filter(|page| page.end().0 <= to) else { break };
            if held && wanted != Wanted::Guards && (wanted == Wanted::Known || entry & ENTRY_FILE == 0) {
                push(runs, Some(page));
            }
            at = page.end();
        }
        Ok(if at.0 == from { to } else { at.0 })
    }
}

/// Appends `run`, joined with the last one if it goes on from there.
fn push(runs: &mut Vec<PageRange>, run: Option<PageRange>) {
    let Some(run) = run else { return };
    let joined = runs.last().filter(|last| last.end() == run.start());
    match joined.and_then(|last| PageRange::new(last.start(), run.end())) {
        Some(longer) => {
            runs.pop();
            runs.push(longer);
        }
        None => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own_memory;

    fn pages(start: u64, from: u64, count: u64) -> PageRange {
        PageRange::from_pages(Addr(start + from * 4096), count).expect("a small range")
    }

    /// A mapping of 4096 pages with content in every other page of the first 3000 and in the last one.
    fn mapping() -> (u64, Vec<PageRange>) {
        let at = own_memory::map_anonymous(4096 * 4096).expect("sixteen MiB of address space");
        let mut written: Vec<PageRange> = (0..1500).map(|page| pages(at, page * 2, 1)).collect();
        written.push(pages(at, 4095, 1));
        for page in &written {
            let zero = file::open(c"/proc/self/mem", 2).expect("own memory");
            // SAFETY: lseek and write on our own descriptor into memory that only this test knows.
            unsafe { syscall3(nr::LSEEK, zero.arg(), usize::try_from(page.start().0).expect("64 bit"), 0) }
                .expect("a position");
            file::write_all(&zero, b"x").expect("mapped and writable");
        }
        (at, written)
    }

    #[test]
    fn exactly_the_written_pages_are_found_by_both_ways() {
        let (at, written) = mapping();
        let mut pagemap = Pagemap::open().expect("readable");
        let whole = pages(at, 0, 4096);
        assert_eq!(pagemap.scan(whole, Wanted::Private), Ok(written.clone()));
        let (mut runs, mut from) = (Vec::new(), at);
        while from < whole.end().0 {
            from = pagemap.read_part(from, whole.end().0, Wanted::Private, &mut runs).expect("readable");
        }
        assert_eq!(runs, written);
    }

    #[test]
    fn as_many_runs_as_fit_at_a_time_are_found_once() {
        let (at, written) = mapping();
        let mut pagemap = Pagemap::open().expect("readable");
        let pages_of = |runs: usize| pages(at, 0, 2 * runs as u64);
        for runs in [1, REGIONS / 2, REGIONS - 1, REGIONS, REGIONS + 1] {
            let found = pagemap.scan(pages_of(runs), Wanted::Private).expect("mapped");
            assert_eq!(found, written[..runs], "{runs} runs");
        }
    }

    #[test]
    fn a_part_of_a_mapping_is_scanned_alone() {
        let (at, _) = mapping();
        let mut pagemap = Pagemap::open().expect("readable");
        let found = pagemap.scan(pages(at, 1, 2), Wanted::Known).expect("mapped");
        assert_eq!(found, [pages(at, 2, 1)]);
    }

    #[test]
    fn guards_are_no_data() {
        const MADV_GUARD_INSTALL: usize = 102;
        let (at, _) = mapping();
        let mut pagemap = Pagemap::open().expect("readable");
        let guarded = pages(at, 4, 2);
        let start = usize::try_from(guarded.start().0).expect("64 bit");
        // SAFETY: memory that only this test knows.
        if unsafe { syscall3(nr::MADVISE, start, 8192, MADV_GUARD_INSTALL) }.is_err() || pagemap.guard == 0 {
            std::println!("skipped: this kernel has no guard pages, or does not tell of them");
            return;
        }
        assert_eq!(pagemap.scan(pages(at, 0, 4096), Wanted::Guards), Ok(alloc::vec![guarded]));
        assert_eq!(pagemap.scan(pages(at, 3, 4), Wanted::Private), Ok(alloc::vec![pages(at, 6, 1)]));
    }

    #[test]
    fn unchanged_pages_of_a_file_are_not_private() {
        let mappings = crate::proc::maps::own_mappings().expect("readable");
        let text = mappings.iter().find(|m| m.protection.execute && m.inode != 0).expect("this program");
        let mut pagemap = Pagemap::open().expect("readable");
        assert_eq!(pagemap.scan(text.range, Wanted::Private), Ok(Vec::new()));
        assert_ne!(pagemap.scan(text.range, Wanted::Known), Ok(Vec::new()));
    }
}
