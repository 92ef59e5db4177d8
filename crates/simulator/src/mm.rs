//! An address space as the kernel has it, beside what its program has a right to find in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// A page, by number.
pub(crate) type Page = u64;
/// A thread, by index.
pub(crate) type ThreadId = usize;
/// An address space, by index.
pub(crate) type MmId = usize;

/// The content of a page: a number that stands for its bytes. Nobody else ever writes the same one.
pub(crate) type Version = u64;
/// All bytes zero.
pub(crate) const ZERO: Version = 0;
/// A touch gives SIGBUS.
pub(crate) const POISON: Version = u64::MAX;

/// One mapping, up to its `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Area {
    pub(crate) end: Page,
    /// With the userfaultfd, for missing pages.
    pub(crate) registered: bool,
    pub(crate) dont_fork: bool,
    pub(crate) wipe_on_fork: bool,
    /// A private file mapping: every page is there from the start.
    pub(crate) file: bool,
}

/// What the kernel tells the userfaultfd's reader; pages by number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Remap {
        from: Range<Page>,
        to: Page,
    },
    Remove(Range<Page>),
    Unmap(Range<Page>),
    Fork {
        child: MmId,
        /// Ranges that the child does not have.
        kept_back: Vec<Range<Page>>,
        /// Ranges that are zero in the child.
        wiped: Vec<Range<Page>>,
    },
}

/// An address space with its userfaultfd.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mm {
    pub(crate) areas: BTreeMap<Page, Area>,
    /// What is there. A page that is not in here is missing.
    pub(crate) present: BTreeMap<Page, Version>,
    /// What the program must find; zero where nothing is said.
    pub(crate) expected: BTreeMap<Page, Version>,
    /// Pages that a thread is dropping at this moment: another one may find either content.
    pub(crate) racy: BTreeSet<Page>,
    /// `mmap_changing`: calls that have changed mappings and whose events have not been taken note of.
    pub(crate) changing: u32,
    pub(crate) events: VecDeque<(ThreadId, Event)>,
    pub(crate) faults: VecDeque<(ThreadId, Page)>,
    pub(crate) dead: bool,
    /// The reader has been told of the death.
    pub(crate) death_is_known: bool,
    /// The userfaultfd is closed: missing pages are zero.
    pub(crate) closed: bool,
}

impl Mm {
    pub(crate) fn area_at(&self, page: Page) -> Option<(Page, Area)> {
        let (start, area) = self.areas.range(..=page).next_back()?;
        (page < area.end).then_some((*start, *area))
    }

    pub(crate) fn expected_at(&self, page: Page) -> Version {
        self.expected.get(&page).copied().unwrap_or(ZERO)
    }

    pub(crate) fn has_messages(&self) -> bool {
        !self.faults.is_empty() || !self.events.is_empty()
    }

    /// Makes `page` the first of an area, if it lies in one.
    pub(crate) fn split_at(&mut self, page: Page) {
        if let Some((start, area)) = self.area_at(page)
            && start < page
        {
            self.areas.insert(start, Area { end: page, ..area });
            self.areas.insert(page, area);
        }
    }

    /// Takes every mapping out of `range`; page contents stay for the caller to move or drop.
    pub(crate) fn take_areas(&mut self, range: &Range<Page>) -> Vec<(Page, Area)> {
        self.split_at(range.start);
        self.split_at(range.end);
        let taken: Vec<_> = self.areas.range(range.clone()).map(|(start, area)| (*start, *area)).collect();
        for (start, _) in &taken {
            self.areas.remove(start);
        }
        taken
    }

    /// Unmaps `range`. Returns whether part of it was registered, so that an event is due.
    pub(crate) fn unmap(&mut self, range: &Range<Page>) -> bool {
        let taken = self.take_areas(range);
        drain(&mut self.present, range);
        drain(&mut self.expected, range);
        taken.iter().any(|(_, area)| area.registered)
    }

    /// Maps fresh memory, which is not registered.
    pub(crate) fn map(&mut self, range: &Range<Page>) {
        self.areas.insert(range.start, Area { end: range.end, ..Area::default() });
    }

    /// Moves the content of `from` to `to`, with its expectation.
    pub(crate) fn move_pages(&mut self, from: &Range<Page>, to: Page) {
        for pages in [&mut self.present, &mut self.expected] {
            for (page, version) in drain(pages, from) {
                pages.insert(page - from.start + to, version);
            }
        }
    }

    /// Drops the content of `range`.
    pub(crate) fn zap(&mut self, range: &Range<Page>) {
        drain(&mut self.present, range);
        drain(&mut self.expected, range);
        self.racy.retain(|page| !range.contains(page));
    }

    /// Whether nothing is mapped in `range`.
    pub(crate) fn is_free(&self, range: &Range<Page>) -> bool {
        self.area_at(range.start).is_none() && self.areas.range(range.clone()).next().is_none()
    }

    /// What `fork` makes of it for the child.
    pub(crate) fn child(&self) -> Self {
        let mut child = Self {
            areas: self.areas.clone(),
            present: self.present.clone(),
            expected: self.expected.clone(),
            racy: self.racy.clone(),
            ..Self::default()
        };
        for (start, area) in &self.areas {
            let range = *start..area.end;
            if area.dont_fork {
                child.unmap(&range);
            } else if area.wipe_on_fork {
                child.zap(&range);
            }
        }
        child
    }
}

/// Takes every entry of `range` out of `pages`.
fn drain(pages: &mut BTreeMap<Page, Version>, range: &Range<Page>) -> Vec<(Page, Version)> {
    let taken: Vec<_> = pages.range(range.clone()).map(|(page, version)| (*page, *version)).collect();
    for (page, _) in &taken {
        pages.remove(page);
    }
    taken
}
