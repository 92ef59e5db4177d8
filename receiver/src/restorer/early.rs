//! Pages that come while the program still runs at the source, put in place.
//!
//! Where it can, the userfaultfd does that: a page that it fills is copied once, and not zeroed before. That takes less than
//! half of what a write through `/proc/PID/mem` takes (3.5 instead of 1.5 GB/s), which does all else: pages that are there
//! already, and small mappings.

use std::fs::File;
use std::os::unix::fs::FileExt;

use memory::{PageRange, PageSet, RangeSet};
use sys::uffd::{CopyOutcome, Uffd};

use super::RestoreError;
use super::mappings::{self, Mappings};

/// Pages of a mapping for which it pays: each costs two calls more, one of them in the stop.
const LEAST_PAGES: u64 = 512;
/// Mappings for which it is done at most.
const MOST_MAPPINGS: usize = 64;

/// What is in place ahead.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Mappings that are registered for as long as pages come ahead: no call fills pages of two.
    registered: Vec<PageRange>,
    /// Pages of these that are there.
    there: PageSet,
}

impl Early {
    /// Registers the large ones of `mappings`, none of which holds anything. Nobody touches them before [`Self::end`]: he
    /// would wait for ever.
    pub(super) fn begin(uffd: &Uffd, mappings: &Mappings) -> Self {
        let mut early = Self::default();
        let large = mappings::largest(mappings).into_iter().filter(|range| range.pages() >= LEAST_PAGES);
        for range in large.take(MOST_MAPPINGS) {
            if uffd.register(range).is_ok() {
                early.registered.push(range);
            }
        }
        early
    }

    /// Puts pages `at` private memory in place.
    ///
    /// # Errors
    /// [`RestoreError::Write`], or what the userfaultfd says.
    pub(super) fn store(
        &mut self,
        uffd: &Uffd,
        memory: &File,
        at: PageRange,
        bytes: &[u8],
    ) -> Result<(), RestoreError> {
        let mut others: RangeSet = [at].into_iter().collect();
        for mapping in self.registered.iter().filter_map(|range| range.intersection(at)) {
            let mut fresh: RangeSet = [mapping].into_iter().collect();
            for there in self.there.runs_in(mapping) {
                fresh.remove(there);
            }
            for run in fresh.runs() {
                others.remove(run);
                fill(uffd, run, part(at, run, bytes))?;
                self.there.insert(run);
            }
        }
        for run in others.runs() {
            let written = memory.write_all_at(part(at, run, bytes), run.start().0);
            written.map_err(|source| RestoreError::Write { range: run, source })?;
        }
        Ok(())
    }

    /// No more pages come ahead: whatever is missing may be touched from here on, and reads as zero.
    ///
    /// # Errors
    /// What the userfaultfd says.
    pub(super) fn end(&self, uffd: &Uffd) -> Result<(), RestoreError> {
        for range in &self.registered {
            uffd.unregister(*range)?;
        }
        Ok(())
    }
}

/// Fills pages that are missing.
fn fill(uffd: &Uffd, at: PageRange, bytes: &[u8]) -> Result<(), RestoreError> {
    let mut rest = at;
    while !rest.is_empty() {
        match uffd.copy(rest, part(at, rest, bytes))? {
            CopyOutcome::Copied(pages) => (_, rest) = rest.split_at_pages(pages),
            CopyOutcome::AlreadyPresent | CopyOutcome::Retry | CopyOutcome::RangeGone => {
                return Err(RestoreError::NoPlaceAhead(rest));
            }
            CopyOutcome::ProcessGone => {
                let source = std::io::Error::from(nix::errno::Errno::ESRCH);
                return Err(RestoreError::Write { range: rest, source });
            }
        }
    }
    Ok(())
}

/// The bytes of `run`, if those of `whole` are `bytes`.
fn part(whole: PageRange, run: PageRange, bytes: &[u8]) -> &[u8] {
    let from = usize::try_from(run.start().0 - whole.start().0).unwrap_or(usize::MAX);
    let len = usize::try_from(run.len()).unwrap_or(usize::MAX);
    bytes.get(from..).and_then(|bytes| bytes.get(..len)).unwrap_or_default()
}
