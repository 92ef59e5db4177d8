//! Filling a range of one address space, piece by piece, however much of it the kernel takes at a time.

use engine::InstallOutcome;
use memory::PageRange;
use sys::uffd::{CopyOutcome, Uffd, UffdError};

/// What to put into missing pages.
#[derive(Clone, Copy, Debug)]
pub enum Filling<'bytes> {
    /// These bytes, as many as the range has.
    Bytes(&'bytes [u8]),
    /// Zeros.
    Zero,
    /// SIGBUS on every touch.
    Poison,
}

/// Fills the missing pages `at` and tells of every piece how it ended; neighbours that ended alike come as
/// one. `Retry` and `SpaceGone` end the work and stand for all the rest.
///
/// # Errors
/// [`UffdError::Request`] for what [`InstallOutcome`] does not name, such as lack of memory.
pub fn fill(
    uffd: &Uffd,
    at: PageRange,
    filling: Filling<'_>,
) -> Result<Vec<(PageRange, InstallOutcome)>, UffdError> {
    let mut pieces = Pieces::default();
    // What is left, the nearest last. A range that the kernel refuses because it is not one mapping is
    // halved, so no more than one entry for each bit of its length waits here.
    let mut left = vec![at];
    while let Some(run) = left.pop() {
        let rest = match attempt(uffd, at, run, filling)? {
            CopyOutcome::Copied(pages) => {
                let (done, rest) = run.split_at_pages(pages.max(1));
                pieces.add(done, InstallOutcome::Installed);
                rest
            }
            CopyOutcome::AlreadyPresent => {
                let (present, rest) = run.split_at_pages(1);
                uffd.wake(present)?;
                pieces.add(present, InstallOutcome::AlreadyPresent);
                rest
            }
            CopyOutcome::RangeGone if run.pages() > 1 => {
                let (near, far) = run.split_at_pages(run.pages() / 2);
                left.push(far);
                near
            }
            CopyOutcome::RangeGone => {
                uffd.wake(run)?;
                pieces.add(run, InstallOutcome::RangeGone);
                continue;
            }
            CopyOutcome::Retry => return Ok(pieces.end(run, at, InstallOutcome::Retry)),
            CopyOutcome::ProcessGone => return Ok(pieces.end(run, at, InstallOutcome::SpaceGone)),
        };
        if !rest.is_empty() {
            left.push(rest);
        }
    }
    Ok(pieces.0)
}

fn attempt(
    uffd: &Uffd,
    at: PageRange,
    run: PageRange,
    filling: Filling<'_>,
) -> Result<CopyOutcome, UffdError> {
    match filling {
        Filling::Bytes(bytes) => uffd.copy(run, part(bytes, at, run)),
        Filling::Zero => uffd.zero(run),
        Filling::Poison => uffd.poison(run),
    }
}

/// The bytes of `run` among those of `whole`; empty unless `run` lies within it.
#[must_use]
pub fn part(bytes: &[u8], whole: PageRange, run: PageRange) -> &[u8] {
    let offset = |end: u64| usize::try_from(end.saturating_sub(whole.start().0)).unwrap_or(usize::MAX);
    bytes.get(offset(run.start().0)..offset(run.end().0)).unwrap_or_default()
}

/// Outcomes in ascending order, neighbours that are alike joined.
#[derive(Debug, Default)]
struct Pieces(Vec<(PageRange, InstallOutcome)>);

impl Pieces {
    fn add(&mut self, piece: PageRange, outcome: InstallOutcome) {
        if let Some((last, same)) = self.0.last_mut()
            && *same == outcome
            && last.end() == piece.start()
            && let Some(joined) = PageRange::new(last.start(), piece.end())
        {
            *last = joined;
        } else {
            self.0.push((piece, outcome));
        }
    }

    /// The same outcome for everything from `run` on.
    fn end(
        mut self,
        run: PageRange,
        at: PageRange,
        outcome: InstallOutcome,
    ) -> Vec<(PageRange, InstallOutcome)> {
        if let Some(rest) = PageRange::new(run.start(), at.end()) {
            self.add(rest, outcome);
        }
        self.0
    }
}
