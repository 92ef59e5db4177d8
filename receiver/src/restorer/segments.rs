//! System V shared memory: segments with the ids that they had, in the program's own IPC namespace, and what is attached of
//! them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use memory::{Addr, PAGE_SIZE, PageRange, RangeSet};
use nix::libc;
use protocol::{Manifest, ObjectRecord};

use super::huge::{self, move_content};
use super::ipc::{self, IPC_SET, Line, write_number};
use super::{BlankChild, Program, RestoreError, Slot, Step};
use crate::peer;

/// The file by which the next segment of an IPC namespace gets a chosen id.
const NEXT_ID: &[u8] = b"/proc/sys/kernel/shm_next_id";
/// The column of the owner in the line of a segment.
const OWNER: usize = 7;
/// `SHM_RDONLY`
const READ_ONLY: u64 = 0o10000;
/// Flags in a segment's mode (`shmctl(2)`).
const MARKED_FOR_REMOVAL: u32 = 0o1000;
const LOCKED: u32 = 0o2000;

/// What the kernel said of a segment at the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    line: Line,
    /// Of its pages, if they are huge TLB pages; else 0.
    huge_kib: u32,
}

/// How a segment is attached somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Attachment {
    /// The segment's id.
    pub(super) id: u32,
    /// Where in the segment it begins.
    pub(super) offset: u64,
    /// Bytes that attaching the segment maps.
    pub(super) len: u64,
}

/// A mapping of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Where it shall be.
    pub(super) range: PageRange,
    /// What it shows.
    pub(super) of: Attachment,
    /// `PROT_*`
    pub(super) protection: u32,
    /// It cannot be made writable.
    pub(super) read_only: bool,
}

impl Segment {
    /// Object `index`, if it is a segment.
    pub(super) fn of(manifest: &Manifest, index: u32) -> Result<Option<Self>, RestoreError> {
        let record = manifest.objects.get(index as usize);
        record.map_or(Ok(None), |record| Self::read(record, huge::of_object(manifest, index)))
    }

    /// Reads the line of `/proc/sysvipc/shm` that came with an object, if it is a segment.
    fn read(record: &ObjectRecord, huge_kib: u32) -> Result<Option<Self>, RestoreError> {
        if record.segment.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { line: Line::read(&record.segment, OWNER)?, huge_kib }))
    }

    /// Bytes that attaching it maps.
    const fn len(&self) -> u64 {
        let page = if self.huge_kib == 0 { PAGE_SIZE } else { (self.huge_kib as u64) << 10 };
        self.line.size.next_multiple_of(page)
    }

    /// How it is attached from `offset` on.
    pub(super) const fn attachment(&self, offset: u64) -> Attachment {
        Attachment { id: self.line.id, offset, len: self.len() }
    }

    /// Makes it, attaches it for a moment and says where.
    fn make(&self, child: &BlankChild) -> Result<Addr, RestoreError> {
        const HUGE: u64 = 0o4000;
        let mut program = child.program();
        program.step(Step::Segment(self.line.id));
        write_number(&mut program, NEXT_ID, self.line.id());
        let pages = if self.huge_kib == 0 { 0 } else { HUGE | huge::size_bits(self.huge_kib) };
        let made =
            program.call(libc::SYS_shmget, [self.line.key(), self.line.size, self.line.flags() | pages]);
        let attached = program.call_with(libc::SYS_shmat, [0; 3], &[(0, program.result(made))]);
        let results = child.run(program, &[])?;
        if results.of(made) != Ok(self.line.id()) {
            return Err(RestoreError::SegmentId(self.line.id));
        }
        Ok(Addr(of(&results, attached)))
    }

    /// Detaches it and gives it its owner.
    fn settle(&self, child: &BlankChild, attached: Addr) -> Result<(), RestoreError> {
        const SHM_LOCK: u64 = 11;
        let mut program = child.program();
        program.step(Step::Segment(self.line.id));
        program.call(libc::SYS_shmdt, [attached.0]);
        let status = program.words(&self.line.status());
        let id = self.line.id();
        program.call(libc::SYS_shmctl, [id, IPC_SET, status.0]);
        if self.line.mode & LOCKED != 0 {
            if peer::is_restricted() {
                tracing::warn!(id, "a segment is not locked in memory here: its sender may not do that");
            } else {
                program.attempt(libc::SYS_shmctl, [id, SHM_LOCK, 0]);
            }
        }
        child.run(program, &[])?;
        Ok(())
    }
}

fn all(manifest: &Manifest) -> impl Iterator<Item = Result<Segment, RestoreError>> + '_ {
    (0..).zip(&manifest.objects).filter_map(|(index, _)| Segment::of(manifest, index).transpose())
}

/// Whether the program has any.
pub(super) fn has_any(manifest: &Manifest) -> bool {
    manifest.objects.iter().any(|object| !object.segment.is_empty())
}

/// Proves that segments can be given their ids here.
pub(super) fn prove(child: &BlankChild, manifest: &Manifest) -> Result<(), RestoreError> {
    for segment in all(manifest) {
        ipc::prove(child, Step::Segment(segment?.line.id), NEXT_ID)?;
    }
    Ok(())
}

