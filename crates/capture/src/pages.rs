//! Which pages must be in place before the first instruction at the destination, and which come after it.

use alloc::vec::Vec;

use memory::{Addr, Backing, PAGE_SIZE, PageRange, RangeSet, Sharing, Vma};
use protocol::{FileVerdict, MmFields, ThreadRecord};
use sys::own_memory::own_words;
use sys::pagemap::{Pagemap, Wanted};

use crate::Look;
use crate::refusal::{Doing, Refusal};
use crate::tables::Objects;

/// Entries of a robust list that are followed, as in the kernel (`ROBUST_LIST_LIMIT`).
const ROBUST_LIST_LIMIT: usize = 2048;

/// What the destination does with a file.
fn travels(verdicts: &[FileVerdict], file: u32) -> bool {
    verdicts.get(file as usize) != Some(&FileVerdict::Same)
}

/// What is known of the stopped process's mappings.
pub(crate) struct Known<'a> {
    pub(crate) vmas: &'a [Vma],
    pub(crate) objects: &'a Objects,
    pub(crate) verdicts: &'a [FileVerdict],
    /// What is left zero.
    pub(crate) never: PageRange,
}

impl Known<'_> {
    /// Ranges whose pages come after `Run`: private memory, private mappings of files that the destination does not
    /// have, and objects that no descriptor can read.
    pub(crate) fn lazy(&self) -> Vec<PageRange> {
        let mut ranges = RangeSet::new();
        for vma in self.vmas {
            let is_lazy = match (&vma.backing, vma.sharing) {
                // What the kernel may drop at any time is dropped.
                (Backing::Anonymous, _) => !vma.flags.droppable,
                (Backing::File { file, .. }, Sharing::Private) => travels(self.verdicts, *file),
                (Backing::File { .. }, Sharing::Shared) => false,
                (Backing::Object { object, .. }, _) => !self.objects.is_readable(*object),
            };
            // A userfaultfd would take huge pages as a whole only.
            if is_lazy && vma.flags.huge_kib == 0 {
                ranges.insert(vma.range);
            }
        }
        ranges.remove(self.never);
        ranges.runs().collect()
    }

    /// Pages that must come before `Run`: what the kernel reads while a thread starts or ends and where `/proc` shows
    /// them, the leaving gate if its file travels, changed pages of private mappings of files that the destination has,
    /// huge TLB pages, and what lies behind the last byte of an object in its last page.
    pub(crate) fn eager(
        &self,
        pagemap: &mut Pagemap,
        threads: &[ThreadRecord],
        mm: &MmFields,
        leaving_gate: Addr,
    ) -> Result<Vec<PageRange>, Refusal> {
        let failed = Refusal::kernel(Doing::Pages);
        let wanted = wanted_by_kernel(threads, mm);
        let mut ranges = RangeSet::new();
        for vma in self.vmas {
            for touched in wanted.runs_in(vma.range) {
                ranges.insert(touched);
            }
            let is_huge = vma.flags.huge_kib != 0;
            let is_there = match vma.backing {
                Backing::Anonymous if is_huge => true,
                Backing::Anonymous => continue,
                Backing::File { file, .. } => !travels(self.verdicts, file),
                Backing::Object { .. } => true,
            };
            if vma.sharing == Sharing::Shared {
                // Which pages others have touched nobody tells.
                let is_told =
                    matches!(vma.backing, Backing::Object { object, .. } if self.objects.is_readable(object));
                if is_huge && !is_told {
                    ranges.insert(vma.range);
                }
                if let Some(last) = self.last_page(vma) {
                    ranges.insert(last);
                }
                continue;
            }
            if is_there {
                for changed in pagemap.scan(vma.range, Wanted::Private).map_err(&failed)? {
                    ranges.insert(changed);
                }
            } else if let Some(gate) = PageRange::covering(leaving_gate, GATE_BYTES)
                && let Some(gate) = gate.intersection(vma.range)
            {
                ranges.insert(gate);
            }
        }
        ranges.remove(self.never);
        Ok(ranges.runs().collect())
    }

    /// The page with the end of a readable object, where the program may have written behind the end.
    fn last_page(&self, vma: &Vma) -> Option<PageRange> {
        let Backing::Object { object, offset } = vma.backing else { return None };
        let size = self.objects.size(object);
        if !vma.protection.write || size.is_multiple_of(PAGE_SIZE) {
            return None;
        }
        let end = vma.range.start().0.checked_add(size.checked_sub(offset)?)?;
        PageRange::page_of(Addr(end))?.intersection(vma.range)
    }
}

