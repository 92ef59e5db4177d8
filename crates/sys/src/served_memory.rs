//! Memory of this process whose missing pages somebody serves, for measurements and tests of who does.
//!
//! It is never a Rust value: who reads it reads single bytes, and waits in the kernel where one is missing.

use std::ptr;

use memory::{Addr, PAGE_SIZE, PageRange};

use crate::Errno;
use crate::own_memory::{map_anonymous, unmap};
use crate::uffd::{Uffd, UffdError};

/// Anonymous memory, all of it missing at first and registered with a userfaultfd of its own.
#[derive(Debug)]
pub struct ServedMemory {
    range: PageRange,
    /// There until the memory is unmapped: whoever unmaps what is registered waits for a reader of the event.
    uffd: Option<Uffd>,
}

impl ServedMemory {
    /// Maps and registers so many pages.
    ///
    /// # Errors
    /// Those of [`Uffd::open`] and [`Uffd::register`]; [`UffdError::Read`] with `ENOMEM` without room for the pages.
    pub fn new(pages: u64) -> Result<Self, UffdError> {
        let uffd = Uffd::open()?;
        let len = pages.checked_mul(PAGE_SIZE).and_then(|len| usize::try_from(len).ok());
        let at = map_anonymous(len.unwrap_or(0)).map_err(UffdError::Read)?;
        let range = PageRange::from_pages(Addr(at), pages).ok_or(UffdError::Read(Errno::ENOMEM))?;
        let memory = Self { range, uffd: Some(uffd) };
        memory.uffd().register(range)?;
        Ok(memory)
    }

    /// Where it lies.
    #[must_use]
    pub const fn range(&self) -> PageRange {
        self.range
    }

    /// By which its pages are filled.
    ///
    /// # Panics
    /// Never: it is there for as long as the memory.
    #[must_use]
    pub fn uffd(&self) -> &Uffd {
        self.uffd.as_ref().expect("it is given up when the memory is dropped")
    }

    /// The first byte of page `number`; waits until that page is there.
    ///
    /// # Panics
    /// If there is no such page.
    #[must_use]
    pub fn touch(&self, number: u64) -> u8 {
        assert!(number < self.range.pages(), "page {number} of {}", self.range.pages());
        let at = self.range.start().0 + number * PAGE_SIZE;
        let at = ptr::with_exposed_provenance::<u8>(usize::try_from(at).unwrap_or(0));
        // SAFETY: it lies in the mapping, which lives as long as `self`; no reference into it exists, and what the kernel
        // writes there meanwhile is why the read is volatile.
        unsafe { at.read_volatile() }
    }
}

impl Drop for ServedMemory {
    fn drop(&mut self) {
        self.uffd = None;
        // SAFETY: nobody else knows the mapping.
        let _ = unsafe { unmap(self.range.start().0, usize::try_from(self.range.len()).unwrap_or(0)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uffd::CopyOutcome;

    #[test]
    fn what_was_filled_is_read_and_the_memory_can_go_while_a_part_is_missing() {
        let memory = match ServedMemory::new(4) {
            Ok(memory) => memory,
            Err(UffdError::NotPermitted | UffdError::ForksNotPermitted) => {
                return println!("skipped: userfaultfd is not permitted");
            }
            Err(error) => panic!("{error}"),
        };
        let (two, _) = memory.range().split_at_pages(2);
        let outcome = memory.uffd().copy(two, &[7; 8192]).expect("nobody changes it");
        assert_eq!(outcome, CopyOutcome::Copied(2));
        assert_eq!([memory.touch(0), memory.touch(1)], [7, 7]);
    }
}
