//! Addresses and page ranges.

use core::fmt;

use serde::{Deserialize, Serialize};

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a base page on `x86_64`.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// One past the highest byte that user space can map with four-level paging (`TASK_SIZE_MAX`).
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// A virtual address, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Addr(pub u64);

impl Addr {
    /// The page-aligned address at or below this one.
    #[must_use]
    pub const fn page_floor(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// The page-aligned address at or above this one; saturates at the end of the address space.
    #[must_use]
    pub const fn page_ceil(self) -> Self {
        Self(self.0.saturating_add(PAGE_SIZE - 1)).page_floor()
    }

    /// Whether the address is the first byte of a page.
    #[must_use]
    pub const fn is_page_aligned(self) -> bool {
        self.0.is_multiple_of(PAGE_SIZE)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range of whole pages, `[start, end)` in bytes, both page aligned, `start <= end <= USER_END`.
///
/// Built only by checked constructors, so that a range that exists is a range that can be used; decoding
/// from a peer goes through [`PageRange::new`] as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct PageRange {
    start: Addr,
    end: Addr,
}

impl PageRange {
    /// The range `[start, end)`; `None` unless both are page aligned, ordered and within user space.
    #[must_use]
    pub const fn new(start: Addr, end: Addr) -> Option<Self> {
        if start.is_page_aligned() && end.is_page_aligned() && start.0 <= end.0 && end.0 <= USER_END {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// `pages` pages from `start`; `None` as for [`PageRange::new`] or on overflow.
    #[must_use]
    pub const fn from_pages(start: Addr, pages: u64) -> Option<Self> {
        match pages.checked_mul(PAGE_SIZE) {
            Some(len) => match start.0.checked_add(len) {
                Some(end) => Self::new(start, Addr(end)),
                None => None,
            },
            None => None,
        }
    }

    /// The page that holds `addr`; `None` beyond user space.
    #[must_use]
    pub const fn page_of(addr: Addr) -> Option<Self> {
        Self::from_pages(addr.page_floor(), 1)
    }

    /// The smallest range of pages that covers `len` bytes from `addr`; `None` beyond user space.
    #[must_use]
    pub const fn covering(addr: Addr, len: u64) -> Option<Self> {
        match addr.0.checked_add(len) {
            Some(end) => Self::new(addr.page_floor(), Addr(end).page_ceil()),
            None => None,
        }
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> Addr {
        self.start
    }

    /// One past the last byte.
    #[must_use]
    pub const fn end(self) -> Addr {
        self.end
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Length in pages.
    #[must_use]
    pub const fn pages(self) -> u64 {
        self.len() >> PAGE_SHIFT
    }

    /// Whether the range holds no page.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether the byte at `addr` lies in the range.
    #[must_use]
    pub const fn contains(self, addr: Addr) -> bool {
        self.start.0 <= addr.0 && addr.0 < self.end.0
    }

    /// Whether every page of `other` lies in this range.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// The pages that both ranges hold, if any.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    /// The first `pages` pages and what is left behind them.
    #[must_use]
    pub fn split_at_pages(self, pages: u64) -> (Self, Self) {
        let middle = Addr(self.start.0.saturating_add(pages.saturating_mul(PAGE_SIZE)).min(self.end.0));
        (Self { start: self.start, end: middle }, Self { start: middle, end: self.end })
    }

    /// The same length, at `start`; `None` as for [`PageRange::new`].
    #[must_use]
    pub const fn moved_to(self, start: Addr) -> Option<Self> {
        Self::from_pages(start, self.pages())
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start.0, self.end.0)
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A pair of numbers that is not a range of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAPageRange(pub u64, pub u64);

impl fmt::Display for NotAPageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x} is not a range of whole user pages", self.0, self.1)
    }
}

impl TryFrom<(u64, u64)> for PageRange {
    type Error = NotAPageRange;

    fn try_from((start, end): (u64, u64)) -> Result<Self, NotAPageRange> {
        Self::new(Addr(start), Addr(end)).ok_or(NotAPageRange(start, end))
    }
}

impl From<PageRange> for (u64, u64) {
    fn from(range: PageRange) -> Self {
        (range.start.0, range.end.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_made_of_whole_user_pages_only() {
        assert!(PageRange::new(Addr(0x1000), Addr(0x3000)).is_some());
        assert!(PageRange::new(Addr(0x1001), Addr(0x3000)).is_none());
        assert!(PageRange::new(Addr(0x3000), Addr(0x1000)).is_none());
        assert!(PageRange::new(Addr(0x1000), Addr(USER_END + PAGE_SIZE)).is_none());
        assert!(PageRange::from_pages(Addr(0x1000), u64::MAX).is_none());
    }

    #[test]
    fn covering_rounds_outwards() {
        let range = PageRange::covering(Addr(0x1fff), 2).expect("within user space");
        assert_eq!((range.start(), range.end()), (Addr(0x1000), Addr(0x3000)));
    }
}
