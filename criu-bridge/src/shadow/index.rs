//! Where the pages of a stored epoch are: in which slots of the store's one file of pages.
//!
//! A slot is as large as a page. Slots that neither of the kept epochs has are free; others are never written again. So
//! an epoch costs what has changed in it, and one that is cut short costs nothing that is there.

use std::io;

use super::epoch::{Content, PageSource, Run};
use crate::config::MOST_RUNS;

/// In the place of a slot: zero pages.
const ZERO: u64 = u64::MAX;
/// Slots that there may be.
const MOST_SLOTS: u64 = 1 << 34;

/// Pages that lie in one place, one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    /// The first of them.
    first: u64,
    pages: u64,
    /// Where that is.
    slot: u64,
}

/// The pages of an epoch, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index(Vec<Extent>);

/// Slots for pages that travel, in the order in which they are numbered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slots(Index);

impl Index {
    /// How many pages there are.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.0.last().map_or(0, |last| last.first + last.pages)
    }

    fn push(&mut self, pages: u64, slot: u64) {
        let first = self.pages();
        if let Some(last) = self.0.last_mut()
            && (slot == ZERO && last.slot == ZERO || last.slot != ZERO && slot == last.slot + last.pages)
        {
            last.pages += pages;
        } else {
            self.0.push(Extent { first, pages, slot });
        }
    }

    /// The slot of page `page` and how many pages lie behind each other from there on, `None` for zero pages; nothing
    /// for a page that there is not.
    #[must_use]
    pub fn find(&self, page: u64) -> Option<(Option<u64>, u64)> {
        let behind = self.0.partition_point(|extent| extent.first <= page);
        let extent = self.0.get(behind.checked_sub(1)?)?;
        let within = page - extent.first;
        let left = extent.pages.checked_sub(within).filter(|left| *left > 0)?;
        Some((Some(extent.slot).filter(|slot| *slot != ZERO).map(|slot| slot + within), left))
    }

    /// The index of an epoch that holds `content`, which has been [counted](Content::count), on top of `base`; `None` if
    /// it is in too many pieces.
    #[must_use]
    pub fn build(content: &Content, base: &Self, Slots(values): &Slots) -> Option<Self> {
        let mut index = Self::default();
        let mut value = 0;
        for Run { pages, source } in &content.runs {
            let mut done = 0;
            while done < *pages {
                let left = *pages - done;
                let (slot, alike) = match source {
                    PageSource::Zero => (None, left),
                    PageSource::Value => values.find(value)?,
                    PageSource::Reference(from) => base.find(from + done)?,
                };
                let alike = alike.min(left);
                if *source == PageSource::Value {
                    value += alike;
                }
                index.push(alike, slot.unwrap_or(ZERO));
                done += alike;
                if index.0.len() > MOST_RUNS {
                    return None;
                }
            }
        }
        Some(index)
    }

    /// As it is written.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|extent| [extent.pages, extent.slot]).flat_map(u64::to_le_bytes).collect()
    }

    /// What was written.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "it is no index of pages");
        let (words, []) = bytes.as_chunks::<16>() else { return Err(malformed()) };
        let mut index = Self::default();
        for pair in words {
            let (pages, slot) = pair.split_at(8);
            let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            let (pages, slot) = (word(pages), word(slot));
            let fits = slot == ZERO || slot.checked_add(pages).is_some_and(|end| end <= MOST_SLOTS);
            if pages == 0 || !fits || index.pages().checked_add(pages).is_none() {
                return Err(malformed());
            }
            index.push(pages, slot);
        }
        Ok(index)
    }

    /// The slot behind the last one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.slots().map(|(slot, pages)| slot + pages).max().unwrap_or(0)
    }

    fn slots(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().filter(|extent| extent.slot != ZERO).map(|extent| (extent.slot, extent.pages))
    }
}

