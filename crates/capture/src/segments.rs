//! System V shared memory: of a segment that no other process has attached the whole content travels, whatever is mapped of
//! it, because the program can attach it again.

use memory::{PAGE_SIZE, Sharing};
use sys::number::{decimal, words};
use sys::own_memory::{self, Segment};
use sys::proc::maps::Mapping;
use sys::process::machine_has_swap;
use sys::{Errno, file, thread};

use crate::refusal::{MappingTrait, Refusal};
use crate::tables::Objects;

/// Bytes of the list of segments, amply: a namespace has 4096 if nobody has raised that, with some 200 bytes each.
const LIST_LIMIT: usize = 4 << 20;
/// Columns of a line (`sysvipc_shm_proc_show` in the kernel's ipc/shm.c).
const ID: usize = 1;
const BYTES: usize = 3;
const CREATOR: usize = 4;
const ATTACHMENTS: usize = 6;

/// Whether `mapping` is of a segment. Its inode is the segment's id.
pub(crate) fn is_segment(mapping: &Mapping) -> bool {
    mapping.sharing == Sharing::Shared && mapping.is_deleted() && mapping.name.starts_with(b"/SYSV")
}

/// Notes what the kernel says of each segment that the process has attached, and of each that it has made and that nobody
/// has attached: it may attach that again.
///
/// # Errors
/// One that another process has attached too.
pub(crate) fn settle(mappings: &[Mapping], objects: &mut Objects) -> Result<(), Refusal> {
    // A kernel without such memory has no list.
    let list = file::read_file(c"/proc/sysvipc/shm", LIST_LIMIT).unwrap_or_default();
    for mapping in mappings.iter().filter(|mapping| is_segment(mapping)) {
        let is_the_same = |other: &&Mapping| is_segment(other) && other.inode == mapping.inode;
        let attachments = mappings.iter().filter(is_the_same).count() as u64;
        let line = line(&list, mapping, attachments)?;
        let index = objects.of_mapping(mapping);
        objects.set_segment(index, line);
    }
    for line in list.split(|byte| *byte == b'\n') {
        // A process of the past may have had this one's number.
        if is_own(line)
            && column(line, ATTACHMENTS) == Some(0)
            && let Some(id) = id(line)
            && Segment::attach(id).is_ok()
        {
            let index = objects.of_segment(id);
            objects.set_segment(index, line);
        }
    }
    Ok(())
}

/// The line of `list` on the segment behind `mapping`, which the process has attached so many times.
///
/// # Errors
/// It is attached by others too.
pub(crate) fn line<'a>(list: &'a [u8], mapping: &Mapping, attachments: u64) -> Result<&'a [u8], Refusal> {
    let mut lines = list.split(|byte| *byte == b'\n');
    let found = lines.find(|line| {
        column(line, ID) == Some(mapping.inode) && column(line, ATTACHMENTS) == Some(attachments)
    });
    found.ok_or_else(|| Refusal::mapping(mapping.range.start(), MappingTrait::SystemV))
}

/// The id in a line; none in an empty one.
pub(crate) fn id(line: &[u8]) -> Option<u32> {
    u32::try_from(column(line, ID)?).ok()
}

/// Whole pages of the segment in a line, in bytes.
pub(crate) fn bytes(line: &[u8]) -> u64 {
    column(line, BYTES).and_then(|bytes| bytes.checked_next_multiple_of(PAGE_SIZE)).unwrap_or(0)
}

/// Removes the segment in a line, if this process has made it and was the last one that had it.
pub fn remove(line: &[u8]) {
    if let Some(id) = id(line).filter(|_| is_own(line) && column(line, ATTACHMENTS) != Some(0)) {
        own_memory::remove_segment(id);
    }
}

/// Whether this process has made the segment.
fn is_own(line: &[u8]) -> bool {
    column(line, CREATOR) == Some(u64::from(thread::process_id()))
}

pub(crate) fn column(line: &[u8], number: usize) -> Option<u64> {
    decimal(words(line).nth(number)?)
}

/// Reads the first `size` bytes of segment `id`, as far as it holds data, through `buffer`, until `take` wants no more.
pub(crate) fn read(
    id: u32,
    size: u64,
    buffer: &mut [u8],
    take: &mut dyn FnMut(u64, &[u8]) -> bool,
) -> Result<bool, Errno> {
    let segment = Segment::attach(id)?;
    let mut states = alloc::vec![1; buffer.len() / 4096];
    // What is swapped out nobody tells.
    let is_told = !machine_has_swap() && !segment.is_huge();
    let mut at = 0;
    while at < size {
        let pages = usize::try_from((size - at) / PAGE_SIZE).unwrap_or(usize::MAX).min(states.len());
        let states = states.get_mut(..pages).unwrap_or_default();
        if is_told {
            own_memory::resident(segment.start() + at, states)?;
        }
        for alike in states.chunk_by(|a, b| a & 1 == b & 1) {
            let piece = buffer.get_mut(..alike.len() * 4096).unwrap_or_default();
            if alike.first().is_some_and(|state| state & 1 == 1) {
                if own_memory::read_own(segment.start() + at, piece)? != piece.len() {
                    return Err(Errno::EFAULT);
                }
                if !take(at, piece) {
                    return Ok(false);
                }
            }
            at += piece.len() as u64;
        }
    }
    Ok(true)
}
