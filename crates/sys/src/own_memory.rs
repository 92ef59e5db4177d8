//! The calling process's own memory: anonymous mappings, reading what may not be mapped, residency.

use memory::{Addr, PageRange};

use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd};

/// Maps `len` bytes of private anonymous memory without reserving swap for them; returns their address.
///
/// # Errors
/// Those of mmap(2): `ENOMEM` under `RLIMIT_AS` or strict overcommit, `EAGAIN` under `RLIMIT_MEMLOCK`.
pub fn map_anonymous(len: usize) -> Result<u64, Errno> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS_NORESERVE: usize = 0x2 | 0x20 | 0x4000;
    let arguments = [0, len, READ_WRITE, PRIVATE_ANONYMOUS_NORESERVE, usize::MAX, 0];
    // SAFETY: without MAP_FIXED the kernel picks a free place, so no existing memory changes.
    unsafe { syscall(nr::MMAP, arguments) }.map(|at| at as u64)
}

/// Has memory of the calling process brought in as if every page of it had been written, with what is in it
/// (`MADV_POPULATE_WRITE`, Linux 5.14).
///
/// # Errors
/// Those of madvise(2): `EFAULT` where it cannot be written, `ENOMEM` where nothing is mapped. Pages before that are there.
pub fn touch(range: PageRange) -> Result<(), Errno> {
    const MADV_POPULATE_WRITE: usize = 23;
    let at = usize::try_from(range.start().0).map_err(|_| Errno::EINVAL)?;
    let len = usize::try_from(range.end().0 - range.start().0).map_err(|_| Errno::EINVAL)?;
    // SAFETY: no content changes.
    unsafe { syscall3(nr::MADVISE, at, len, MADV_POPULATE_WRITE) }.map(|_| ())
}

/// Pages that the kernel has found, in a guest also its host. Once they are dropped, whoever asks next on this processor
/// gets them.
#[derive(Debug)]
pub struct SparePages {
    at: u64,
    len: usize,
}

impl SparePages {
    /// Finds `count` of them.
    ///
    /// # Errors
    /// Those of mmap(2), and as for [`touch`].
    pub fn find(count: usize) -> Result<Self, Errno> {
        const PAGE: usize = 4096;
        let len = count.checked_mul(PAGE).ok_or(Errno::EINVAL)?;
        let found = Self { at: map_anonymous(len)?, len };
        PageRange::from_pages(Addr(found.at), count as u64).ok_or(Errno::EINVAL).and_then(touch)?;
        Ok(found)
    }
}

impl Drop for SparePages {
    fn drop(&mut self) {
        // SAFETY: nobody else has heard of it.
        let _ = unsafe { unmap(self.at, self.len) };
    }
}

/// A file without a name, in memory; sealed, it can never be run (Linux 6.3).
///
/// # Errors
/// Those of memfd_create(2).
pub fn nameless_file(sealed: bool) -> Result<Fd, Errno> {
    const CLOSE_ON_EXEC: usize = 1;
    const NEVER_A_PROGRAM: usize = 8;
    let flags = if sealed { CLOSE_ON_EXEC | NEVER_A_PROGRAM } else { CLOSE_ON_EXEC };
    let name = c"posthaste".as_ptr().expose_provenance();
    // SAFETY: the name is a string in static memory; a new descriptor changes nobody's memory.
    let raw = unsafe { syscall3(nr::MEMFD_CREATE, name, flags, 0) }?;
    Fd::from_result(raw)
}

/// Unmaps `len` bytes from `at`.
///
/// # Errors
/// Those of munmap(2).
///
/// # Safety
/// Nobody uses that memory any more.
pub unsafe fn unmap(at: u64, len: usize) -> Result<(), Errno> {
    let at = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
    // SAFETY: handed on to the caller.
    unsafe { syscall3(nr::MUNMAP, at, len, 0) }.map(|_| ())
}

/// A second mapping of the shared memory behind the one that begins at `at`, of `len` bytes, which may be more than that
/// one has (mremap(2) with an old size of 0).
#[derive(Debug)]
pub struct SecondMapping {
    at: u64,
    len: usize,
}

