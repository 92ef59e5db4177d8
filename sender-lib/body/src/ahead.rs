//! Which pages the program writes while they are sent ahead of the switchover: private anonymous memory, as far as it was
//! there at the reservation.
//!
//! What cannot be watched, or was not there then, is not sent ahead; nor is anything if a file is open with `O_DIRECT`:
//! a device writes into memory without the page tables.

use alloc::vec::Vec;

use memory::{Backing, PageRange, PageSet, RangeSet, Sharing, Vma};
use page_server::Sweep;
use protocol::Manifest;
use sys::Errno;
use sys::descriptor;
use sys::pagemap::{Pagemap, Wanted};
use sys::proc::maps;
use sys::tracking::Tracking;

use crate::config::LOWEST_DESCRIPTOR;

const O_DIRECT: u32 = 0o40000;

/// The pages that are watched.
pub(crate) struct Ahead {
    tracking: Tracking,
    /// The mappings of which pages may go ahead, as the destination has made them; ascending.
    candidates: Vec<Vma>,
    /// Mappings that are watched, or were.
    watched: RangeSet,
    sent: PageSet,
}

impl Ahead {
    /// Begins to watch the program that `reserved` describes, which the destination has reserved.
    ///
    /// # Errors
    /// Those of userfaultfd(2).
    pub(crate) fn begin(reserved: &Manifest) -> Result<Self, Errno> {
        let mut candidates = Vec::new();
        if !writes_directly(reserved) {
            candidates.extend(reserved.vmas.iter().filter(|vma| is_private_memory(vma)).cloned());
        }
        let tracking = Tracking::begin()?.moved_from(LOWEST_DESCRIPTOR);
        Ok(Self { tracking, candidates, watched: RangeSet::new(), sent: PageSet::new() })
    }

    /// Its descriptor.
    pub(crate) fn descriptor(&self) -> u32 {
        self.tracking.descriptor().raw().cast_unsigned()
    }

    /// See [`page_server::SourceProcess::sweep`].
    pub(crate) fn sweep(&mut self, pagemap: &mut Pagemap) -> Sweep {
        let mut sweep = Sweep::default();
        for mapping in maps::own_mappings().unwrap_or_default() {
            if mapping.sharing == Sharing::Shared || mapping.inode != 0 {
                continue;
            }
            let range = mapping.range;
            if !self.concerns(range) || is_watched(pagemap, range) {
                continue;
            }
            // New, or made anew in the place of another one: what was sent of that says nothing about it.
            if self.tracking.watch(range).is_ok() {
                self.watched.insert(range);
                sweep.lost.push(range);
            }
        }
        for vma in &self.candidates {
            match pagemap.scan(vma.range, Wanted::WrittenSince) {
                Ok(mut written) => sweep.written.append(&mut written),
                // Some of what was written may not be told of any more.
                Err(_) => sweep.lost.push(vma.range),
            }
        }
        if may_write_directly() {
            // A device that began to write before this sweep ends behind it, and nobody is told.
            sweep.written.clear();
            sweep.lost.extend(self.candidates.drain(..).map(|vma| vma.range));
        }
        sweep
    }

    /// Whether pages of a mapping may go ahead.
    fn concerns(&self, range: PageRange) -> bool {
        let next = self.candidates.partition_point(|vma| vma.range.end() <= range.start());
        self.candidates.get(next).is_some_and(|vma| vma.range.start() < range.end())
    }

    /// These pages were sent.
    pub(crate) fn set_sent(&mut self, sent: PageSet) {
        self.sent = sent;
    }

    /// Of the pages that were sent those that the program, which stands still, has not written, dropped, moved or mapped
    /// anew since. Where it has another sort of mapping by now, the destination cannot keep any.
    pub(crate) fn kept(&self, pagemap: &mut Pagemap, stopped: &Manifest) -> RangeSet {
        let mut kept = RangeSet::new();
        if writes_directly(stopped) || self.sent.is_empty() {
            return kept;
        }
        for vma in stopped.vmas.iter().filter(|vma| is_private_memory(vma)) {
            let first = self.candidates.partition_point(|old| old.range.end() <= vma.range.start());
            for old in self.candidates.get(first..).unwrap_or_default() {
                let Some(common) = old.range.intersection(vma.range).filter(|common| !common.is_empty())
                else {
                    break;
                };
                if old.flags == vma.flags
                    && let Ok(changed) = pagemap.scan(common, Wanted::Changed)
                {
                    self.sent.runs_in(common).for_each(|run| kept.insert(run));
                    changed.into_iter().for_each(|run| _ = kept.remove(run));
                }
            }
        }
        kept
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        for range in self.watched.runs() {
            // What is not mapped any more is not watched either.
            let _ = self.tracking.forget(range);
        }
    }
}

fn is_private_memory(vma: &Vma) -> bool {
    vma.sharing == Sharing::Private
        && vma.backing == Backing::Anonymous
        && !vma.flags.droppable
        && vma.flags.huge_kib == 0
}

/// Whether the mapping that begins with `range` is watched: all of it is or nothing.
fn is_watched(pagemap: &mut Pagemap, range: PageRange) -> bool {
    let (first, _) = range.split_at_pages(1);
    pagemap.scan(first, Wanted::Watched).is_ok_and(|found| !found.is_empty())
}

/// Whether a device may write into the program's memory by a descriptor that is open now (or a pipe is one of packets).
fn may_write_directly() -> bool {
    let mut numbers = descriptor::numbers().unwrap_or_default().into_iter();
    numbers.any(|fd| descriptor::status_flags(fd).is_ok_and(|flags| flags & O_DIRECT != 0))
}

/// Whether a device may write into the program's memory while it runs.
fn writes_directly(manifest: &Manifest) -> bool {
    const KIND: u32 = 0o170_000;
    const REGULAR: u32 = 0o100_000;
    const BLOCK_DEVICE: u32 = 0o060_000;
    manifest.descriptions.iter().any(|description| {
        description.flags & O_DIRECT != 0 && matches!(description.mode & KIND, REGULAR | BLOCK_DEVICE)
    })
}
