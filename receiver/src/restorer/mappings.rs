//! Mappings: which ones the child needs, what changed between two manifests, and the programs that do it.

mod ahead;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memory::{Backing, PageRange, Protection, RangeSet, Sharing, Vma, VmaFlags};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use protocol::{FileRecord, FileVerdict, Manifest};

use super::segments::{self, Attachment, Segment, Wanted};
use super::{BlankChild, Program, RestoreError, Step, files, huge};
pub(super) use ahead::{change_around, forget, is_private_memory, largest, prove_missing};

/// Mappings that one program makes at most, so that it fits.
const MAPPINGS_PER_PROGRAM: usize = 256;

/// What stands behind a mapping here.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Source {
    /// Nothing: zero pages until others arrive.
    Anonymous,
    /// The file at this path, from this offset.
    File { path: Vec<u8>, offset: u64 },
    /// A shared-memory object of the final manifest, from this offset.
    Object { index: u32, offset: u64 },
    /// A System V segment of the final manifest.
    Segment(Attachment),
}

/// One mapping as the child shall have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mapping {
    range: PageRange,
    protection: Protection,
    sharing: Sharing,
    flags: VmaFlags,
    source: Source,
}

impl Mapping {
    /// What is mapped of a System V segment.
    fn attached(&self) -> Option<Wanted> {
        let Source::Segment(of) = self.source else { return None };
        let (range, protection) = (self.range, self.protection);
        let read_only = self.flags.never_writable && !protection.write;
        Some(Wanted { range, of, protection: protection.bits(), read_only })
    }
}

/// The mappings that the child has, or shall have, by address.
#[derive(Default, Debug)]
pub(super) struct Mappings(Vec<Mapping>);

impl Mappings {
    fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.0.iter()
    }

    fn get(&self, range: PageRange) -> Option<&Mapping> {
        let place = self.0.binary_search_by_key(&range, |mapping| mapping.range);
        place.ok().and_then(|place| self.0.get(place))
    }

    /// A mapping of nothing, or one that lies on another.
    fn fault(&self) -> Option<PageRange> {
        let empty = self.iter().map(|mapping| mapping.range).find(|range| range.is_empty());
        let mut neighbours = self.iter().zip(self.iter().skip(1));
        let twice = neighbours.find(|(near, far)| near.range.end() > far.range.start());
        empty.or(twice.map(|(_, far)| far.range))
    }

    /// Those that `others` has not, or has otherwise: one look at each, for there may be tens of thousands, and the program
    /// stands still.
    fn not_in<'a>(&'a self, others: &Self) -> Vec<&'a Mapping> {
        let mut others = others.iter().peekable();
        let differs = |mapping: &&Mapping| {
            while others.next_if(|other| other.range < mapping.range).is_some() {}
            others.peek() != Some(mapping)
        };
        self.iter().filter(differs).collect()
    }
}

impl FromIterator<Mapping> for Mappings {
    fn from_iter<I: IntoIterator<Item = Mapping>>(mappings: I) -> Self {
        let mut mappings: Vec<_> = mappings.into_iter().collect();
        mappings.sort_by_key(|mapping| mapping.range);
        Self(mappings)
    }
}

/// The mappings of a running program, as far as they can be made ahead: shared-memory objects are made once
/// nothing changes them any more.
pub(super) fn ahead(manifest: &Manifest, verdicts: &[FileVerdict]) -> Result<Mappings, RestoreError> {
    let mut wanted = wanted(manifest, &|index, _| verdicts.get(index as usize) == Some(&FileVerdict::Same))?;
    wanted.0.retain(|mapping| !matches!(mapping.source, Source::Object { .. } | Source::Segment(_)));
    Ok(wanted)
}

/// The mappings of the final manifest: a private file mapping whose pages are to come is anonymous here.
pub(super) fn last(manifest: &Manifest) -> Result<Mappings, RestoreError> {
    let lazy = lazy(manifest);
    wanted(manifest, &|_, range| lazy.first_in(range).is_none())
}