/// Makes all of them with their content, which comes out of `objects` through the child's `memory`.
pub(super) fn make(
    child: &BlankChild,
    manifest: &Manifest,
    objects: &[OwnedFd],
    memory: &File,
) -> Result<(), RestoreError> {
    for (index, object) in (0..).zip(objects) {
        let Some(segment) = Segment::of(manifest, index)? else { continue };
        let failed = |source| RestoreError::Object { index, source };
        let size = segment.len();
        let content = File::from(object.try_clone().map_err(failed)?);
        let attached = segment.make(child)?;
        move_content(&content, memory, attached, size).map_err(failed)?;
        segment.settle(child, attached)?;
    }
    Ok(())
}

/// Marks those that were marked: they go with their last attachment.
pub(super) fn mark(child: &BlankChild, manifest: &Manifest) -> Result<(), RestoreError> {
    const IPC_RMID: u64 = 0;
    for segment in all(manifest) {
        let Segment { line, .. } = segment?;
        if line.mode & MARKED_FOR_REMOVAL == 0 {
            continue;
        }
        let mut program = child.program();
        program.step(Step::Segment(line.id));
        program.call(libc::SYS_shmctl, [line.id(), IPC_RMID]);
        child.run(program, &[])?;
    }
    Ok(())
}

/// Attaches segments where they were. Mappings that were one attachment, of which parts are unmapped or have another
/// protection, are one again: it is detached as one.
pub(super) fn attach(child: &BlankChild, wanted: &[Wanted]) -> Result<(), RestoreError> {
    let mut attachments: BTreeMap<(u32, u64), Vec<&Wanted>> = BTreeMap::new();
    for part in wanted {
        let (it, start) = (part.of, part.range.start().0);
        if it.offset.checked_add(part.range.len()).is_none_or(|end| end > it.len) {
            return Err(RestoreError::SegmentId(it.id));
        }
        attachments.entry((it.id, start.wrapping_sub(it.offset))).or_default().push(part);
    }
    for ((id, base), parts) in attachments {
        let step = Step::Segment(id);
        let len = parts.first().map_or(0, |part| part.of.len);
        let read_only = parts.iter().all(|part| part.read_only);
        let is_whole = matches!(parts.as_slice(), [only] if only.range.len() == len);
        let mut program = child.program();
        program.step(step);
        let at = if is_whole { base } else { 0 };
        let flags = if read_only { READ_ONLY } else { 0 };
        let attached = program.call(libc::SYS_shmat, [u64::from(id), at, flags]);
        let results = child.run(program, &[])?;
        let mut program = child.program();
        program.step(step);
        if !is_whole {
            let aside = of(&results, attached);
            move_parts(&mut program, PageRange::new(Addr(aside), Addr(aside + len)), &parts);
        }
        for part in parts {
            let protection = u64::from(part.protection);
            program.call(libc::SYS_mprotect, [part.range.start().0, part.range.len(), protection]);
        }
        child.run(program, &[])?;
    }
    Ok(())
}

/// Moves the parts of what was attached `aside` to where they shall be, and lets go of the rest.
fn move_parts(program: &mut Program, aside: Option<PageRange>, parts: &[&Wanted]) {
    const MAYMOVE_FIXED: u64 = 3;
    let mut rest: RangeSet = aside.into_iter().collect();
    let aside = aside.map_or(0, |aside| aside.start().0);
    for part in parts {
        let (from, len) = (aside + part.of.offset, part.range.len());
        program.call(libc::SYS_mremap, [from, len, len, MAYMOVE_FIXED, part.range.start().0]);
        if let Some(gone) = PageRange::new(Addr(from), Addr(from + len)) {
            rest.remove(gone);
        }
    }
    for range in rest.runs() {
        program.unmap(range);
    }
}

/// What a call that had to succeed returned.
fn of(results: &super::Results, slot: Slot) -> u64 {
    results.of(slot).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(segment: &str) -> ObjectRecord {
        ObjectRecord {
            name: Vec::new(),
            size: 0,
            mode: 0,
            owner: (0, 0),
            seals: 0,
            content: Vec::new(),
            streamed: true,
            ghost: None,
            segment: segment.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_line_of_the_kernels_is_a_segment() {
        let line = "  -1234567      32770  1600                  4097  2911  2911      2     0     5     7     8 1 0 1 0 0";
        let segment = Segment::read(&record(line), 0).expect("a line").expect("not empty");
        let expected = Segment {
            line: Line { id: 32770, key: -1_234_567, size: 4097, mode: 0o1600, user: 0, group: 5 },
            huge_kib: 0,
        };
        assert_eq!(segment, expected);
        assert_eq!(segment.attachment(4096), Attachment { id: 32770, offset: 4096, len: 8192 });
    }

    #[test]
    fn nonsense_is_refused_and_nothing_is_no_segment() {
        assert!(matches!(Segment::read(&record(""), 0), Ok(None)));
        for line in [" ", "1 2 3", "a 1 600 4096 1 1 1 0 0", "1 -1 600 4096 1 1 1 0 0"] {
            assert!(matches!(Segment::read(&record(line), 0), Err(RestoreError::Segment { .. })), "{line}");
        }
    }
}
