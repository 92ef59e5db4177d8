//! Where the pages of the source are at the destination: the program may `mremap` them at any time.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::{Addr, PageRange};

/// A one-to-one map from current addresses (in the running process) to source addresses (in the stopped
/// one), kept as non-overlapping extents. It starts as the identity over the registered mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMap {
    /// Start of the current range → (its end, start of the source range).
    extents: BTreeMap<Addr, (Addr, Addr)>,
}

impl AddressMap {
    /// The empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self { extents: BTreeMap::new() }
    }

    /// How many extents the map holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.extents.len()
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Maps `current` to the same number of pages from `source`; what `current` held before is forgotten.
    pub fn insert(&mut self, current: PageRange, source: Addr) {
        self.remove(current);
        if !current.is_empty() {
            self.extents.insert(current.start(), (current.end(), source));
        }
    }

    /// Forgets `current` and returns what it held, as (current range, source range), ascending.
    pub fn remove(&mut self, current: PageRange) -> Vec<(PageRange, PageRange)> {
        let held = self.translate(current);
        for (piece, _) in &held {
            self.cut(*piece);
        }
        held
    }

    /// The source address of `current`, if it is mapped.
    #[must_use]
    pub fn source_of(&self, current: Addr) -> Option<Addr> {
        let (start, (end, source)) = self.extents.range(..=current).next_back()?;
        (current < *end).then(|| Addr(source.0 + (current.0 - start.0)))
    }

    /// The pieces of `current` that are mapped, as (current range, source range), ascending.
    #[must_use]
    pub fn translate(&self, current: PageRange) -> Vec<(PageRange, PageRange)> {
        let from = self.extents.range(..=current.start()).next_back().map_or(current.start(), |(s, _)| *s);
        self.extents
            .range(from..current.end())
            .filter_map(|(start, (end, source))| {
                let piece = PageRange::new(*start, *end)?.intersection(current)?;
                let moved = piece.moved_to(Addr(source.0 + (piece.start().0 - start.0)))?;
                Some((piece, moved))
            })
            .collect()
    }

    /// Where the pages of `source` are, as (current range, source range), in no particular order.
    #[must_use]
    pub fn locate(&self, source: PageRange) -> Vec<(PageRange, PageRange)> {
        if let Some(piece) = self.identity(source) {
            return alloc::vec![(piece, source)];
        }
        self.extents
            .iter()
            .filter_map(|(start, (end, from))| {
                let held = PageRange::new(*start, *end)?.moved_to(*from)?;
                let piece = held.intersection(source)?;
                let current = piece.moved_to(Addr(start.0 + (piece.start().0 - from.0)))?;
                Some((current, piece))
            })
            .collect()
    }

    /// The whole map, as (current range, source range), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (PageRange, PageRange)> + '_ {
        self.extents.iter().filter_map(|(start, (end, source))| {
            let current = PageRange::new(*start, *end)?;
            Some((current, current.moved_to(*source)?))
        })
    }

    /// The common case of [`Self::locate`] without a walk: nothing moved.
    fn identity(&self, source: PageRange) -> Option<PageRange> {
        let (start, (end, from)) = self.extents.range(..=source.start()).next_back()?;
        (start == from && source.end() <= *end).then_some(source)
    }

    /// Removes `piece`, which lies within one extent.
    fn cut(&mut self, piece: PageRange) {
        let Some((&start, &(end, source))) = self.extents.range(..=piece.start()).next_back() else {
            return;
        };
        self.extents.remove(&start);
        if start < piece.start() {
            self.extents.insert(start, (piece.start(), source));
        }
        if piece.end() < end {
            self.extents.insert(piece.end(), (end, Addr(source.0 + (piece.end().0 - start.0))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;

    fn range(start: u64, pages: u64) -> PageRange {
        PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
    }

    #[test]
    fn a_moved_piece_is_found_at_its_new_place_and_nowhere_else() {
        let mut map = AddressMap::new();
        map.insert(range(10, 10), Addr(10 * PAGE_SIZE));
        for (piece, source) in map.remove(range(12, 3)) {
            map.insert(piece.moved_to(Addr(100 * PAGE_SIZE)).expect("in range"), source.start());
        }
        assert_eq!(map.source_of(Addr(101 * PAGE_SIZE)), Some(Addr(13 * PAGE_SIZE)));
        assert_eq!(map.source_of(Addr(13 * PAGE_SIZE)), None);
        assert_eq!(map.locate(range(12, 3)), [(range(100, 3), range(12, 3))]);
        assert_eq!(map.locate(range(11, 1)), [(range(11, 1), range(11, 1))]);
    }
}
