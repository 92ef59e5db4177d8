//! Pages that lie in a directory of images.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use memory::{PAGE_SIZE, PageRange};

use crate::config::MOST_PARENTS;
use crate::images::{self, Entry, IN_PARENT, ImageError, LAZY, PRESENT, pagemap, pages_name};
use crate::instance::{Instance, Task};

/// Pages of one process whose bytes lie in one file one after the other.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    pages: PageRange,
    file: usize,
    offset: u64,
}

/// The lazy pages of a tree, in files.
#[derive(Debug)]
pub struct LocalPages {
    files: Vec<File>,
    /// For each process, ascending.
    chunks: Vec<Vec<Chunk>>,
}

/// What the images in `directory` say of the tree's lazy pages.
///
/// # Errors
/// An image cannot be read, or is malformed.
pub fn instance(directory: &Path) -> Result<Instance, ImageError> {
    let mut tasks = Vec::new();
    for pid in images::processes(directory)? {
        let entries = pagemap(directory, pid)?.map(|pagemap| pagemap.entries).unwrap_or_default();
        let lazy = entries.iter().filter(|entry| entry.flags & LAZY != 0).map(|entry| entry.pages);
        tasks.push(Task { pid, lazy: joined(lazy) });
    }
    Ok(Instance { tasks, ..Instance::default() })
}

/// Neighbours as one.
fn joined(ranges: impl Iterator<Item = PageRange>) -> Vec<PageRange> {
    let mut all: Vec<PageRange> = Vec::new();
    for range in ranges.filter(|range| !range.is_empty()) {
        match all.last_mut() {
            Some(last) if last.end() == range.start() => {
                *last = PageRange::new(last.start(), range.end()).unwrap_or(*last);
            }
            _ => all.push(range),
        }
    }
    all
}

impl LocalPages {
    /// Finds the bytes of every lazy page of `instance`.
    ///
    /// # Errors
    /// An image cannot be read, or is malformed.
    pub fn open(directory: &Path, instance: &Instance) -> Result<Self, ImageError> {
        let mut opened = Opened::default();
        let mut chunks = Vec::new();
        for task in &instance.tasks {
            let mut found = Vec::new();
            for range in &task.lazy {
                opened.find(directory, task.pid, *range, 0, &mut found)?;
            }
            chunks.push(found);
        }
        Ok(Self { files: opened.files, chunks })
    }

    /// Reads the pages at `at` of the process with this index, from the first one on, and returns how many; `None` if
    /// the first one is nowhere.
    #[must_use]
    pub fn read(&self, index: usize, at: PageRange, buffer: &mut [u8]) -> Option<u64> {
        let chunks = self.chunks.get(index)?;
        let behind = chunks.partition_point(|chunk| chunk.pages.start() <= at.start());
        let chunk = chunks.get(behind.checked_sub(1)?)?;
        let rest = PageRange::new(at.start(), chunk.pages.end()).filter(|rest| !rest.is_empty())?;
        let pages = rest.pages().min(at.pages());
        let offset = chunk.offset + (at.start().0 - chunk.pages.start().0);
        let buffer = buffer.get_mut(..usize::try_from(pages * PAGE_SIZE).ok()?)?;
        self.files.get(chunk.file)?.read_exact_at(buffer, offset).ok()?;
        Some(pages)
    }
}

/// The file with the bytes, and each entry with the offset of its own.
type Known = (usize, Rc<[(Entry, u64)]>);

/// Page maps and files that have been looked at.
#[derive(Debug, Default)]
struct Opened {
    files: Vec<File>,
    /// By directory and process.
    maps: BTreeMap<(PathBuf, u32), Known>,
}

impl Opened {
    /// Where the bytes of `range` are, in these images or those before them.
    fn find(
        &mut self,
        directory: &Path,
        pid: u32,
        range: PageRange,
        depth: usize,
        found: &mut Vec<Chunk>,
    ) -> Result<(), ImageError> {
        let (file, entries) = self.load(directory, pid)?;
        let first = entries.partition_point(|(entry, _)| entry.pages.end() <= range.start());
        let mut parts = Vec::new();
        for (entry, offset) in entries.iter().skip(first) {
            let start = entry.pages.start().max(range.start());
            let end = entry.pages.end().min(range.end());
            let Some(part) = PageRange::new(start, end).filter(|part| !part.is_empty()) else { break };
            parts.push((part, entry.flags, offset + (start.0 - entry.pages.start().0)));
        }
        for (part, flags, offset) in parts {
            if flags & PRESENT != 0 {
                found.push(Chunk { pages: part, file, offset });
            } else if flags & IN_PARENT != 0 && depth < MOST_PARENTS {
                self.find(&directory.join("parent"), pid, part, depth + 1, found)?;
            }
        }
        Ok(())
    }

    fn load(&mut self, directory: &Path, pid: u32) -> Result<Known, ImageError> {
        let key = (directory.to_owned(), pid);
        if let Some(known) = self.maps.get(&key) {
            return Ok(known.clone());
        }
        let Some(map) = pagemap(directory, pid)? else {
            return Ok((usize::MAX, Rc::default()));
        };
        let path = directory.join(pages_name(map.pages_id));
        let opened = File::open(&path).map_err(|source| ImageError::Unreadable { path, source })?;
        let mut next = 0;
        let with_offset = |entry: Entry| {
            let offset = next;
            if entry.flags & PRESENT != 0 {
                next += entry.pages.len();
            }
            (entry, offset)
        };
        let entries: Rc<[(Entry, u64)]> = map.entries.into_iter().map(with_offset).collect();
        self.files.push(opened);
        let known = (self.files.len() - 1, entries);
        self.maps.insert(key, known.clone());
        Ok(known)
    }
}
