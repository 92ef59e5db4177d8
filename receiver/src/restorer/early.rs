//! Pages that come while the program still runs at the source, put in place.
//!
//! Where it can, the userfaultfd does that: a page that it fills is copied once, and not zeroed before. That takes less than
//! half of what a write through `/proc/PID/mem` takes (3.5 instead of 1.5 GB/s), which does all else: pages that are there
//! already, and small mappings.

use std::fs::File;
use std::os::unix::fs::FileExt;

use engine::InstallOutcome;
use fault_handler::{Filling, fill, part};
use memory::{PageRange, PageSet, RangeSet};
use sys::uffd::Uffd;

use super::RestoreError;
use super::mappings::{self, Mappings};

/// Pages of a mapping for which it pays: each costs two calls more, one of them in the stop.
const LEAST_PAGES: u64 = 512;
/// Mappings for which it is done at most.
const MOST_MAPPINGS: usize = 64;

/// What is in place ahead.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// Registered for as long as pages come ahead.
    registered: RangeSet,
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
                early.registered.insert(range);
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
        let mut fresh: RangeSet = self.registered.runs_in(at).collect();
        for there in self.there.runs_in(at) {
            fresh.remove(there);
        }
        let mut others: RangeSet = [at].into_iter().collect();
        for run in fresh.runs() {
            others.remove(run);
            for (piece, outcome) in fill(uffd, run, Filling::Bytes(part(bytes, at, run)))? {
                match outcome {
                    InstallOutcome::Installed => _ = self.there.insert(piece),
                    InstallOutcome::AlreadyPresent | InstallOutcome::Retry | InstallOutcome::RangeGone => {
                        return Err(RestoreError::NoPlaceAhead(piece));
                    }
                    InstallOutcome::SpaceGone => {
                        let source = nix::errno::Errno::ESRCH.into();
                        return Err(RestoreError::Write { range: piece, source });
                    }
                }
            }
        }
        for run in others.runs() {
            let written = memory.write_all_at(part(bytes, at, run), run.start().0);
            written.map_err(|source| RestoreError::Write { range: run, source })?;
        }
        Ok(())
    }

    /// No more pages come ahead: whatever is missing may be touched from here on, and reads as zero.
    ///
    /// # Errors
    /// What the userfaultfd says.
    pub(super) fn end(&self, uffd: &Uffd) -> Result<(), RestoreError> {
        for range in self.registered.runs() {
            uffd.unregister(range)?;
        }
        Ok(())
    }
}
