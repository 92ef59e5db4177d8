//! Changing mappings around pages that are in place already.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use memory::{Addr, PageRange, RangeSet, Sharing};
use nix::libc;
use sys::pagemap::{Pagemap, Wanted};

use super::{MAPPINGS_PER_PROGRAM, Mapping, Mappings, Source, change};
use crate::restorer::{BlankChild, RestoreError, Step};

use std::os::fd::OwnedFd;

/// Also where pages are locked (Linux 5.18).
const MADV_DONTNEED_LOCKED: u64 = 24;

/// Whether `at` lies in private memory of the program, and nowhere else.
pub(in crate::restorer) fn is_private_memory(mappings: &Mappings, at: PageRange) -> bool {
    let mut rest = at;
    let first = mappings.0.partition_point(|mapping| mapping.range.end() <= at.start());
    for mapping in mappings.iter().skip(first) {
        if rest.is_empty() || mapping.range.start() > rest.start() {
            break;
        }
        if let Some(part) = mapping.range.intersection(rest)
            && mapping.is_private_memory()
        {
            (_, rest) = rest.split_at_pages(part.pages());
        }
    }
    rest.is_empty()
}

/// Private memory that may be used, the largest mapping first.
pub(in crate::restorer) fn largest(mappings: &Mappings) -> Vec<PageRange> {
    let is_usable = |mapping: &&Mapping| mapping.is_private_memory() && mapping.protection.bits() != 0;
    let private = mappings.iter().filter(is_usable);
    let mut ranges: Vec<PageRange> = private.map(|mapping| mapping.range).collect();
    ranges.sort_by_key(|range| Reverse(range.pages()));
    ranges
}

/// As [`change`], but leaves the pages of `kept` where they are if their mapping has only grown, shrunk, been cut or got
/// another protection. Returns those of which that is not so.
pub(in crate::restorer) fn change_around(
    child: &BlankChild,
    have: &Mappings,
    want: &Mappings,
    objects: &[OwnedFd],
    kept: &[PageRange],
) -> Result<Vec<PageRange>, RestoreError> {
    if kept.is_empty() {
        change(child, have, want, objects)?;
        return Ok(Vec::new());
    }
    let (mut have, want) = cut(have, want);
    protect(child, &mut have, &want)?;
    change(child, &have, &want, objects)?;
    let stays = have.iter().filter(|mapping| {
        mapping.is_private_memory() && want.get(mapping.range).is_some_and(|other| other == *mapping)
    });
    let stays: RangeSet = stays.map(|mapping| mapping.range).collect();
    let mut remade: RangeSet = kept.iter().copied().collect();
    for range in stays.runs() {
        remade.remove(range);
    }
    Ok(remade.runs().collect())
}

/// Drops what was written to these pages: private memory, as far as it is mapped.
pub(in crate::restorer) fn forget(
    child: &BlankChild,
    mappings: &Mappings,
    stale: &[PageRange],
) -> Result<(), RestoreError> {
    let stale: RangeSet = stale.iter().copied().collect();
    let private = mappings.iter().filter(|mapping| mapping.is_private_memory());
    let parts: Vec<_> = private.flat_map(|mapping| stale.runs_in(mapping.range)).collect();
    let by_lists = forget_by_lists(child, &parts)?;
    for part in parts.get(by_lists..).unwrap_or_default().chunks(MAPPINGS_PER_PROGRAM) {
        let mut program = child.program();
        for range in part {
            program.step(Step::Drop(*range));
            program.call(libc::SYS_madvise, [range.start().0, range.len(), MADV_DONTNEED_LOCKED]);
        }
        child.run(program, &[])?;
    }
    Ok(())
}

