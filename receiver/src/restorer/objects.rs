//! Shared-memory objects, each a memfd here, or a file without a name where it was one.

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt, fchown};

use fault_handler::part;
use memory::{Addr, Backing, PageRange, Sharing, Vma};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use protocol::{Manifest, ObjectRecord};

use super::contents::Contents;
use super::ghosts::{self, Ghosts};
use super::huge::{self, FillError};
use super::{BlankChild, RestoreError};

/// Every object of `manifest`, with its size and the content that came with it.
///
/// Seals against all writing are set before anything maps the object, as at the source; all others only
/// when the mappings stand ([`seal`]).
pub(super) fn make(
    child: &BlankChild,
    memory: &File,
    manifest: &Manifest,
    ghosts: &Ghosts,
    contents: &mut Contents,
) -> Result<Vec<OwnedFd>, RestoreError> {
    let one = |(index, record): (u32, &ObjectRecord)| {
        let failed = |source| RestoreError::Object { index, source };
        let filled = contents.object(index);
        let huge_kib = huge::of_object(manifest, index);
        if huge_kib != 0 && record.segment.is_empty() {
            return huge_object(child, memory, (index, record), filled, huge_kib);
        }
        let Some(ghost) = record.ghost else { return object(record, filled).map_err(failed) };
        let file = match filled {
            Some(file) => file,
            None => ghosts.open(ghost)?,
        };
        fill(&file, record).map_err(failed)?;
        if let Some(ghost) = manifest.ghosts.get(ghost as usize) {
            ghosts::set_times(&file, ghost).map_err(failed)?;
        }
        Ok(file.into())
    };
    (0..).zip(&manifest.objects).map(one).collect()
}

/// Sets the seals that are still to be set.
pub(super) fn seal(manifest: &Manifest, objects: &[OwnedFd]) -> Result<(), RestoreError> {
    for ((index, record), object) in (0..).zip(&manifest.objects).zip(objects) {
        let seals = seals(record);
        if !seals.is_empty() && !seals.contains(SealFlag::F_SEAL_WRITE) {
            add(object, seals).map_err(|source| RestoreError::Object { index, source })?;
        }
    }
    Ok(())
}

/// Objects that only mappings show, where one does which the process may not write: `/proc/PID/mem` does not either where
/// memory is shared.
#[derive(Debug)]
pub(super) struct Shown {
    objects: Vec<File>,
    views: Vec<View>,
}

/// A mapping of an object.
#[derive(Debug)]
struct View {
    range: PageRange,
    /// Which object.
    object: usize,
    /// From which byte of it on.
    offset: u64,
}

impl Shown {
    pub(super) fn of(manifest: &Manifest, objects: Vec<OwnedFd>) -> Self {
        // Huge TLB pages are mapped writable until they are filled.
        let is_closed =
            |vma: &&Vma| vma.sharing == Sharing::Shared && !vma.protection.write && vma.flags.huge_kib == 0;
        // Where a descriptor is open its file could grow, or be sealed; and its content came with it.
        let comes_by_pages =
            |record: &ObjectRecord| record.mode == 0 && record.segment.is_empty() && record.ghost.is_none();
        let view = |vma: &Vma| {
            let Backing::Object { object, offset } = vma.backing else { return None };
            let object = usize::try_from(object).ok()?;
            let of_pages = manifest.objects.get(object).is_some_and(comes_by_pages);
            of_pages.then_some(View { range: vma.range, object, offset })
        };
        let mut views: Vec<_> = manifest.vmas.iter().filter(is_closed).filter_map(view).collect();
        views.sort_unstable_by_key(|view| view.range.start());
        let objects =
            if views.is_empty() { Vec::new() } else { objects.into_iter().map(File::from).collect() };
        Self { objects, views }
    }

    /// Writes pages of the process, into the objects where they are shown, else to its `memory`.
    pub(super) fn write(&self, memory: &File, at: PageRange, bytes: &[u8]) -> io::Result<()> {
        let through_memory = |from: Addr, to: Addr| match PageRange::new(from, to) {
            Some(run) => memory.write_all_at(part(bytes, at, run), run.start().0),
            None => Ok(()),
        };
        let mut from = at.start();
        let first = self.views.partition_point(|view| view.range.end() <= at.start());
        for View { range, object, offset } in self.views.iter().skip(first) {
            let Some(shown) = range.intersection(at) else { break };
            let object = self.objects.get(*object).ok_or(io::ErrorKind::NotFound)?;
            through_memory(from, shown.start())?;
            let place = offset.saturating_add(shown.start().0 - range.start().0);
            object.write_all_at(part(bytes, at, shown), place)?;
            from = shown.end();
        }
        through_memory(from, at.end())
    }
}