/// Refuses a final manifest that maps a file which is not the same here, and whose pages do not come.
pub(super) fn check_files(
    manifest: &Manifest,
    verdict: &dyn Fn(&FileRecord) -> FileVerdict,
) -> Result<(), RestoreError> {
    let lazy = lazy(manifest);
    for vma in &manifest.vmas {
        if let Backing::File { file, .. } = vma.backing
            && (vma.sharing == Sharing::Shared || lazy.first_in(vma.range).is_none())
            && let record = files::record(manifest, file)?
            && verdict(record) != FileVerdict::Same
        {
            return Err(different(&record.path, vma.range));
        }
    }
    Ok(())
}

/// What comes from the source while the process runs.
fn lazy(manifest: &Manifest) -> RangeSet {
    let mut lazy = RangeSet::new();
    manifest.lazy.iter().for_each(|range| lazy.insert(*range));
    lazy
}

fn wanted(manifest: &Manifest, from_file: &dyn Fn(u32, PageRange) -> bool) -> Result<Mappings, RestoreError> {
    let mapping = |vma: &Vma| {
        let source = match vma.backing {
            Backing::Anonymous => Source::Anonymous,
            Backing::File { file, offset } => {
                let record = files::record(manifest, file)?;
                match (vma.sharing, from_file(file, vma.range)) {
                    (_, true) => Source::File { path: record.path.clone(), offset },
                    (Sharing::Private, false) => Source::Anonymous,
                    (Sharing::Shared, false) => return Err(different(&record.path, vma.range)),
                }
            }
            Backing::Object { object, offset } => match Segment::of(manifest, object)? {
                Some(segment) => Source::Segment(segment.attachment(offset)),
                None => Source::Object { index: object, offset },
            },
        };
        let (range, protection, sharing, flags) = (vma.range, vma.protection, vma.sharing, vma.flags);
        Ok(Mapping { range, protection, sharing, flags, source })
    };
    let mappings: Mappings = manifest.vmas.iter().map(mapping).collect::<Result<_, _>>()?;
    mappings.fault().map_or(Ok(()), |range| Err(RestoreError::Overlap(range)))?;
    Ok(mappings)
}

fn different(path: &[u8], range: PageRange) -> RestoreError {
    RestoreError::Different { path: super::error::shown(path), range }
}

/// Turns what the child has into what it shall have. `objects` are those of the final manifest.
fn change(
    child: &BlankChild,
    have: &Mappings,
    want: &Mappings,
    objects: &[OwnedFd],
) -> Result<(), RestoreError> {
    for part in have.not_in(want).chunks(MAPPINGS_PER_PROGRAM) {
        let mut program = child.program();
        for mapping in part {
            program.step(Step::Unmap(mapping.range)).unmap(mapping.range);
        }
        child.run(program, &[])?;
    }
    let new = want.not_in(have);
    let attached: Vec<Wanted> = new.iter().filter_map(|mapping| mapping.attached()).collect();
    segments::attach(child, &attached)?;
    for part in new.chunks(MAPPINGS_PER_PROGRAM) {
        make(child, part, objects)?;
    }
    Ok(())
}

/// Makes the first mappings, and what they show quick to reach.
pub(super) fn make_first(child: &BlankChild, wanted: &Mappings) -> Result<(), RestoreError> {
    read_ahead(wanted);
    change(child, &Mappings::default(), wanted, &[])
}

