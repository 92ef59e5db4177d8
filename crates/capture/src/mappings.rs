//! From `/proc/self/maps` and `smaps` to the manifest's mappings.

use alloc::vec::Vec;

use memory::{Backing, PageRange, RangeSet, Sharing, Vma, VmaName};
use sys::identity::is_vdso;
use sys::number::index_of;
use sys::proc::maps::{self, Mapping};
use sys::proc::smaps::{self, Attributes};

use crate::refusal::{MappingTrait, Refusal};
use crate::segments;
use crate::tables::{Files, Objects};

/// Huge TLB pages of `MAP_ANONYMOUS`.
const ANONYMOUS_HUGE: &[u8] = b"/anon_hugepage (deleted)";
const HEAP_AND_STACK: &[u8] = b"[heap] [stack]";

/// What stands behind a mapping, before it has an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    Anonymous,
    File,
    Object,
}

/// The process's mappings, and those of the manifest: all but vDSO and `own`, ascending.
///
/// Of the stopped process, `before` are the mappings of the running one: their flags are taken over where a mapping
/// is still there, so that `smaps` need not be read in the time in which the program stands still. A program that keeps
/// memory from its children may change that at any time, and no other file shows it: there `smaps` is read again, which costs
/// some 10 ms for each GiB. With `again` it has been looked at before: whatever is watched by now is so by ourselves, or it
/// would have been refused.
pub(crate) fn collect(
    own: &[PageRange],
    again: bool,
    before: Option<&[Vma]>,
    files: &mut Files,
    objects: &mut Objects,
) -> Result<(Vec<Mapping>, Vec<Vma>), Refusal> {
    if let Some(before) = before.filter(|before| !before.iter().any(is_withheld)) {
        let mappings = maps::own_mappings()?;
        let mut vmas = describe(&mappings, &[], own, files, objects)?;
        if inherit_flags(&mut vmas, before) {
            return Ok((mappings, vmas));
        }
    }
    let (mappings, mut attributes) = smaps::own_mappings()?;
    if again {
        attributes.iter_mut().for_each(|attributes| attributes.watched = false);
    }
    let vmas = describe(&mappings, &attributes, own, files, objects)?;
    Ok((mappings, vmas))
}

/// Whether children do not inherit it as it is, which madvise(2) can change. It cannot for a droppable one that is wiped.
fn is_withheld(vma: &Vma) -> bool {
    vma.flags.dont_fork || vma.flags.wipe_on_fork && !vma.flags.droppable
}

/// Refuses what cannot be moved, also by what only the `attributes` tell, if they are known.
fn describe(
    mappings: &[Mapping],
    attributes: &[Attributes],
    own: &[PageRange],
    files: &mut Files,
    objects: &mut Objects,
) -> Result<Vec<Vma>, Refusal> {
    let mut vmas = Vec::with_capacity(mappings.len());
    for (index, mapping) in mappings.iter().enumerate() {
        if is_vdso(mapping) {
            continue;
        }
        let attributes = attributes.get(index).copied().unwrap_or_default();
        let origin = check(mapping, &attributes)?;
        for range in without(mapping.range, own).runs() {
            let offset = mapping.offset + (range.start().0 - mapping.range.start().0);
            vmas.push(Vma {
                range,
                protection: mapping.protection,
                sharing: mapping.sharing,
                flags: attributes.flags,
                name: name(mapping),
                backing: match origin {
                    Origin::Anonymous => Backing::Anonymous,
                    Origin::File => Backing::File { file: files.of_mapping(mapping), offset },
                    Origin::Object => Backing::Object { object: objects.of_mapping(mapping), offset },
                },
            });
        }
    }
    Ok(vmas)
}