impl SecondMapping {
    /// Maps it.
    ///
    /// # Errors
    /// Those of mremap(2): `EINVAL` for private memory.
    pub fn of(at: u64, len: usize) -> Result<Self, Errno> {
        const MREMAP_MAYMOVE: usize = 1;
        let from = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
        // SAFETY: with an old size of 0 the mapping stays, and the kernel picks a free place for the second one.
        let at = unsafe { syscall(nr::MREMAP, [from, 0, len, MREMAP_MAYMOVE, 0, 0]) }?;
        Ok(Self { at: at as u64, len })
    }

    /// Where it begins.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.at
    }
}

impl Drop for SecondMapping {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the mapping.
        let _ = unsafe { unmap(self.at, self.len) };
    }
}

/// System V shared memory, attached to be read.
#[derive(Debug)]
pub struct Segment(u64);

impl Segment {
    /// Attaches the segment with this id.
    ///
    /// # Errors
    /// Those of shmat(2): `EACCES` without permission, `EINVAL` when there is none.
    pub fn attach(id: u32) -> Result<Self, Errno> {
        const SHM_RDONLY: usize = 0o10000;
        // SAFETY: without an address the kernel picks a free place.
        unsafe { syscall3(nr::SHMAT, id as usize, 0, SHM_RDONLY) }.map(|at| Self(at as u64))
    }

    /// Where it begins.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.0
    }
}

impl Segment {
    /// Whether it consists of huge TLB pages, of which mincore(2) knows only those that were touched where it looks: the
    /// kernel does not grow such pages cold. Asked of the first page alone: what lies behind a segment may be the program's.
    #[must_use]
    pub fn is_huge(&self) -> bool {
        const MADV_COLD: usize = 20;
        let first = usize::try_from(self.0).unwrap_or(0);
        // SAFETY: the advice says what the kernel may reclaim first, and changes no content.
        let taken = unsafe { syscall3(nr::MADVISE, first, 4096, MADV_COLD) };
        taken == Err(Errno::EINVAL)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the mapping.
        let _ = unsafe { syscall3(nr::SHMDT, usize::try_from(self.0).unwrap_or(0), 0, 0) };
    }
}

/// Removes the System V segment with this id, if its owner or creator asks for that: it goes with its last attachment.
pub fn remove_segment(id: u32) {
    const IPC_RMID: usize = 0;
    // SAFETY: plain numbers; what is attached stays so.
    let _ = unsafe { syscall3(nr::SHMCTL, id as usize, IPC_RMID, 0) };
}

/// What may be done with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Nothing: a touch is a fault.
    None = 0,
    /// Reading.
    Read = 1,
    /// Reading and running.
    Execute = 1 | 4,
}

/// Allows with `len` bytes from `at` what `access` says and no more.
///
/// # Errors
/// Those of mprotect(2): `EACCES` where writable memory may not become executable (`PR_SET_MDWE`).
///
/// # Safety
/// Nobody uses that memory in another way any more.
pub unsafe fn protect(at: u64, len: usize, access: Access) -> Result<(), Errno> {
    let at = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
    // SAFETY: handed on to the caller.
    unsafe { syscall3(nr::MPROTECT, at, len, access as usize) }.map(|_| ())
}

/// Puts executable memory with the same bytes into the place of `code`, where [`protect`] may not make it so. It belongs to
/// a file without a name, and a child would inherit it.
///
/// # Errors
/// Those of memfd_create(2), write(2) and mmap(2).
///
/// # Safety
/// Whole pages, which nobody else uses.
pub unsafe fn replace_by_executable(code: &[u8]) -> Result<(), Errno> {
    const PRIVATE_FIXED: usize = 0x2 | 0x10;
    let file = nameless_file(true)?;
    crate::file::write_all(&file, code)?;
    let at = code.as_ptr().expose_provenance();
    let arguments = [at, code.len(), Access::Execute as usize, PRIVATE_FIXED, file.arg(), 0];
    // SAFETY: handed on to the caller; what is mapped there holds the same bytes.
    unsafe { syscall(nr::MMAP, arguments) }.map(|_| ())
}