/// Has the kernel read what is written while the program stands still, changed pages of private mappings, and its code, which it
/// needs first: in a file that nobody here has used lately, each page would wait for the disk.
fn read_ahead(wanted: &Mappings) {
    /// What a kernel reads for one call at least, in bytes.
    const STEP: u64 = 128 << 10;
    const OF_ONE_MAPPING: u64 = 16 << 20;
    /// Of one that only shows the file now: a linker has changed it, or it is data of any length.
    const OF_DATA: u64 = 1 << 20;
    const OF_ALL: u64 = 64 << 20;
    let mut left = OF_ALL;
    let mut opened: Option<(&[u8], OwnedFd)> = None;
    for mapping in wanted.iter() {
        let Source::File { path, offset } = &mapping.source else { continue };
        let Mapping { sharing: Sharing::Private, protection, .. } = mapping else { continue };
        let most = if protection.write || protection.execute { OF_ONE_MAPPING } else { OF_DATA };
        if opened.as_ref().is_none_or(|(name, _)| name != path) {
            // Whoever maps it says why not.
            opened = files::open_mapped(path, MappedFor::Reading).ok().map(|file| (path.as_slice(), file));
        }
        let Some((_, file)) = &opened else { continue };
        let bytes = mapping.range.len().min(most).min(left);
        left -= bytes;
        if bytes == 0 {
            break;
        }
        let mut at = 0;
        while at < bytes
            && let Ok(from) = i64::try_from(offset.saturating_add(at))
            && let Ok(len) = i64::try_from(STEP.min(bytes - at))
        {
            let _ = posix_fadvise(file, from, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
            at += STEP;
        }
    }
}

/// Makes a few mappings with one program.
fn make(child: &BlankChild, part: &[&Mapping], objects: &[OwnedFd]) -> Result<(), RestoreError> {
    let mut opened = Opened::default();
    let places = part.iter().map(|mapping| opened.place_of(mapping)).collect::<Result<Vec<_>, _>>()?;
    let mut program = child.program();
    let numbers: Vec<_> =
        opened.order.iter().map(|_| program.receive(child.control_number(), true)).collect();
    for (mapping, place) in part.iter().zip(places) {
        program.step(Step::Map(mapping.range));
        let word = place.and_then(|place| numbers.get(place)).map(|number| (4, *number));
        if !matches!(mapping.source, Source::Segment(_)) {
            map(&mut program, mapping, word.as_slice());
        }
        advise(&mut program, mapping);
    }
    for number in &numbers {
        program.call_with(libc::SYS_close, [0], &[(0, *number)]);
    }
    let fds = opened.descriptors(objects)?;
    child.run(program, &fds)?;
    Ok(())
}

/// Forbids pages to be touched. A kernel that cannot do that refuses.
pub(super) fn guard(child: &BlankChild, guards: &[PageRange]) -> Result<(), RestoreError> {
    const MADV_GUARD_INSTALL: u64 = 102;
    for part in guards.chunks(MAPPINGS_PER_PROGRAM) {
        let mut program = child.program();
        for range in part {
            program.step(Step::Guard(*range));
            program.call(libc::SYS_madvise, [range.start().0, range.len(), MADV_GUARD_INSTALL]);
        }
        child.run(program, &[])?;
    }
    Ok(())
}

fn map(program: &mut Program, mapping: &Mapping, fd: &[(usize, memory::Addr)]) {
    const FIXED_NOREPLACE: u64 = 0x10_0000;
    const NO_RESERVE: u64 = 0x4000;
    const GROWS_DOWN: u64 = 0x100;
    const ANONYMOUS: u64 = 0x20;
    /// `MAP_DROPPABLE` (Linux 6.11), a third kind beside shared and private.
    const DROPPABLE: u64 = 8;
    const HUGE: u64 = 0x4_0000;
    const READ_WRITE: u32 = 3;
    let when = |condition: bool, flag: u64| if condition { flag } else { 0 };
    let (kind, offset) = match mapping.source {
        Source::Anonymous if mapping.flags.huge_kib != 0 => {
            (ANONYMOUS | HUGE | huge::size_bits(mapping.flags.huge_kib), 0)
        }
        Source::Anonymous => (ANONYMOUS, 0),
        Source::File { offset, .. } | Source::Object { offset, .. } => (0, offset),
        Source::Segment(it) => (0, it.offset),
    };
    let flags = when(mapping.sharing == Sharing::Shared, 1)
        | when(mapping.sharing == Sharing::Private && !mapping.flags.droppable, 2)
        | when(mapping.flags.droppable, DROPPABLE)
        | when(mapping.flags.no_reserve, NO_RESERVE)
        | when(mapping.flags.grows_down, GROWS_DOWN)
        | kind
        | FIXED_NOREPLACE;
    let until_filled = if mapping.flags.huge_kib == 0 { 0 } else { READ_WRITE };
    let protection = u64::from(mapping.protection.bits() | until_filled);
    let range = mapping.range;
    let nothing = u64::MAX;
    let arguments = [range.start().0, range.len(), protection, flags, nothing, offset];
    program.call_with(libc::SYS_mmap, arguments, fd);
}

/// `madvise(2)` and `mlock2(2)`: what changes the program's behaviour must be had, mere advice need not.
fn advise(program: &mut Program, mapping: &Mapping) {
    /// Locks pages as they come: locking at once would touch pages that are still missing.
    const MLOCK_ONFAULT: u64 = 1;
    let (range, flags) = (mapping.range, mapping.flags);
    let behaviour = [
        (flags.dont_fork, libc::MADV_DONTFORK),
        (flags.wipe_on_fork, libc::MADV_WIPEONFORK),
        (flags.dont_dump, libc::MADV_DONTDUMP),
    ];
    let advice = [
        (flags.huge_page, libc::MADV_HUGEPAGE),
        (flags.no_huge_page, libc::MADV_NOHUGEPAGE),
        (flags.mergeable, libc::MADV_MERGEABLE),
        (flags.sequential, libc::MADV_SEQUENTIAL),
        (flags.random, libc::MADV_RANDOM),
    ];
    let arguments = |advice: i32| [range.start().0, range.len(), u64::from(advice.unsigned_abs())];
    for (_, number) in behaviour.into_iter().filter(|(wanted, _)| *wanted) {
        program.call(libc::SYS_madvise, arguments(number));
    }
    for (_, number) in advice.into_iter().filter(|(wanted, _)| *wanted) {
        program.attempt(libc::SYS_madvise, arguments(number));
    }
    if flags.locked {
        program.call(libc::SYS_mlock2, [range.start().0, range.len(), MLOCK_ONFAULT]);
    }
}

/// Descriptors that one program needs, each once.
#[derive(Default)]
struct Opened<'a> {
    /// By path and what is done with it: the place in `order`.
    files: BTreeMap<(&'a [u8], MappedFor), usize>,
    objects: BTreeMap<u32, usize>,
    order: Vec<Needed>,
}

/// What a mapping of a file may be used for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum MappedFor {
    /// Never to write the file.
    Reading,
    /// The program may make it writable.
    WritingLater,
    /// It is writable.
    Writing,
}