/// What a mapping is of, unless it cannot be moved.
pub(crate) fn check(mapping: &Mapping, attributes: &Attributes) -> Result<Origin, Refusal> {
    let origin = origin(mapping)?;
    let is_of_file = origin == Origin::File && !mapping.is_deleted();
    match immovable(attributes, is_of_file) {
        Some(what) => Err(Refusal::mapping(mapping.range.start(), what)),
        None => Ok(origin),
    }
}

fn name(mapping: &Mapping) -> VmaName {
    match index_of(HEAP_AND_STACK, &mapping.name) {
        Some(0) => VmaName::Heap,
        Some(_) => VmaName::Stack,
        None => VmaName::Plain,
    }
}

/// What kind of mapping it is, by its name as proc(5) has them.
fn origin(mapping: &Mapping) -> Result<Origin, Refusal> {
    let refuse = |what| Err(Refusal::mapping(mapping.range.start(), what));
    let name = mapping.name.as_slice();
    let deleted = mapping.is_deleted();
    // The first segment of a machine has inode 0, as anonymous memory has.
    if segments::is_segment(mapping) {
        return Ok(Origin::Object);
    }
    if mapping.inode == 0 {
        let is_ordinary =
            name.is_empty() || name.starts_with(b"[anon:") || index_of(HEAP_AND_STACK, name).is_some();
        return if mapping.sharing == Sharing::Private && is_ordinary {
            Ok(Origin::Anonymous)
        } else {
            refuse(MappingTrait::Unknown)
        };
    }
    if name.starts_with(b"/[aio]") {
        return refuse(MappingTrait::Aio);
    }
    if name.starts_with(b"anon_inode:") || name.starts_with(b"socket:") {
        return refuse(MappingTrait::AnonymousInode);
    }
    match mapping.sharing {
        // A private mapping of /dev/zero is anonymous memory by another way, and huge TLB pages always have a file.
        Sharing::Private if name == b"/dev/zero" || name.starts_with(ANONYMOUS_HUGE) => Ok(Origin::Anonymous),
        // What a private mapping shows of an object or a deleted file travels page by page.
        Sharing::Private => Ok(Origin::File),
        Sharing::Shared if name.starts_with(b"[anon_shmem:") => Ok(Origin::Object),
        // With a descriptor the file itself moves, and this is checked when the descriptors are known.
        Sharing::Shared if deleted => Ok(Origin::Object),
        Sharing::Shared if name.starts_with(b"/") => Ok(Origin::File),
        Sharing::Shared => refuse(MappingTrait::Unknown),
    }
}

/// Lets mappings of deleted files show the object that the destination makes of a file that is still open: what is
/// written through the descriptor appears in them, private or shared.
///
/// # Errors
/// A shared mapping of a deleted file that is not open: its other parts cannot be read. A private mapping of memory that
/// is mapped shared too and not open.
pub(crate) fn settle_deleted(
    mappings: &[Mapping],
    vmas: &mut [Vma],
    objects: &Objects,
) -> Result<(), Refusal> {
    for mapping in mappings.iter().filter(|mapping| mapping.inode != 0 && mapping.is_deleted()) {
        let object = object_behind(mapping, objects)?;
        for vma in vmas.iter_mut().filter(|vma| mapping.range.intersection(vma.range).is_some()) {
            let Some(object) = object else {
                check_huge(mapping, vma.flags.huge_kib)?;
                continue;
            };
            let offset = mapping.offset + (vma.range.start().0 - mapping.range.start().0);
            vma.backing = Backing::Object { object, offset };
        }
    }
    Ok(())
}

/// Notes the memory that a mapping shares, so that another mapping of it can be told ([`object_behind`]).
pub(crate) fn see(mapping: &Mapping, objects: &mut Objects) {
    if mapping.sharing == Sharing::Shared && mapping.is_deleted() {
        objects.of_mapping(mapping);
    }
}

