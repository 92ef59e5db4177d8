//! Huge TLB pages: a pool of the machine's, from which a mapping takes what it may need when it is made.
//!
//! No userfaultfd serves them page by page and nobody can write(2) them: they are filled through the child's memory, before
//! the process runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use memory::{Addr, Backing, PageRange, Sharing, Vma};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;
use nix::unistd::{Whence, lseek64};
use protocol::Manifest;

use super::{BlankChild, RestoreError, Step};

/// Bytes that are copied at a time.
const STEP: usize = 1 << 20;

/// KiB of the pages of object `index`, if they are huge TLB pages; else 0. Nobody tells of one that is not mapped.
pub(super) fn of_object(manifest: &Manifest, index: u32) -> u32 {
    let is_of_it = |vma: &&Vma| matches!(vma.backing, Backing::Object { object, .. } if object == index);
    manifest.vmas.iter().find(is_of_it).map_or(0, |vma| vma.flags.huge_kib)
}

/// The size of huge pages as mmap(2), memfd_create(2) and shmget(2) have it in their flags.
pub(super) const fn size_bits(huge_kib: u32) -> u64 {
    const SHIFT: u32 = 26;
    let bytes = (huge_kib as u64) << 10;
    (bytes.trailing_zeros() as u64) << SHIFT
}

/// Refuses a process that needs more huge pages than are free.
pub(super) fn check_room(manifest: &Manifest) -> Result<(), RestoreError> {
    let mut needed: BTreeMap<u32, u64> = BTreeMap::new();
    let mut objects: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
    for vma in manifest.vmas.iter().filter(|vma| vma.flags.huge_kib != 0 && !vma.flags.no_reserve) {
        let size = vma.flags.huge_kib;
        match vma.backing {
            Backing::Object { object, offset } if vma.sharing == Sharing::Shared => {
                let (_, bytes) = objects.entry(object).or_insert((size, 0));
                *bytes = (*bytes).max(offset.saturating_add(vma.range.len()));
            }
            _ => *needed.entry(size).or_default() += vma.range.len(),
        }
    }
    for (size, bytes) in objects.into_values() {
        *needed.entry(size).or_default() += bytes;
    }
    for (size, bytes) in needed {
        let (needed, room) = (bytes.div_ceil(u64::from(size) << 10), free(size));
        if room < needed {
            let what = match size {
                2048 => "huge TLB pages of 2 MiB",
                0x10_0000 => "huge TLB pages of 1 GiB",
                _ => "huge TLB pages",
            };
            return Err(RestoreError::NoRoom { what, needed, room });
        }
    }
    Ok(())
}

/// Pages of the pool that nobody has or may claim, and those that it may grow by.
fn free(huge_kib: u32) -> u64 {
    let number = |name: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-{huge_kib}kB/{name}_hugepages");
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let growth = number("nr_overcommit").saturating_sub(number("surplus"));
    (number("free") + growth).saturating_sub(number("resv"))
}

/// Fills `object`, which consists of huge pages, with `content`.
pub(super) fn fill(
    child: &BlankChild,
    memory: &File,
    object: &OwnedFd,
    content: &File,
    size: u64,
) -> Result<(), FillError> {
    const READ_WRITE: u64 = 3;
    const SHARED: u64 = 1;
    if size == 0 {
        return Ok(());
    }
    let Some(range) = PageRange::covering(Addr(0), size) else { return Ok(()) };
    let mut program = child.program();
    program.step(Step::Map(range));
    let fd = program.receive(child.control_number(), true);
    let mapped = program.call_with(libc::SYS_mmap, [0, size, READ_WRITE, SHARED, 0, 0], &[(4, fd)]);
    program.call_with(libc::SYS_close, [0], &[(0, fd)]);
    let at = Addr(child.run(program, &[object.as_fd()])?.of(mapped).unwrap_or(0));
    move_content(content, memory, at, size)?;
    let mut program = child.program();
    program.step(Step::Map(range));
    program.call(libc::SYS_munmap, [at.0, size]);
    child.run(program, &[])?;
    Ok(())
}

/// Gives huge pages, which are made writable so that they can be filled, the protection that they had.
pub(super) fn protect(child: &BlankChild, manifest: &Manifest) -> Result<(), RestoreError> {
    for vma in manifest.vmas.iter().filter(|vma| vma.flags.huge_kib != 0 && !vma.protection.write) {
        let mut program = child.program();
        program.step(Step::Map(vma.range));
        let protection = u64::from(vma.protection.bits());
        program.call(libc::SYS_mprotect, [vma.range.start().0, vma.range.len(), protection]);
        child.run(program, &[])?;
    }
    Ok(())
}

/// Why an object could not be filled.
#[derive(Debug, thiserror::Error)]
pub(super) enum FillError {
    /// The child did not map it.
    #[error(transparent)]
    Child(#[from] super::ChildError),
    /// It was not written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Copies the data of `content` to `at` in the child and takes it out of `content`: both are memory.
pub(super) fn move_content(content: &File, memory: &File, at: Addr, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; STEP];
    let mut next = 0;
    while let Some((start, end)) = next_data(content, next)? {
        let end = end.min(size);
        next = start;
        while next < end {
            let len = usize::try_from(end - next).unwrap_or(STEP).min(STEP);
            let piece = buffer.get_mut(..len).unwrap_or_default();
            content.read_exact_at(piece, next)?;
            // Fresh memory is zero.
            if piece.iter().any(|byte| *byte != 0) {
                memory.write_all_at(piece, at.0 + next)?;
            }
            let taken = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(content.as_fd(), taken, next.cast_signed(), i64::try_from(len).unwrap_or(0))?;
            next += piece.len() as u64;
        }
        if next >= size {
            break;
        }
    }
    Ok(())
}

/// The next stretch of data from `from` on.
fn next_data(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match lseek64(file.as_fd(), from.cast_signed(), Whence::SeekData) {
        Err(Errno::ENXIO) => return Ok(None),
        start => start?,
    };
    let end = lseek64(file.as_fd(), start, Whence::SeekHole)?;
    Ok(Some((start.cast_unsigned(), end.cast_unsigned())))
}