/// Drops the first of `parts` by calls that take a list each, as far as the kernel takes them: of the own process, Linux does
/// since 6.13. Returns how many.
fn forget_by_lists(child: &BlankChild, parts: &[PageRange]) -> Result<usize, RestoreError> {
    /// Ranges that one call takes at most (`UIO_MAXIOV`).
    const LIST: usize = 1024;
    const LISTS_PER_PROGRAM: usize = 32;
    let mut done = 0;
    for batch in parts.chunks(LIST * LISTS_PER_PROGRAM) {
        let mut program = child.program();
        if let Some(first) = batch.first() {
            program.step(Step::Drop(*first));
        }
        let own_id = program.call(libc::SYS_getpid, []);
        let opened = program.attempt_with(libc::SYS_pidfd_open, [0, 0], &[(0, program.result(own_id))]);
        let pidfd = program.result(opened);
        let mut calls = Vec::new();
        for list in batch.chunks(LIST) {
            let words: Vec<u64> = list.iter().flat_map(|range| [range.start().0, range.len()]).collect();
            let (at, count) = (program.words(&words), list.len() as u64);
            let arguments = [0, at.0, count, MADV_DONTNEED_LOCKED, 0];
            let call = program.attempt_with(libc::SYS_process_madvise, arguments, &[(0, pidfd)]);
            calls.push((call, list));
        }
        program.attempt_with(libc::SYS_close, [0], &[(0, pidfd)]);
        let results = child.run(program, &[])?;
        for (call, list) in calls {
            if results.of(call) != Ok(list.iter().map(|range| range.len()).sum()) {
                return Ok(done);
            }
            done += list.len();
        }
    }
    Ok(done)
}

/// That of what is registered nothing is there but what was written ahead: whatever else had brought a page, it would
/// be taken for the program's.
pub(in crate::restorer) fn prove_missing(
    child: &BlankChild,
    lazy: &[PageRange],
    kept: &[PageRange],
) -> Result<(), RestoreError> {
    let unread = |errno: sys::Errno| RestoreError::Host {
        what: "the new process's page tables",
        source: errno.into(),
    };
    let Some(mut pages) = Pagemap::of(child.pid()).map_err(unread)? else { return Ok(()) };
    let [lazy, kept]: [RangeSet; 2] = [lazy, kept].map(|ranges| ranges.iter().copied().collect());
    for near in neighbours(lazy.runs()) {
        for found in pages.scan(near, Wanted::Known).map_err(unread)? {
            for lazy in lazy.runs_in(found).filter(|lazy| !kept.covers(*lazy)) {
                let mut surplus: RangeSet = [lazy].into_iter().collect();
                for run in kept.runs_in(lazy) {
                    surplus.remove(run);
                }
                if let Some(page) = surplus.runs().next() {
                    return Err(RestoreError::NotMissing(page));
                }
            }
        }
    }
    Ok(())
}

/// Ascending `ranges`, those together between which there is little, as a guard is between two stacks: to look at them
/// costs one call.
fn neighbours(ranges: impl Iterator<Item = PageRange>) -> impl Iterator<Item = PageRange> {
    const LITTLE: u64 = 16 * memory::PAGE_SIZE;
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let mut all = ranges.next()?;
        while let Some(next) = ranges.next_if(|next| next.start().0 - all.end().0 <= LITTLE) {
            all = PageRange::new(all.start(), next.end())?;
        }
        Some(all)
    })
}

/// Cuts private memory that is not the same in both at each other's ends.
fn cut(have: &Mappings, want: &Mappings) -> (Mappings, Mappings) {
    let ends = |map: &Mappings| {
        map.iter().flat_map(|mapping| [mapping.range.start(), mapping.range.end()]).collect::<Vec<_>>()
    };
    let ends: BTreeSet<Addr> = ends(have).into_iter().chain(ends(want)).collect();
    let pieces = |map: &Mappings, other: &Mappings| {
        let mut pieces = Vec::new();
        for mapping in map.iter() {
            let mut rest = mapping.range;
            if mapping.is_private_memory() && other.get(mapping.range) != Some(mapping) {
                for end in ends.range(rest.start()..rest.end()).skip(1) {
                    let (near, far) = rest.split_at_pages((end.0 - rest.start().0) / memory::PAGE_SIZE);
                    pieces.push(Mapping { range: near, ..mapping.clone() });
                    rest = far;
                }
            }
            pieces.push(Mapping { range: rest, ..mapping.clone() });
        }
        pieces.into_iter().collect()
    };
    (pieces(have, want), pieces(want, have))
}

/// Changes the protection of private memory that is the same but for that.
fn protect(child: &BlankChild, have: &mut Mappings, want: &Mappings) -> Result<(), RestoreError> {
    let differs = |mapping: &&mut Mapping| {
        let wanted = want.get(mapping.range);
        wanted.is_some_and(|wanted| {
            mapping.protection != wanted.protection
                && *wanted == Mapping { protection: wanted.protection, ..(**mapping).clone() }
                && wanted.is_private_memory()
        })
    };
    let mut changed: Vec<&mut Mapping> = have.0.iter_mut().filter(differs).collect();
    for part in changed.chunks_mut(MAPPINGS_PER_PROGRAM) {
        let mut program = child.program();
        for mapping in part {
            let range = mapping.range;
            mapping.protection = want.get(range).map_or(mapping.protection, |wanted| wanted.protection);
            program.step(Step::Map(range));
            let protection = u64::from(mapping.protection.bits());
            program.call(libc::SYS_mprotect, [range.start().0, range.len(), protection]);
        }
        child.run(program, &[])?;
    }
    Ok(())
}