/// Drops the content of `len` bytes of private memory from `at`, locked or not (Linux 5.18).
///
/// # Errors
/// Those of madvise(2).
///
/// # Safety
/// Nobody uses that memory any more.
pub unsafe fn empty(at: u64, len: usize) -> Result<(), Errno> {
    const MADV_DONTNEED_LOCKED: usize = 24;
    let at = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
    // SAFETY: handed on to the caller.
    unsafe { syscall3(nr::MADVISE, at, len, MADV_DONTNEED_LOCKED) }.map(|_| ())
}

/// Keeps `len` bytes from `at` out of children that the process forks (`MADV_DONTFORK`).
///
/// # Errors
/// Those of madvise(2).
pub fn keep_from_children(at: u64, len: usize) -> Result<(), Errno> {
    const MADV_DONTFORK: usize = 10;
    let at = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the advice changes what fork(2) copies, not the memory.
    unsafe { syscall3(nr::MADVISE, at, len, MADV_DONTFORK) }.map(|_| ())
}

/// Copies memory at `at` into `buffer` and returns how many bytes it got: fewer where a page ends that cannot be
/// read. Memory that is not mapped or not readable is an error here, never a fault.
///
/// # Errors
/// `EFAULT` when not even the first byte is readable; those of process_vm_readv(2).
pub fn read_own(at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let from = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
    let local = [buffer.as_mut_ptr().expose_provenance(), buffer.len()];
    let remote = [from, buffer.len()];
    let pid = crate::thread::process_id() as usize;
    let vectors = (local.as_ptr().expose_provenance(), remote.as_ptr().expose_provenance());
    // SAFETY: the local iovec is the buffer, valid for writes of its length; the kernel checks the remote one.
    unsafe { syscall(nr::PROCESS_VM_READV, [pid, vectors.0, 1, vectors.1, 1, 0]) }
}

/// Words of the calling process's memory at `at`; `None` where they cannot be read, and for a null pointer.
#[must_use]
pub fn own_words<const N: usize>(at: u64) -> Option<[u64; N]> {
    let mut words = [[0; 8]; N];
    let bytes = words.as_flattened_mut();
    let len = bytes.len();
    if at == 0 || read_own(at, bytes) != Ok(len) {
        return None;
    }
    Some(words.map(u64::from_ne_bytes))
}

/// The bytes of `len` bytes of memory at `at` where they are, once the kernel has brought all of them in
/// (`MADV_POPULATE_READ`, Linux 5.14): `None` where some cannot be read, or are not there, and reading would be a fault.
///
/// # Safety
/// For as long as the bytes are in use, nobody writes to them, and nobody unmaps them.
#[must_use]
pub unsafe fn brought_in<'memory>(at: u64, len: usize) -> Option<&'memory [u8]> {
    const MADV_POPULATE_READ: usize = 22;
    let at = usize::try_from(at).ok()?;
    // SAFETY: nothing changes but the page tables.
    unsafe { syscall3(nr::MADVISE, at, len, MADV_POPULATE_READ) }.ok()?;
    // SAFETY: the kernel has read all of it; the rest is handed on to the caller.
    Some(unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(at), len) })
}

/// Whether the sixteen bytes at `at` can be written: the kernel writes there what is there.
///
/// Only for memory that no other thread writes at the moment.
#[must_use]
pub fn can_be_written(at: u64) -> bool {
    let mut bytes = [0_u8; 16];
    if read_own(at, &mut bytes) != Ok(bytes.len()) {
        return false;
    }
    let local = [bytes.as_ptr().expose_provenance(), bytes.len()];
    let remote = [usize::try_from(at).unwrap_or(0), bytes.len()];
    let pid = crate::thread::process_id() as usize;
    let vectors = (local.as_ptr().expose_provenance(), remote.as_ptr().expose_provenance());
    // SAFETY: memory gets the bytes that it has; the kernel checks whether it may be written.
    let written = unsafe { syscall(nr::PROCESS_VM_WRITEV, [pid, vectors.0, 1, vectors.1, 1, 0]) };
    written == Ok(bytes.len())
}

