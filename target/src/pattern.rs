//! Memory whose every byte follows from its place and a seed.

use anyhow::{Result, ensure};

/// Words of a page.
pub(crate) const PAGE_WORDS: usize = 512;

/// A block of patterned memory that stays as it is.
#[derive(Debug)]
pub(crate) struct Resident {
    words: Vec<u64>,
    next_page: usize,
}

impl Resident {
    /// Fills so many MiB; none at all is fine.
    pub(crate) fn new(mib: usize) -> Self {
        let words = (0..mib * 256 * PAGE_WORDS).map(|index| word(0, index)).collect();
        Self { words, next_page: 0 }
    }

    /// Verifies the next `pages` pages, from the start again after the end.
    pub(crate) fn verify_some(&mut self, pages: usize) -> Result<()> {
        let total = self.words.len() / PAGE_WORDS;
        for _ in 0..pages.min(total) {
            self.verify_page(self.next_page)?;
            self.next_page = (self.next_page + 1) % total;
        }
        Ok(())
    }

    /// Verifies every page.
    pub(crate) fn verify_all(&self) -> Result<()> {
        (0..self.words.len() / PAGE_WORDS).try_for_each(|page| self.verify_page(page))
    }

    fn verify_page(&self, page: usize) -> Result<()> {
        let first = page * PAGE_WORDS;
        for (index, found) in self.words.iter().enumerate().skip(first).take(PAGE_WORDS) {
            let expected = word(0, index);
            ensure!(*found == expected, "word {index} of resident memory is {found:#x}, not {expected:#x}");
        }
        Ok(())
    }
}

/// Word `index` of the pattern of `seed`.
pub(crate) fn word(seed: u64, index: usize) -> u64 {
    (seed ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Fills the bytes from `from` on; `bytes` begins at offset 0 of the pattern of `seed`.
pub(crate) fn fill_from(seed: u64, from: usize, bytes: &mut [u8]) {
    for (index, chunk) in bytes.chunks_mut(8).enumerate().skip(from / 8) {
        let kept = from.saturating_sub(index * 8);
        let end = chunk.len();
        chunk[kept..].copy_from_slice(&word(seed, index).to_le_bytes()[kept..end]);
    }
}

/// Compares `bytes`, which begins at offset 0 of the pattern of `seed`.
pub(crate) fn verify(seed: u64, bytes: &[u8]) -> Result<()> {
    for (index, chunk) in bytes.chunks(8).enumerate() {
        let expected = &word(seed, index).to_le_bytes()[..chunk.len()];
        ensure!(chunk == expected, "the bytes from {} on are {chunk:02x?}, not {expected:02x?}", index * 8);
    }
    Ok(())
}