/// What the kernel touches where no fault can be served.
fn wanted_by_kernel(threads: &[ThreadRecord], mm: &MmFields) -> RangeSet {
    let mut wanted = RangeSet::new();
    // The last first: its stack is the lowest, and what is inserted in order moves nothing.
    for thread in threads.iter().rev() {
        of_thread(thread, &mut wanted);
    }
    // `/proc/PID/cmdline` and `environ` are read.
    for (start, end) in [(mm.arg_start, mm.arg_end), (mm.env_start, mm.env_end)] {
        let len = end.saturating_sub(start).min(MOST_SHOWN_BYTES);
        if let Some(shown) = PageRange::covering(Addr(start), len) {
            wanted.insert(shown);
        }
    }
    wanted
}

/// Pages that must not be touched. Behind a `look` only mappings that had some then are looked through, and those that are
/// new: it costs time for every page.
pub(crate) fn guards(
    pagemap: &mut Pagemap,
    vmas: &[Vma],
    look: Option<&Look>,
) -> Result<Vec<PageRange>, Refusal> {
    let failed = Refusal::kernel(Doing::Pages);
    let mut found = Vec::new();
    for vma in vmas {
        let is_free = look.is_some_and(|look| {
            !look.guards.iter().any(|guard| guard.intersection(vma.range).is_some())
                && look.vmas.binary_search_by_key(&vma.range.start(), |old| old.range.start()).is_ok()
        });
        if !is_free {
            found.extend(pagemap.scan(vma.range, Wanted::Guards).map_err(&failed)?);
        }
    }
    Ok(found)
}

/// Takes `guards` out of each of `lists`.
pub(crate) fn remove(guards: &[PageRange], lists: [&mut Vec<PageRange>; 2]) {
    if guards.is_empty() {
        return;
    }
    for list in lists {
        let mut ranges: RangeSet = list.iter().copied().collect();
        for guard in guards {
            ranges.remove(*guard);
        }
        *list = ranges.runs().collect();
    }
}

/// Bytes of arguments, and of the environment, that are shown while pages are missing; few programs have more.
const MOST_SHOWN_BYTES: u64 = 64 << 10;
/// Bytes of the leaving gate, amply.
const GATE_BYTES: u64 = 64;
/// `struct robust_list_head`: the first entry, the offset of the futex word, the pending operation.
const HEAD_BYTES: usize = 24;

/// The pages that the kernel touches on behalf of `thread` where no fault can be served: its exit writes
/// `clear_child_tid` and walks the robust list. Frame and rseq area are added to save their faults.
fn of_thread(thread: &ThreadRecord, wanted: &mut RangeSet) {
    let mut want = |addr: Addr, len: u64| {
        if let Some(range) = PageRange::covering(addr, len).filter(|_| addr.0 != 0) {
            wanted.insert(range);
        }
    };
    want(thread.frame, thread.frame_len);
    want(thread.clear_child_tid, 4);
    if let Some(rseq) = thread.rseq {
        want(rseq.addr, u64::from(rseq.len));
    }
    let (head, _) = thread.robust_list;
    want(head, HEAD_BYTES as u64);
    let Some([first, futex_offset, pending]) = own_words(head.0) else { return };
    let mut entry = first;
    for _ in 0..ROBUST_LIST_LIMIT {
        // The lowest bit marks priority inheritance.
        let at = Addr(entry & !1);
        if at == head || at.0 == 0 {
            break;
        }
        want(at, 8);
        want(Addr(at.0.wrapping_add(futex_offset)), 4);
        let Some([next]) = own_words(at.0) else { break };
        entry = next;
    }
    want(Addr(pending & !1), 8);
    if pending & !1 != 0 {
        want(Addr((pending & !1).wrapping_add(futex_offset)), 4);
    }
}