enum Needed {
    File(OwnedFd),
    Object(u32),
}

impl<'a> Opened<'a> {
    /// Which of the descriptors a mapping needs, if any.
    fn place_of(&mut self, mapping: &'a Mapping) -> Result<Option<usize>, RestoreError> {
        let next = self.order.len();
        match &mapping.source {
            Source::Anonymous | Source::Segment(_) => Ok(None),
            Source::Object { index, .. } => {
                let place = *self.objects.entry(*index).or_insert(next);
                if place == next {
                    self.order.push(Needed::Object(*index));
                }
                Ok(Some(place))
            }
            Source::File { path, .. } => {
                let purpose = match (mapping.sharing, mapping.protection.write, mapping.flags.never_writable)
                {
                    (Sharing::Shared, true, _) => MappedFor::Writing,
                    (Sharing::Shared, false, false) => MappedFor::WritingLater,
                    (Sharing::Shared, false, true) | (Sharing::Private, ..) => MappedFor::Reading,
                };
                let place = *self.files.entry((path, purpose)).or_insert(next);
                if place == next {
                    let opened = files::open_mapped(path, purpose);
                    let fd = opened.map_err(|errno| files::missing("the mapped file", path, errno))?;
                    self.order.push(Needed::File(fd));
                }
                Ok(Some(place))
            }
        }
    }

    fn descriptors<'b>(&'b self, objects: &'b [OwnedFd]) -> Result<Vec<BorrowedFd<'b>>, RestoreError> {
        let one = |needed: &'b Needed| match needed {
            Needed::File(fd) => Ok(fd.as_fd()),
            Needed::Object(index) => objects
                .get(*index as usize)
                .map(AsFd::as_fd)
                .ok_or(RestoreError::Dangling { what: "shared-memory object", index: *index }),
        };
        self.order.iter().map(one).collect()
    }
}
