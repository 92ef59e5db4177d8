//! The sets and the map behave like the obvious slow ones, whatever is done to them.

use std::collections::{BTreeMap, BTreeSet};

use memory::{Addr, AddressMap, PAGE_SIZE, PageRange, PageSet, RangeSet};
use proptest::prelude::*;

/// Pages of the small world: three chunks of a [`PageSet`] and a bit.
const WORLD: u64 = 1600;

fn range(start: u64, pages: u64) -> PageRange {
    PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
}

fn pages_of(range: PageRange) -> std::ops::Range<u64> {
    range.start().0 / PAGE_SIZE..range.end().0 / PAGE_SIZE
}

fn any_range() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![(0..WORLD, 0..70_u64), (0..WORLD, 0..1100_u64)]
}

/// Maximal runs of the pages of `model` within `within`.
fn model_runs(model: &BTreeSet<u64>, within: PageRange) -> Vec<PageRange> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &page in model.range(pages_of(within)) {
        match runs.last_mut() {
            Some((start, len)) if *start + *len == page => *len += 1,
            _ => runs.push((page, 1)),
        }
    }
    runs.into_iter().map(|(start, len)| range(start, len)).collect()
}

proptest! {
    #[test]
    fn page_set_and_range_set_hold_what_a_set_of_numbers_holds(
        steps in proptest::collection::vec((any::<bool>(), any_range()), 1..40),
        (from, len) in any_range(),
        limit in 1..700_u64,
    ) {
        let (mut set, mut ranges, mut model) = (PageSet::new(), RangeSet::new(), BTreeSet::new());
        for (add, (start, pages)) in steps {
            let piece = range(start, pages);
            let before = model.len() as u64;
            if add {
                model.extend(pages_of(piece));
                prop_assert_eq!(set.insert(piece), model.len() as u64 - before);
                ranges.insert(piece);
            } else {
                model.retain(|page| !pages_of(piece).contains(page));
                prop_assert_eq!(set.remove(piece), before - model.len() as u64);
                prop_assert_eq!(ranges.remove(piece), before - model.len() as u64);
            }
        }
        let window = range(from, len);
        let expected = model_runs(&model, window);
        prop_assert_eq!((set.len(), ranges.pages()), (model.len() as u64, model.len() as u64));
        prop_assert_eq!(set.runs().collect::<Vec<_>>(), model_runs(&model, range(0, 3 * WORLD)));
        prop_assert_eq!(ranges.runs().collect::<Vec<_>>(), model_runs(&model, range(0, 3 * WORLD)));
        prop_assert_eq!(set.runs_in(window).collect::<Vec<_>>(), expected.clone());
        prop_assert_eq!(ranges.runs_in(window).collect::<Vec<_>>(), expected.clone());
        prop_assert_eq!(set.first_in(window), expected.first().copied());
        prop_assert_eq!(ranges.first_in(window), expected.first().copied());
        prop_assert_eq!(ranges.covers(window), pages_of(window).all(|page| model.contains(&page)));
        for page in (0..WORLD).step_by(37) {
            let inside = Addr(page * PAGE_SIZE + 17);
            prop_assert_eq!(set.contains(inside), model.contains(&page));
            prop_assert_eq!(ranges.contains(inside), model.contains(&page));
        }
        let next = model_runs(&model, range(from, 3 * WORLD)).first().copied();
        prop_assert_eq!(set.next_run(window.start(), limit), next.map(|run| run.split_at_pages(limit).0));
    }

    #[test]
    fn address_map_holds_what_a_table_of_pages_holds(
        steps in proptest::collection::vec((0..3_u8, any_range(), 0..WORLD), 1..40),
        (from, len) in any_range(),
    ) {
        let (mut map, mut model) = (AddressMap::new(), BTreeMap::new());
        for (kind, (start, pages), other) in steps {
            let piece = range(start, pages);
            match kind {
                0 => {
                    map.insert(piece, Addr(other * PAGE_SIZE));
                    insert(&mut model, piece, other);
                }
                1 => {
                    let held = flat(&map.remove(piece));
                    let expected = take(&mut model, piece);
                    prop_assert_eq!(held, expected);
                }
                _ => move_both(&mut map, &mut model, piece, other),
            }
        }
        prop_assert_eq!(flat(&map.iter().collect::<Vec<_>>()), model.clone().into_iter().collect::<Vec<_>>());
        let window = range(from, len);
        let here: Vec<_> = model.range(pages_of(window)).map(|(at, source)| (*at, *source)).collect();
        prop_assert_eq!(flat(&map.translate(window)), here);
        let mut located = flat(&map.locate(window));
        located.sort_unstable();
        let there: Vec<_> =
            model.iter().filter(|(_, s)| pages_of(window).contains(s)).map(|(at, s)| (*at, *s)).collect();
        prop_assert_eq!(located, there);
        for page in (0..WORLD).step_by(37) {
            let expected = model.get(&page).map(|source| Addr(source * PAGE_SIZE + 17));
            prop_assert_eq!(map.source_of(Addr(page * PAGE_SIZE + 17)), expected);
        }
        let extents: Vec<_> = map.iter().collect();
        let mergeable = extents.windows(2).any(|pair| match pair {
            [(at, from), (next, behind)] => (at.end(), from.end()) == (next.start(), behind.start()),
            _ => false,
        });
        prop_assert!(!mergeable, "{:?}", extents);
    }
}