/// Refuses a private mapping of huge TLB pages of a memfd that is not open: its pages would come one by one.
pub(crate) fn check_huge(mapping: &Mapping, huge_kib: u32) -> Result<(), Refusal> {
    if huge_kib != 0 && mapping.sharing == Sharing::Private && mapping.name != ANONYMOUS_HUGE {
        return Err(Refusal::mapping(mapping.range.start(), MappingTrait::HugePages));
    }
    Ok(())
}

/// The object that a mapping of a deleted file shows, if the file is still open.
pub(crate) fn object_behind(mapping: &Mapping, objects: &Objects) -> Result<Option<u32>, Refusal> {
    let found = objects.readable_behind(mapping);
    if found.is_none() && mapping.sharing == Sharing::Shared && !is_memory(&mapping.name) {
        return Err(Refusal::mapping(mapping.range.start(), MappingTrait::DeletedShared));
    }
    // What is written there through the shared mapping appears here, but the destination has only pages for it.
    if found.is_none() && mapping.sharing == Sharing::Private && objects.knows(mapping) {
        return Err(Refusal::mapping(mapping.range.start(), MappingTrait::SharedToo));
    }
    Ok(found)
}

/// Whether a deleted file is memory only, of which nothing is left but what is mapped.
fn is_memory(name: &[u8]) -> bool {
    name.starts_with(b"/memfd:")
        || name == ANONYMOUS_HUGE
        || name.starts_with(b"/SYSV")
        || name.starts_with(b"/dev/shm/")
        || name == b"/dev/zero (deleted)"
}

/// The pieces of `range` outside of `own`.
fn without(range: PageRange, own: &[PageRange]) -> RangeSet {
    let mut pieces = RangeSet::new();
    pieces.insert(range);
    for hole in own {
        pieces.remove(*hole);
    }
    pieces
}

/// Gives every mapping the flags of the old mapping that it overlaps, if that is of the same kind; whether each one
/// found such a mapping. A grown heap or stack, and one changed by mprotect(2), inherit; a new one does not, nor does
/// one that may be new inherit what decides over the memory of forked children, nor one that madvise(2) may have cut
/// off: the kernel keeps alike neighbours apart only where their flags differ.
fn inherit_flags(vmas: &mut [Vma], before: &[Vma]) -> bool {
    let mut old = before.iter().peekable();
    let mut last: Option<&Vma> = None;
    for vma in vmas {
        while old.next_if(|old| old.range.end() <= vma.range.start()).is_some() {}
        let Some(old) = old.peek().filter(|old| {
            old.range.intersection(vma.range).is_some()
                && old.name == vma.name
                && is_same_kind(old, vma)
                && (old.range == vma.range || !(old.flags.dont_fork || old.flags.wipe_on_fork))
        }) else {
            return false;
        };
        let is_cut_off = old.range.start() < vma.range.start()
            && last.is_some_and(|last| {
                last.range.end() == vma.range.start()
                    && last.protection == vma.protection
                    && is_same_kind(last, vma)
            });
        if is_cut_off {
            return false;
        }
        vma.flags = old.flags;
        last = Some(vma);
    }
    true
}

fn is_same_kind(one: &Vma, other: &Vma) -> bool {
    one.sharing == other.sharing && is_same_origin(&one.backing, &other.backing)
}

const fn is_same_origin(one: &Backing, other: &Backing) -> bool {
    matches!(
        (one, other),
        (Backing::Anonymous, Backing::Anonymous)
            | (Backing::File { .. }, Backing::File { .. })
            | (Backing::Object { .. }, Backing::Object { .. })
    )
}

const fn immovable(attributes: &Attributes, is_of_file: bool) -> Option<MappingTrait> {
    if attributes.device_memory {
        Some(MappingTrait::Device)
    } else if attributes.flags.huge_kib != 0 && is_of_file {
        Some(MappingTrait::HugePages)
    } else if attributes.registered || attributes.watched {
        Some(MappingTrait::Userfaultfd)
    } else if attributes.shadow_stack {
        Some(MappingTrait::ShadowStack)
    } else {
        None
    }
}
