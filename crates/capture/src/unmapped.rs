//! Parts of shared memory that nothing maps at the moment and no descriptor reads: a mapping that grows shows them again
//! (mremap(2)).

use alloc::vec::Vec;

use memory::{Addr, Backing, PAGE_SIZE, PageRange, RangeSet, Sharing, Vma};
use sys::own_memory::{self, SecondMapping};
use sys::process::machine_has_swap;

use crate::descriptors::CONTENT_LIMIT;
use crate::refusal::{Doing, ProcessTrait, Refusal};
use crate::tables::Objects;

/// Bytes that are looked at.
const LONGEST: u64 = 1 << 40;

/// Gives every object its true size, and the content of what no mapping shows behind the first byte that one does.
pub(crate) fn complete(vmas: &[Vma], objects: &mut Objects) -> Result<(), Refusal> {
    let mut left = CONTENT_LIMIT;
    for (index, record) in objects.unreadable() {
        // Offsets as addresses.
        let mut mapped = RangeSet::new();
        let mut first: Option<(u64, &Vma)> = None;
        for vma in vmas {
            let Backing::Object { object, offset } = vma.backing else { continue };
            if object != index || vma.sharing != Sharing::Shared {
                continue;
            }
            mapped.insert(vma.range.moved_to(Addr(offset)).unwrap_or(vma.range));
            // A locked mapping would fill its twin, and what cannot be read says nothing of its end.
            let is_of_use = vma.protection.read && !vma.flags.locked;
            if is_of_use && first.is_none_or(|(lowest, _)| offset < lowest) {
                first = Some((offset, vma));
            }
        }
        let Some((from, vma)) = first else { continue };
        let Some(end) = end_of(vma, record.size - from) else { continue };
        record.size = record.size.max(from + end);
        let whole = PageRange::new(Addr(from), Addr(record.size));
        let Some(whole) = whole.filter(|whole| !mapped.covers(*whole)) else { continue };
        let twin = twin(vma, whole.len())?;
        let mut hidden: RangeSet = [whole].into_iter().collect();
        for shown in mapped.runs() {
            hidden.remove(shown);
        }
        for range in hidden.runs() {
            let at = twin.start() + (range.start().0 - from);
            read(at, range, &mut left, &mut record.content)?;
        }
    }
    Ok(())
}

fn twin(vma: &Vma, len: u64) -> Result<SecondMapping, Refusal> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    SecondMapping::of(vma.range.start().0, len).map_err(Refusal::kernel(Doing::Pages))
}

/// How many bytes there are behind the start of `vma`, if there are more than the `known` ones.
fn end_of(vma: &Vma, known: u64) -> Option<u64> {
    let is_there = |twin: &SecondMapping, end: u64| {
        own_memory::read_own(twin.start() + end - PAGE_SIZE, &mut [0]).is_ok()
    };
    let (mut inside, mut outside) = (known, known + PAGE_SIZE);
    let mut map = twin(vma, outside).ok()?;
    while outside < LONGEST && is_there(&map, outside) {
        (inside, outside) = (outside, outside * 2);
        map = twin(vma, outside).ok()?;
    }
    while outside - inside > PAGE_SIZE {
        let middle = (inside + (outside - inside) / 2).next_multiple_of(PAGE_SIZE);
        if is_there(&map, middle) { inside = middle } else { outside = middle }
    }
    (inside > known).then_some(inside)
}

/// Appends the data of `range`, whose first byte is at `at`, to `content`.
fn read(
    at: u64,
    range: PageRange,
    left: &mut usize,
    content: &mut Vec<(u64, Vec<u8>)>,
) -> Result<(), Refusal> {
    let failed = Refusal::kernel(Doing::Pages);
    let pages = usize::try_from(range.pages()).ok().filter(|pages| *pages <= CONTENT_LIMIT);
    let mut states = alloc::vec![1; pages.ok_or(ProcessTrait::TooMuchContent)?];
    if !machine_has_swap() {
        own_memory::resident(at, &mut states).map_err(&failed)?;
    }
    for (offset, state) in (0_u64..).step_by(4096).zip(&states) {
        if state & 1 == 0 {
            continue;
        }
        let mut page = alloc::vec![0; 4096];
        *left = left.checked_sub(page.len()).ok_or(ProcessTrait::TooMuchContent)?;
        own_memory::read_own(at + offset, &mut page).map_err(&failed)?;
        content.push((range.start().0 + offset, page));
    }
    Ok(())
}
