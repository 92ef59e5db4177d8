//! Code that is carried compressed and unpacked where it is to run: a linked shared object without imports, reduced to
//! its memory image.
//!
//! ```text
//! packed image:  six numbers of 32 bits (see [`Packed`])  ·  LZMA stream
//! the stream:    the image, addresses in its code filtered (branches.rs), a list of relocations behind it (relocations.rs)
//! ```
//! Unpacking needs no standard library, no heap and two kilobytes of code: it is what the parasite does in other people's
//! programs. Packing, behind the feature `pack`, is part of building the parasite. This crate writes no memory but the
//! slice that it is given; who maps and protects that is none of its business.
#![cfg_attr(not(feature = "pack"), no_std)]
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

mod branches;
mod lzma;
#[cfg(feature = "pack")]
mod pack;
mod relocations;
#[cfg(test)]
mod tests;

use core::ops::Range;

#[cfg(feature = "pack")]
pub use pack::{NotPackable, pack};

/// Bytes of a page of memory.
const PAGE_BYTES: usize = 4096;
const NUMBERS: usize = 6;
const HEAD_BYTES: usize = NUMBERS * 4;

/// A packed image. All offsets are from the image's start in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packed<'a> {
    /// Bytes of memory that it takes; whole pages.
    pub len: usize,
    /// What is to be executable; whole pages.
    pub code: Range<usize>,
    /// From here to the end, it is to be writable; a whole page. What is in front and no code is to be read only.
    pub variables: usize,
    /// Where the code is entered.
    pub entry: usize,
    /// Where the list of relocations begins.
    relocations: usize,
    stream: &'a [u8],
}

/// These bytes are no packed image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damaged;

impl<'a> Packed<'a> {
    /// Looks at the numbers in front.
    ///
    /// # Errors
    /// They are not there or cannot be right.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let (head, stream) = bytes.split_at_checked(HEAD_BYTES).ok_or(Damaged)?;
        let mut numbers = [0; NUMBERS];
        for (number, bytes) in numbers.iter_mut().zip(head.chunks_exact(4)) {
            *number = bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        }
        let [len, start, end, variables, entry, relocations] = numbers;
        let are_pages = (len | start | end | variables).is_multiple_of(PAGE_BYTES);
        let are_in_order = start <= entry && entry < end && end <= variables && variables <= relocations;
        if !are_pages || !are_in_order || relocations >= len {
            return Err(Damaged);
        }
        Ok(Self { len, code: start..end, variables, entry, relocations, stream })
    }

    /// Makes the image in `memory`, for running at address `base`.
    ///
    /// # Errors
    /// The memory is too small, or the stream is damaged: the memory is as good as lost then.
    pub fn unpack(&self, memory: &mut [u8], base: u64) -> Result<(), Damaged> {
        let memory = memory.get_mut(..self.len).ok_or(Damaged)?;
        lzma::decode(self.stream, memory)?;
        let code = memory.get_mut(self.code.clone()).ok_or(Damaged)?;
        branches::restore(code, self.code.start, self.len);
        relocations::apply(memory, self.relocations, base)
    }
}