fn flat(pieces: &[(PageRange, PageRange)]) -> Vec<(u64, u64)> {
    pieces.iter().flat_map(|(current, source)| pages_of(*current).zip(pages_of(*source))).collect()
}

fn insert(model: &mut BTreeMap<u64, u64>, current: PageRange, source: u64) {
    let sources = source..source + current.pages();
    model.retain(|at, from| !pages_of(current).contains(at) && !sources.contains(from));
    model.extend(pages_of(current).zip(sources));
}

fn take(model: &mut BTreeMap<u64, u64>, current: PageRange) -> Vec<(u64, u64)> {
    let held: Vec<_> = model.range(pages_of(current)).map(|(at, source)| (*at, *source)).collect();
    model.retain(|at, _| !pages_of(current).contains(at));
    held
}

fn move_both(map: &mut AddressMap, model: &mut BTreeMap<u64, u64>, from: PageRange, to: u64) {
    for (piece, source) in map.remove(from) {
        let offset = piece.start().0 - from.start().0;
        map.insert(piece.moved_to(Addr(to * PAGE_SIZE + offset)).expect("small"), source.start());
    }
    for (at, source) in take(model, from) {
        insert(model, range(to + (at - pages_of(from).start), 1), source);
    }
}

#[test]
fn a_run_of_a_hundred_thousand_pages_ends_where_the_first_is_missing() {
    const PAGES: u64 = 100_000;
    let all = range(7, PAGES);
    let mut set = PageSet::new();
    set.insert(all);
    assert_eq!(set.runs().collect::<Vec<_>>(), [all]);
    assert_eq!(set.next_run(Addr(0), 40_000), Some(range(7, 40_000)));
    for missing in (64..PAGES).step_by(4096).flat_map(|at| [at - 1, at, at + 64]) {
        set.remove(range(missing, 1));
        let run = set.next_run(Addr(0), u64::MAX).expect("what is before it");
        assert_eq!((run.start(), run.end()), (all.start(), range(missing, 1).start()));
        set.insert(range(missing, 1));
        set.remove(range(missing, 640));
        assert_eq!(set.first_in(range(missing - 1, 700)), Some(range(missing - 1, 1)));
        set.insert(range(missing, 640));
    }
}

#[test]
fn ten_thousand_extents_are_looked_up_without_a_walk() {
    let mut map = AddressMap::new();
    for index in 0..10_000 {
        map.insert(range(10 * index, 4), Addr((1_000_000 + 20 * index) * PAGE_SIZE));
    }
    assert_eq!(map.len(), 10_000);
    for index in 0..10_000 {
        let source = range(1_000_000 + 20 * index + 1, 2);
        assert_eq!(map.locate(source), [(range(10 * index + 1, 2), source)]);
    }
}
