//! Where the pages of the source are at the destination: the program may `mremap` them at any time.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::{Addr, PageRange};

/// A one-to-one map from current addresses (in the running process) to source addresses (in the stopped
/// one), kept as non-overlapping extents. It starts as the identity over the registered mappings.
///
/// Both directions are indexed: each look-up costs the logarithm of the number of extents and the pieces that
/// it returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressMap {
    by_current: Extents,
    by_source: Extents,
}

/// Start of a range → (its end, start of the range that it stands for).
type Extents = BTreeMap<Addr, (Addr, Addr)>;

impl AddressMap {
    /// The empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self { by_current: BTreeMap::new(), by_source: BTreeMap::new() }
    }

    /// How many extents the map holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_current.len()
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_current.is_empty()
    }

    /// Maps `current` to the same number of pages from `source`. What `current` held before is forgotten, and
    /// so is the place where those pages of `source` were. Does nothing if `source` would leave user space.
    pub fn insert(&mut self, current: PageRange, source: Addr) {
        let Some(source) = current.moved_to(source).filter(|range| !range.is_empty()) else {
            return;
        };
        self.remove(current);
        for (elsewhere, _) in self.locate(source) {
            self.remove(elsewhere);
        }
        let (mut current, mut source) = (current, source);
        if let Some((before, from)) = self.extent_at(Addr(current.start().0.wrapping_sub(1)))
            && (before.end(), from.end()) == (current.start(), source.start())
        {
            self.drop_extent(before, from);
            (current, source) = (joined(before, current), joined(from, source));
        }
        if let Some((behind, from)) = self.extent_at(current.end())
            && (behind.start(), from.start()) == (current.end(), source.end())
        {
            self.drop_extent(behind, from);
            (current, source) = (joined(current, behind), joined(source, from));
        }
        self.put_extent(current, source);
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
        let (extent, source) = self.extent_at(current)?;
        Some(Addr(source.start().0 + (current.0 - extent.start().0)))
    }

    /// The extent that holds the byte at `current`, as (current range, source range).
    #[must_use]
    pub fn extent_at(&self, current: Addr) -> Option<(PageRange, PageRange)> {
        let (start, (end, source)) = self.by_current.range(..=current).next_back()?;
        let extent = PageRange::new(*start, *end).filter(|extent| extent.contains(current))?;
        Some((extent, extent.moved_to(*source)?))
    }

    /// The pieces of `current` that are mapped, as (current range, source range), ascending.
    #[must_use]
    pub fn translate(&self, current: PageRange) -> Vec<(PageRange, PageRange)> {
        pieces(&self.by_current, current).collect()
    }

    /// Where the pages of `source` are, as (current range, source range), ascending by source.
    #[must_use]
    pub fn locate(&self, source: PageRange) -> Vec<(PageRange, PageRange)> {
        pieces(&self.by_source, source).map(|(from, current)| (current, from)).collect()
    }

    /// The whole map, as (current range, source range), ascending.
    pub fn iter(&self) -> impl Iterator<Item = (PageRange, PageRange)> + '_ {
        self.by_current.iter().filter_map(|(start, (end, source))| {
            let current = PageRange::new(*start, *end)?;
            Some((current, current.moved_to(*source)?))
        })
    }

    /// Removes `piece`, which lies within one extent.
    fn cut(&mut self, piece: PageRange) {
        let Some((extent, source)) = self.extent_at(piece.start()) else {
            return;
        };
        self.drop_extent(extent, source);
        let (before, rest) = extent.split_at_pages((piece.start().0 - extent.start().0) >> crate::PAGE_SHIFT);
        let (_, behind) = rest.split_at_pages(piece.pages());
        for part in [before, behind] {
            let from = Addr(source.start().0 + (part.start().0 - extent.start().0));
            if let Some(from) = part.moved_to(from).filter(|from| !from.is_empty()) {
                self.put_extent(part, from);
            }
        }
    }

    fn put_extent(&mut self, current: PageRange, source: PageRange) {
        self.by_current.insert(current.start(), (current.end(), source.start()));
        self.by_source.insert(source.start(), (source.end(), current.start()));
    }

    fn drop_extent(&mut self, current: PageRange, source: PageRange) {
        self.by_current.remove(&current.start());
        self.by_source.remove(&source.start());
    }
}

/// The parts of `range` that `extents` hold, with what they stand for.
fn pieces(extents: &Extents, range: PageRange) -> impl Iterator<Item = (PageRange, PageRange)> + '_ {
    let from = extents.range(..=range.start()).next_back().map_or(range.start(), |(start, _)| *start);
    extents.range(from..range.end().max(from)).filter_map(move |(start, (end, other))| {
        let piece = PageRange::new(*start, *end)?.intersection(range)?;
        Some((piece, piece.moved_to(Addr(other.0 + (piece.start().0 - start.0)))?))
    })
}

/// `first` and `second`, which begins where `first` ends.
fn joined(first: PageRange, second: PageRange) -> PageRange {
    PageRange::new(first.start(), second.end()).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;

    fn range(start: u64, pages: u64) -> PageRange {
        PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
    }

    fn move_pages(map: &mut AddressMap, from: PageRange, to: u64) {
        for (piece, source) in map.remove(from) {
            let to = Addr(to * PAGE_SIZE + (piece.start().0 - from.start().0));
            map.insert(piece.moved_to(to).expect("in range"), source.start());
        }
    }

    #[test]
    fn a_moved_piece_is_found_at_its_new_place_and_nowhere_else() {
        let mut map = AddressMap::new();
        map.insert(range(10, 10), Addr(10 * PAGE_SIZE));
        move_pages(&mut map, range(12, 3), 100);
        assert_eq!(map.source_of(Addr(101 * PAGE_SIZE)), Some(Addr(13 * PAGE_SIZE)));
        assert_eq!(map.source_of(Addr(13 * PAGE_SIZE)), None);
        assert_eq!(map.locate(range(12, 3)), [(range(100, 3), range(12, 3))]);
        assert_eq!(map.locate(range(11, 1)), [(range(11, 1), range(11, 1))]);
    }

    #[test]
    fn a_piece_that_comes_back_leaves_one_extent() {
        let mut map = AddressMap::new();
        map.insert(range(10, 10), Addr(10 * PAGE_SIZE));
        move_pages(&mut map, range(12, 3), 100);
        assert_eq!(map.len(), 3);
        move_pages(&mut map, range(100, 3), 12);
        assert_eq!(map.iter().collect::<Vec<_>>(), [(range(10, 10), range(10, 10))]);
    }
}
