//! Memory whose every byte follows from its place and a seed.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::random::mix;

/// Words of a page.
pub(crate) const PAGE_WORDS: usize = 512;

/// Words that are alike: sixteen pages, because a block of memory need not begin where a page does.
const RUN_WORDS: usize = 16 * PAGE_WORDS;

/// What memory looks like to somebody who wants to send it in fewer bytes.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// No shorter than it is
    Random,
    /// A quarter zeros, a quarter words of a language, half random
    Half,
    /// A quarter zeros, a quarter words of a language, half pointers and small numbers
    Heap,
}

impl Content {
    /// Word `index` of the memory.
    fn word(self, index: usize) -> u64 {
        match (self, index / RUN_WORDS % 4) {
            (Self::Half | Self::Heap, 0) => 0,
            (Self::Half | Self::Heap, 1) => text_word(index),
            (Self::Heap, _) => heap_word(index),
            (Self::Random | Self::Half, _) => word(0, index),
        }
    }
}

/// Eight letters out of a small vocabulary.
fn text_word(index: usize) -> u64 {
    const VOCABULARY: [&[u8; 8]; 16] = [
        b"process ",
        b"memory, ",
        b"goes on ",
        b"and the ",
        b"machine ",
        b"is where",
        b" it was ",
        b"before; ",
        b"nothing ",
        b"of what ",
        b"follows ",
        b"at once ",
        b"belongs ",
        b"to them ",
        b"so that ",
        b"we read ",
    ];
    u64::from_le_bytes(*VOCABULARY[crate::random::index(mix(index as u64), VOCABULARY.len())])
}

/// What an allocator and a program leave in a heap: sizes, pointers near to each other, counters, a few real numbers.
fn heap_word(index: usize) -> u64 {
    const HEAP: u64 = 0x5555_5600_0000;
    let random = mix(index as u64);
    match index % 8 {
        0 => 0x41,
        1 | 2 => HEAP | (random & 0x00ff_fff0),
        3 | 7 => random & 0xff,
        5 => random,
        _ => 0,
    }
}

/// A block of patterned memory that stays as it is.
#[derive(Debug)]
pub(crate) struct Resident {
    content: Content,
    words: Vec<u64>,
    next_page: usize,
}

impl Resident {
    /// Fills so many MiB; none at all is fine.
    pub(crate) fn new(mib: usize, content: Content) -> Self {
        let words = (0..mib * 256 * PAGE_WORDS).map(|index| content.word(index)).collect();
        Self { content, words, next_page: 0 }
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
            let expected = self.content.word(index);
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