/// Which pages from `at` are in memory (mincore(2)): bit 0 of one byte a page, for a shared object also when
/// another process made them resident.
///
/// # Errors
/// `ENOMEM` when part of the range is not mapped.
pub fn resident(at: u64, pages: &mut [u8]) -> Result<(), Errno> {
    let from = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
    let len = pages.len().checked_mul(4096).ok_or(Errno::EINVAL)?;
    // SAFETY: the kernel writes one byte a page into the slice and touches nothing else.
    unsafe { syscall3(nr::MINCORE, from, len, pages.as_mut_ptr().expose_provenance()) }.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_memory_that_is_not_there_is_an_error_and_no_fault() {
        let mut byte = [0];
        assert_eq!(read_own(0, &mut byte), Err(Errno::EFAULT));
        let there = [42_u8];
        assert_eq!(read_own((&raw const there).expose_provenance() as u64, &mut byte), Ok(1));
        assert_eq!(byte, there);
    }

    #[test]
    fn memory_is_brought_in_where_all_of_it_can_be_read() {
        let at = map_anonymous(3 * 4096).expect("three pages");
        // SAFETY: nobody else knows the mapping.
        assert_eq!(unsafe { brought_in(at, 2 * 4096) }, Some(&[0; 2 * 4096][..]));
        // SAFETY: as above.
        unsafe { unmap(at + 4096, 4096) }.expect("it was just mapped");
        // SAFETY: as above.
        assert_eq!(unsafe { brought_in(at, 3 * 4096) }, None);
    }

    #[test]
    fn a_constant_cannot_be_written_and_a_variable_can() {
        static CONSTANT: [u64; 2] = [1, 2];
        let variable = [3_u64, 4];
        assert!(!can_be_written(CONSTANT.as_ptr().expose_provenance() as u64));
        assert!(can_be_written(variable.as_ptr().expose_provenance() as u64));
        assert_eq!(variable, [3, 4]);
    }

    #[test]
    fn code_runs_where_it_was_written_both_ways() {
        const LEN: usize = 4096;
        // mov eax, 42; ret
        const CODE: [u8; 6] = [0xb8, 42, 0, 0, 0, 0xc3];
        for of_file in [false, true] {
            let at = map_anonymous(LEN).expect("a page");
            let start = core::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(at).expect("64 bits"));
            // SAFETY: nobody else knows the mapping.
            let page = unsafe { core::slice::from_raw_parts_mut(start, LEN) };
            page[..CODE.len()].copy_from_slice(&CODE);
            let made = if of_file {
                // SAFETY: as above.
                unsafe { replace_by_executable(page) }
            } else {
                // SAFETY: as above.
                unsafe { protect(at, LEN, Access::Execute) }
            };
            assert_eq!(made, Ok(()));
            // SAFETY: the bytes are a function.
            let function = unsafe { core::mem::transmute::<*mut u8, extern "C" fn() -> i32>(start) };
            assert_eq!(function(), 42);
            // SAFETY: nobody else knows the mapping.
            unsafe { unmap(at, LEN) }.expect("it was just mapped");
        }
    }

    #[test]
    fn a_second_mapping_reaches_beyond_the_first_one_as_far_as_the_memory_goes() {
        const SHARED_ANONYMOUS: usize = 0x21;
        let arguments = [0, 3 * 4096, 3, SHARED_ANONYMOUS, usize::MAX, 0];
        // SAFETY: the kernel picks a free place.
        let at = unsafe { syscall(nr::MMAP, arguments) }.expect("three pages") as u64;
        // SAFETY: nobody knows the mapping.
        unsafe { unmap(at + 4096, 2 * 4096) }.expect("it was just mapped");
        let second = SecondMapping::of(at, 4 * 4096).expect("it is shared");
        let read = |page: u64| read_own(second.start() + page * 4096, &mut [1]);
        assert_eq!([read(0), read(2), read(3)], [Ok(1), Ok(1), Err(Errno::EFAULT)]);
    }

    #[test]
    fn fresh_memory_is_not_resident_until_it_is_touched() {
        let at = map_anonymous(8192).expect("two pages");
        let mut pages = [1_u8; 2];
        resident(at, &mut pages).expect("the range is mapped");
        assert_eq!(pages, [0, 0]);
        // SAFETY: nobody else knows the mapping.
        unsafe { unmap(at, 8192) }.expect("it was just mapped");
        assert_eq!(resident(at, &mut pages), Err(Errno::ENOMEM));
    }
}
