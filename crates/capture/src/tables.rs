//! The manifest's tables of files and shared-memory objects, which mappings and descriptors refer to by index.

use alloc::vec::Vec;

use protocol::{ContentKind, FileProof, FileRecord, FileVerdict, GhostRecord, Manifest, ObjectRecord};
use sys::identity;
use sys::proc::maps::Mapping;
use sys::status::{Device, FileStatus};

use crate::segments;

/// A proof that no other file satisfies: nothing can be said of the content.
const NEVER: FileProof = FileProof::Content([0; 16]);
/// The same, of a file that its path does not lead to.
const UNREACHABLE: FileProof = FileProof::Content([1; 16]);

/// Files, each once. Those of the manifest of the running process keep their indices in that of the stopped one,
/// because the destination's verdicts count on them.
pub(crate) struct Files {
    records: Vec<FileRecord>,
    /// With a manifest of the running process there is no time to hash anything any more.
    is_stopped: bool,
    /// Index of the latest file that was looked up by a mapping: neighbours mostly belong to one file.
    latest: usize,
}

impl Files {
    /// The table to start with.
    pub(crate) fn new(before: Option<&Manifest>) -> Self {
        Self {
            records: before.map(|manifest| manifest.files.clone()).unwrap_or_default(),
            is_stopped: before.is_some(),
            latest: 0,
        }
    }

    /// The finished table.
    pub(crate) fn into_records(self) -> Vec<FileRecord> {
        self.records
    }

    /// The index of the file behind `mapping`. A file that cannot be reached by its path any more gets a record that no
    /// file satisfies; one that was first mapped after the destination gave its verdicts, a record that only the very
    /// file satisfies, under the same kernel.
    pub(crate) fn of_mapping(&mut self, mapping: &Mapping) -> u32 {
        // At the stop a file that was only open will do: the destination has said whether it is the very file.
        let is_stopped = self.is_stopped;
        let is_it = |record: &FileRecord| {
            record.identity.1 == mapping.inode
                && (is_stopped || record.proof != FileProof::None)
                && record.path == mapping.name
        };
        let found = match self.records.get(self.latest) {
            Some(record) if is_it(record) => Some(self.latest),
            _ => self.records.iter().position(is_it),
        };
        let index = found.unwrap_or_else(|| {
            let found = record(mapping, !self.is_stopped);
            self.append(found.unwrap_or_else(|| nameless(mapping)))
        });
        self.latest = index;
        narrow(index)
    }

    /// The index of a file that is only open.
    pub(crate) fn of_descriptor(&mut self, path: &[u8], status: &FileStatus) -> u32 {
        let is_it = |record: &FileRecord| record.identity.1 == status.inode && record.path == path;
        let found = self.records.iter().position(is_it);
        narrow(found.unwrap_or_else(|| self.append(identity::record(path, status, FileProof::None))))
    }

    /// The destination's verdicts on all files, where those `known` are the first of them: under the same kernel it has
    /// the very file that was mapped or opened since, and looks whether that is so.
    pub(crate) fn verdicts(&self, known: &[FileVerdict], same_kernel: bool) -> Vec<FileVerdict> {
        let mut verdicts = known.to_vec();
        for record in self.records.iter().skip(known.len()) {
            let is_there = same_kernel && record.proof != UNREACHABLE;
            verdicts.push(if is_there { FileVerdict::Same } else { FileVerdict::Travels });
        }
        verdicts
    }

    fn append(&mut self, record: FileRecord) -> usize {
        self.records.push(record);
        self.records.len() - 1
    }
}

/// The record of a mapped file, with a proof if there is `time` to look into it; `None` if its path leads to another
/// file or to none.
fn record(mapping: &Mapping, time: bool) -> Option<FileRecord> {
    if mapping.is_deleted() {
        return None;
    }
    let mut record = identity::file_record(&mapping.name, time).ok()?;
    if !time {
        record.proof = NEVER;
    }
    // The device is not compared: some file systems show one number here and another there.
    (record.identity.1 == mapping.inode).then_some(record)
}

fn nameless(mapping: &Mapping) -> FileRecord {
    FileRecord {
        path: mapping.name.clone(),
        size: 0,
        identity: (mapping.device.number(), mapping.inode),
        proof: UNREACHABLE,
    }
}

/// Shared-memory objects, each once, by device and inode.
#[derive(Default)]
pub(crate) struct Objects {
    records: Vec<ObjectRecord>,
    keys: Vec<(Device, u64)>,
    readable: Vec<bool>,
}

impl Objects {
    /// The finished table.
    pub(crate) fn into_records(self) -> Vec<ObjectRecord> {
        self.records
    }

    /// The index of the object behind `mapping`. Its size is known only as far as it is mapped.
    pub(crate) fn of_mapping(&mut self, mapping: &Mapping) -> u32 {
        let (device, inode) = key(mapping);
        let index = self.entry(device, inode, mapping.path());
        if let Some(record) = self.records.get_mut(index) {
            record.size = record.size.max(mapping.offset.saturating_add(mapping.range.len()));
        }
        narrow(index)
    }