impl Slots {
    /// So many that no epoch of `kept` has any of them, wherever they are; `None` if there are not so many.
    #[must_use]
    pub fn free_of(kept: &[Index], count: u64) -> Option<Self> {
        Self::found(kept, count, |gap| gap)
    }

    /// The same, all of them in one place.
    #[must_use]
    pub fn together(kept: &[Index], count: u64) -> Option<Self> {
        Self::found(kept, count, |gap| if gap < count { 0 } else { gap })
    }

    /// Takes of each gap what `usable` says of it, and the rest behind all that is used.
    fn found(kept: &[Index], count: u64, usable: impl Fn(u64) -> u64) -> Option<Self> {
        let mut used: Vec<_> = kept.iter().flat_map(Index::slots).collect();
        used.sort_unstable();
        let mut slots = Index::default();
        let (mut next, mut left) = (0_u64, count);
        for (slot, pages) in used {
            let gap = usable(slot.saturating_sub(next)).min(left);
            if gap > 0 {
                slots.push(gap, next);
                left -= gap;
            }
            next = next.max(slot + pages);
        }
        if left > 0 {
            slots.push(left, next);
        }
        next.checked_add(left).filter(|end| *end <= MOST_SLOTS).map(|_| Self(slots))
    }

    /// The slot of page `number` of those that travel, and how many follow it there.
    #[must_use]
    pub fn find(&self, number: u64) -> Option<(u64, u64)> {
        let (slot, pages) = self.0.find(number)?;
        Some((slot?, pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(runs: &[(u64, PageSource)]) -> Content {
        let mut content = Content::default();
        runs.iter().for_each(|(pages, source)| content.push(*pages, *source));
        content
    }

    #[test]
    fn what_an_epoch_keeps_stays_where_it_is_and_what_is_new_goes_where_nobody_is() {
        let first = content(&[(4, PageSource::Value), (2, PageSource::Zero), (4, PageSource::Value)]);
        let slots = Slots::free_of(&[], 8).expect("room");
        let one = Index::build(&first, &Index::default(), &slots).expect("few pieces");
        assert_eq!(one.pages(), 10);
        assert_eq!((one.find(3), one.find(4)), (Some((Some(3), 1)), Some((None, 2))));
        let second = content(&[
            (2, PageSource::Reference(0)),
            (3, PageSource::Value),
            (1, PageSource::Reference(5)),
            (4, PageSource::Reference(6)),
        ]);
        let slots = Slots::free_of(std::slice::from_ref(&one), 3).expect("room");
        let two = Index::build(&second, &one, &slots).expect("few pieces");
        assert_eq!(two.find(2), Some((Some(8), 3)));
        assert_eq!((two.find(5), two.find(6)), (Some((None, 1)), Some((Some(4), 4))));
        assert_eq!((two.find(10), two.pages()), (None, 10));
        // The first one's pages that the second one has no more are free once only the second is kept.
        let free = Slots::free_of(std::slice::from_ref(&two), 3).expect("room");
        assert_eq!((free.find(0), free.find(2)), (Some((2, 2)), Some((11, 1))));
        let together = Slots::together(std::slice::from_ref(&two), 3).expect("room");
        assert_eq!(together.find(0), Some((11, 3)));
        assert_eq!(Slots::together(std::slice::from_ref(&two), 2).expect("room").find(0), Some((2, 2)));
        assert_eq!(Index::from_bytes(&two.to_bytes()).expect("what was written"), two);
    }

    #[test]
    fn bytes_that_are_no_index_are_refused() {
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        assert!(Index::from_bytes(&words(&[1])).is_err());
        assert!(Index::from_bytes(&words(&[0, 1])).is_err());
        assert!(Index::from_bytes(&words(&[1, u64::MAX - 1])).is_err());
        assert!(Index::from_bytes(&words(&[u64::MAX, ZERO, 2, ZERO])).is_err());
        assert_eq!(Index::from_bytes(&words(&[2, ZERO])).expect("zero pages").find(1), Some((None, 1)));
    }
}
