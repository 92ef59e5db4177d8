//! A map from numbers in ascending order, for the sets of this crate.
//!
//! Not the standard library's B-tree: that is 12 KiB of code for each type of value, and the parasite lives in other
//! people's programs. For the same reason all values are numbers. Two levels of sorted blocks do the same work: a change moves at most one block of entries, and
//! now and then the list of blocks.

use alloc::vec::Vec;

/// Entries of a block; a full one is split in halves.
const BLOCK: usize = 256;

/// A map from `u64` to `u64`.
#[derive(Clone, Debug, Default)]
pub(crate) struct SortedMap {
    /// Blocks in ascending order, none of them empty, each in ascending order of its keys.
    blocks: Vec<Vec<(u64, u64)>>,
}

impl SortedMap {
    /// The empty map.
    pub(crate) const fn new() -> Self {
        Self { blocks: Vec::new() }
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: u64) -> Option<u64> {
        self.at_or_below(key).filter(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// The last entry with a key of at most `key`.
    pub(crate) fn at_or_below(&self, key: u64) -> Option<(u64, u64)> {
        let (block, index) = self.place(key)?;
        self.blocks.get(block)?.get(index).copied()
    }

    /// The first entry with a key of at least `key`.
    pub(crate) fn at_or_above(&self, key: u64) -> Option<(u64, u64)> {
        self.some_at_or_above(key)?.first().copied()
    }

    /// The first entries with a key of at least `key`, in ascending order, as many as lie side by side: at least one.
    pub(crate) fn some_at_or_above(&self, key: u64) -> Option<&[(u64, u64)]> {
        let (block, index) = match self.place(key) {
            Some((block, index)) => {
                let entries = self.blocks.get(block)?;
                let is_exact = entries.get(index).is_some_and(|entry| entry.0 == key);
                let next = if is_exact { index } else { index + 1 };
                if next < entries.len() { (block, next) } else { (block + 1, 0) }
            }
            None => (0, 0),
        };
        self.blocks.get(block)?.get(index..)
    }

    /// Every entry, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.blocks.iter().flatten().copied()
    }

    /// Sets the value of `key`.
    pub(crate) fn insert(&mut self, key: u64, value: u64) {
        let (block, index) = match self.place(key) {
            Some(place) => place,
            None if self.blocks.is_empty() => {
                self.blocks.push(alloc::vec![(key, value)]);
                return;
            }
            // Before everything: `usize::MAX + 1` is index 0.
            None => (0, usize::MAX),
        };
        let Some(entries) = self.blocks.get_mut(block) else { return };
        match entries.get_mut(index) {
            Some(entry) if entry.0 == key => entry.1 = value,
            _ => entries.insert(index.wrapping_add(1), (key, value)),
        }
        if entries.len() >= BLOCK {
            let upper = entries.split_off(BLOCK / 2);
            self.blocks.insert(block + 1, upper);
        }
    }

    /// Removes `key`.
    pub(crate) fn remove(&mut self, key: u64) {
        let Some((block, index)) = self.place(key) else { return };
        let Some(entries) = self.blocks.get_mut(block) else { return };
        if entries.get(index).is_some_and(|entry| entry.0 == key) {
            entries.remove(index);
            if entries.is_empty() {
                self.blocks.remove(block);
            }
        }
    }

    /// Where the last entry with a key of at most `key` is.
    fn place(&self, key: u64) -> Option<(usize, usize)> {
        let starts_by = |entries: &Vec<(u64, u64)>| entries.first().is_some_and(|entry| entry.0 <= key);
        let block = self.blocks.partition_point(starts_by).checked_sub(1)?;
        let index = self.blocks.get(block)?.partition_point(|entry| entry.0 <= key).checked_sub(1)?;
        Some((block, index))
    }
}

impl PartialEq for SortedMap {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SortedMap {}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    /// A sequence of numbers that looks random and is the same in every run.
    fn numbers(seed: u64) -> impl Iterator<Item = u64> {
        let step = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        core::iter::successors(Some(seed), step).map(|state| state >> 33)
    }

    #[test]
    fn it_does_what_the_standard_librarys_map_does() {
        for seed in 0..20 {
            let (mut ours, mut theirs) = (SortedMap::new(), BTreeMap::new());
            // Few keys and many, so that blocks split and vanish.
            let keys = [10, 3000][usize::from(seed % 2 == 0)];
            for number in numbers(seed).take(8000) {
                let (key, action) = (number / 8 % keys, number % 8);
                if action < if seed % 3 == 0 { 3 } else { 5 } {
                    ours.insert(key, number);
                    theirs.insert(key, number);
                } else {
                    ours.remove(key);
                    theirs.remove(&key);
                }
                let expected = |entry: Option<(&u64, &u64)>| entry.map(|(key, value)| (*key, *value));
                assert_eq!(ours.get(key), theirs.get(&key).copied());
                assert_eq!(ours.at_or_below(key), expected(theirs.range(..=key).next_back()));
                assert_eq!(ours.at_or_above(key), expected(theirs.range(key..).next()));
            }
            assert!(ours.iter().eq(theirs.iter().map(|(key, value)| (*key, *value))));
        }
    }

    #[test]
    fn equal_content_is_equal_whatever_its_history() {
        let (mut up, mut down) = (SortedMap::new(), SortedMap::new());
        for key in 0..1000 {
            up.insert(key, key);
            down.insert(999 - key, 999 - key);
        }
        assert_eq!(up, down);
        up.remove(500);
        assert_ne!(up, down);
    }
}