/// An object of huge TLB pages, which take no write(2).
fn huge_object(
    child: &BlankChild,
    memory: &File,
    (index, record): (u32, &ObjectRecord),
    filled: Option<File>,
    huge_kib: u32,
) -> Result<OwnedFd, RestoreError> {
    let failed = |source| RestoreError::Object { index, source };
    let pages = MFdFlags::MFD_HUGETLB.bits() | u32::try_from(huge::size_bits(huge_kib)).unwrap_or(0);
    let object = new_memfd(record, MFdFlags::from_bits_retain(pages)).map_err(failed)?;
    object.set_len(record.size).map_err(failed)?;
    let content = match filled {
        Some(content) => content,
        None => new_memfd(record, MFdFlags::empty()).map_err(failed)?,
    };
    fill(&content, record).map_err(failed)?;
    let object = OwnedFd::from(object);
    huge::fill(child, memory, &object, &content, record.size).map_err(|error| match error {
        FillError::Child(error) => error.into(),
        FillError::Io(source) => failed(source),
    })?;
    settle(object.into(), record).map_err(failed)
}

fn new_memfd(record: &ObjectRecord, more: MFdFlags) -> io::Result<File> {
    let name = CString::new(record.name.as_slice()).map_err(io::Error::other)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | more;
    Ok(memfd_create(name.as_c_str(), flags)?.into())
}

fn object(record: &ObjectRecord, filled: Option<File>) -> io::Result<OwnedFd> {
    let memory = match filled {
        Some(memory) => memory,
        None => new_memfd(record, MFdFlags::empty())?,
    };
    fill(&memory, record)?;
    settle(memory, record)
}

/// Gives an object its owner and mode, and the seals that come before its mappings.
fn settle(memory: File, record: &ObjectRecord) -> io::Result<OwnedFd> {
    if record.mode != 0 {
        let (user, group) = record.owner;
        fchown(&memory, Some(user), Some(group))?;
        memory.set_permissions(Permissions::from_mode(record.mode & 0o7777))?;
    }
    let memory = OwnedFd::from(memory);
    let seals = seals(record);
    if seals.contains(SealFlag::F_SEAL_WRITE) {
        add(&memory, seals)?;
    }
    Ok(memory)
}

/// Gives an empty file its size and content.
fn fill(file: &File, record: &ObjectRecord) -> io::Result<()> {
    file.set_len(record.size)?;
    record.content.iter().try_for_each(|(offset, bytes)| file.write_all_at(bytes, *offset))
}

fn seals(record: &ObjectRecord) -> SealFlag {
    SealFlag::from_bits_retain(record.seals.cast_signed())
}

fn add(object: &OwnedFd, seals: SealFlag) -> io::Result<()> {
    fcntl(object.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_sealed_object_has_its_content_and_takes_no_more() {
        let record = ObjectRecord {
            name: b"x".to_vec(),
            size: 8192,
            mode: 0,
            owner: (0, 0),
            seals: 0xf,
            content: vec![(4096, vec![9; 10])],
            streamed: false,
            ghost: None,
            segment: Vec::new(),
        };
        let object = File::from(object(&record, None).expect("an object"));
        let mut bytes = [0; 10];
        object.read_exact_at(&mut bytes, 4096).expect("readable");
        assert_eq!(bytes, [9; 10]);
        assert!(object.write_all_at(&[1], 0).is_err());
        assert_eq!(object.metadata().expect("a size").len(), 8192);
    }

    fn pages(start: u64, count: u64) -> PageRange {
        PageRange::from_pages(Addr(start * memory::PAGE_SIZE), count).expect("a small range")
    }

    fn file() -> File {
        memfd_create(c"test", MFdFlags::MFD_CLOEXEC).expect("a memfd").into()
    }

    /// The first byte of each page.
    fn content(mut file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("it can be read");
        bytes.chunks(4096).map(|page| page.first().copied().unwrap_or(0)).collect()
    }

    #[test]
    fn a_page_goes_where_its_mapping_shows_it() {
        let views = vec![
            View { range: pages(2, 1), object: 1, offset: 4096 },
            View { range: pages(3, 2), object: 0, offset: 0 },
        ];
        let (shown, memory) = (Shown { objects: vec![file(), file()], views }, file());
        let bytes: Vec<u8> = (1..=7_u8).flat_map(|number| [number; 4096]).collect();
        shown.write(&memory, pages(0, 7), &bytes).expect("all can be written");
        assert_eq!(content(&memory), [1, 2, 0, 0, 0, 6, 7], "pages that no view shows");
        assert_eq!(shown.objects.iter().map(content).collect::<Vec<_>>(), [vec![4, 5], vec![0, 3]]);
        shown.write(&memory, pages(4, 1), &[9; 4096]).expect("one page");
        let mut second = [0];
        shown.objects.first().expect("an object").read_exact_at(&mut second, 4096).expect("it has two pages");
        assert_eq!(second, [9]);
    }
}
