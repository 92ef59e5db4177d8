//! Pages in fewer bytes: LZ4 blocks, made by a small packer of our own and read by `lz4_flex`.
//!
//! A block is a sequence of (literals, match) pairs, as the LZ4 block format has it:
//! <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>. Any LZ4 decoder reads it; the tests hold it against
//! `lz4_flex`, whose own packer would cost the parasite a KiB more.
//!
//! What this crate does not do: frames, checksums, dictionaries, blocks of more than 64 KiB; decide whether it pays.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

extern crate alloc;

mod pack;
#[cfg(feature = "unpack")]
mod unpack;

pub use pack::{MOST_BYTES, Packer};
#[cfg(feature = "unpack")]
pub use unpack::unpack;