impl Mapping {
    fn is_private_memory(&self) -> bool {
        self.sharing == Sharing::Private
            && self.source == Source::Anonymous
            && !self.flags.droppable
            && self.flags.huge_kib == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::{PAGE_SIZE, Protection, VmaFlags};

    const READ_WRITE: Protection = Protection { read: true, write: true, execute: false };

    fn range(start: u64, pages: u64) -> PageRange {
        PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
    }

    fn mappings(list: &[(u64, u64, Source)]) -> Mappings {
        let mapping = |(start, pages, source): &(u64, u64, Source)| {
            let range = range(*start, *pages);
            let flags = VmaFlags::default();
            let source = source.clone();
            Mapping { range, protection: READ_WRITE, sharing: Sharing::Private, flags, source }
        };
        list.iter().map(mapping).collect()
    }

    #[test]
    fn only_private_memory_takes_pages_ahead() {
        let file = Source::File { path: b"/x".to_vec(), offset: 0 };
        let map = mappings(&[(10, 5, Source::Anonymous), (15, 5, Source::Anonymous), (20, 5, file)]);
        assert!(is_private_memory(&map, range(10, 10)) && is_private_memory(&map, range(17, 1)));
        for wrong in [range(9, 1), range(9, 2), range(19, 2), range(20, 1), range(25, 1), range(30, 4)] {
            assert!(!is_private_memory(&map, wrong), "{wrong}");
        }
    }

    #[test]
    fn what_both_have_is_not_made_again() {
        let file = |offset| Source::File { path: b"/x".to_vec(), offset };
        let have = mappings(&[(10, 5, Source::Anonymous), (20, 5, file(0)), (30, 5, Source::Anonymous)]);
        let want = mappings(&[(30, 5, Source::Anonymous), (10, 4, Source::Anonymous), (20, 5, file(1))]);
        let ranges = |those: Vec<&Mapping>| those.iter().map(|mapping| mapping.range).collect::<Vec<_>>();
        assert_eq!(ranges(have.not_in(&want)), [range(10, 5), range(20, 5)]);
        assert_eq!(ranges(want.not_in(&have)), [range(10, 4), range(20, 5)]);
        assert_eq!(want.not_in(&Mappings::default()).len(), 3);
    }

    #[test]
    fn mappings_that_no_process_can_have_are_named() {
        let of = |list: &[(u64, u64)]| {
            let list: Vec<_> =
                list.iter().map(|(start, pages)| (*start, *pages, Source::Anonymous)).collect();
            mappings(&list).fault()
        };
        assert_eq!(of(&[(20, 5), (10, 10), (25, 1)]), None);
        assert_eq!(of(&[(10, 5), (20, 5), (14, 2)]), Some(range(14, 2)));
        assert_eq!(of(&[(10, 5), (10, 5)]), Some(range(10, 5)));
        assert_eq!(of(&[(10, 5), (20, 0)]), Some(range(20, 0)));
    }

    #[test]
    fn ranges_that_are_close_are_looked_at_together() {
        let ranges = [range(10, 5), range(16, 4), range(36, 1), range(54, 1), range(55, 2)];
        let expected = [range(10, 27), range(54, 3)];
        assert_eq!(neighbours(ranges.into_iter()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_has_grown_or_shrunk_stays_where_both_have_it() {
        let have = mappings(&[(10, 10, Source::Anonymous), (40, 5, Source::Anonymous)]);
        let want = mappings(&[(5, 12, Source::Anonymous), (40, 5, Source::Anonymous)]);
        let (have, want) = cut(&have, &want);
        let ranges = |map: &Mappings| map.iter().map(|mapping| mapping.range).collect::<Vec<_>>();
        assert_eq!(ranges(&have), [range(10, 7), range(17, 3), range(40, 5)]);
        assert_eq!(ranges(&want), [range(5, 5), range(10, 7), range(40, 5)]);
    }
}