    /// The index of the object with `status`, open under `name`, and its record, for the first descriptor that
    /// can read it.
    pub(crate) fn of_descriptor(
        &mut self,
        name: &[u8],
        status: &FileStatus,
    ) -> (u32, Option<&mut ObjectRecord>) {
        let index = self.entry(status.device, status.inode, name);
        let is_new = self.readable.get_mut(index).is_some_and(|readable| !core::mem::replace(readable, true));
        let record = self.records.get_mut(index).filter(|_| is_new);
        (narrow(index), record)
    }

    /// The index of the object that `mapping` is of, if a descriptor can read it.
    pub(crate) fn readable_behind(&self, mapping: &Mapping) -> Option<u32> {
        let key = key(mapping);
        let index = narrow(self.keys.iter().position(|known| *known == key)?);
        self.is_readable(index).then_some(index)
    }

    /// The index of the System V segment `id`, which is not mapped.
    pub(crate) fn of_segment(&mut self, id: u32) -> u32 {
        narrow(self.entry(Device::default(), u64::from(id) | OF_SEGMENT, b""))
    }

    /// Notes that object `index` is a System V segment, and what the kernel says of it. Its content travels ahead of the
    /// manifest.
    pub(crate) fn set_segment(&mut self, index: u32, line: &[u8]) {
        let index = index as usize;
        if let (Some(record), Some(readable)) = (self.records.get_mut(index), self.readable.get_mut(index)) {
            record.size = record.size.max(segments::bytes(line));
            record.segment = line.to_vec();
            (record.streamed, *readable) = (true, true);
        }
    }

    /// All objects.
    pub(crate) fn records(&self) -> &[ObjectRecord] {
        &self.records
    }

    /// What is to travel ahead of the manifest, if the content of an object does.
    pub(crate) fn streamed(&self, object: u32) -> Option<ContentKind> {
        let record = self.records.get(object as usize).filter(|record| record.streamed)?;
        Some(if record.ghost.is_none() { ContentKind::Memory } else { ContentKind::Deleted })
    }

    /// Whether `mapping` is of one of the objects.
    pub(crate) fn knows(&self, mapping: &Mapping) -> bool {
        self.keys.contains(&key(mapping))
    }

    /// Bytes of the object.
    pub(crate) fn size(&self, object: u32) -> u64 {
        self.records.get(object as usize).map_or(0, |record| record.size)
    }

    /// Objects that no descriptor can read, with their indices.
    pub(crate) fn unreadable(&mut self) -> impl Iterator<Item = (u32, &mut ObjectRecord)> {
        let all = (0..).zip(self.records.iter_mut().zip(&self.readable));
        all.filter(|(_, (_, readable))| !**readable).map(|(index, (record, _))| (index, record))
    }

    /// Whether a descriptor can read the object: then its content travels in the manifest.
    pub(crate) fn is_readable(&self, object: u32) -> bool {
        self.readable.get(object as usize).is_some_and(|readable| *readable)
    }

    fn entry(&mut self, device: Device, inode: u64, name: &[u8]) -> usize {
        let key = (device, inode);
        if let Some(index) = self.keys.iter().position(|known| *known == key) {
            return index;
        }
        let name = name.strip_prefix(b"/memfd:").unwrap_or(b"shared").to_vec();
        self.records.push(ObjectRecord {
            name,
            size: 0,
            mode: 0,
            owner: (0, 0),
            seals: 0,
            content: Vec::new(),
            streamed: false,
            ghost: None,
            segment: Vec::new(),
        });
        self.keys.push(key);
        self.readable.push(false);
        self.keys.len() - 1
    }
}

/// Marks the inode of a System V segment, which is its id: a memfd may have that too.
const OF_SEGMENT: u64 = 1 << 63;

/// What tells an object from others.
fn key(mapping: &Mapping) -> (Device, u64) {
    let mark = if segments::is_segment(mapping) { OF_SEGMENT } else { 0 };
    (mapping.device, mapping.inode | mark)
}

/// What has no name any more, each once.
#[derive(Default)]
pub(crate) struct Ghosts(Vec<GhostRecord>);

impl Ghosts {
    /// The finished table.
    pub(crate) fn into_records(self) -> Vec<GhostRecord> {
        self.0
    }

    /// The index of what has `status` and was at `link`, and was a symbolic link to `target`.
    pub(crate) fn of(&mut self, link: &[u8], status: &FileStatus, target: Vec<u8>) -> u32 {
        let identity = (status.device.number(), status.inode);
        if let Some(index) = self.0.iter().position(|known| known.identity == identity) {
            return narrow(index);
        }
        self.0.push(GhostRecord { target, ..ghost(link, status) });
        narrow(self.0.len() - 1)
    }
}

/// The record of what has `status` and was at `link`.
pub(crate) fn ghost(link: &[u8], status: &FileStatus) -> GhostRecord {
    let (user, group) = status.owner;
    GhostRecord {
        path: link.strip_suffix(DELETED).unwrap_or(link).to_vec(),
        identity: (status.device.number(), status.inode),
        mode: status.mode,
        user,
        group,
        accessed_ns: status.accessed_ns,
        modified_ns: status.modified_ns,
        target: Vec::new(),
    }
}

/// What the kernel puts behind the path of what has no name any more.
pub(crate) const DELETED: &[u8] = b" (deleted)";

/// An index as the manifest has it. A table of four thousand million entries cannot have been built.
fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
