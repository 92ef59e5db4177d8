//! `/proc`: parsers over bytes, readers for the calling process.
//!
//! A parser never panics and never guesses: a line that the kernel would not write is an error.

pub mod fdinfo;
pub mod maps;
pub mod smaps;
pub mod stat;
pub mod status;
pub mod timers;

use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

use protocol::{Piece, Text, put};

use crate::number::split_once;
use crate::{Errno, file};

/// A file of `/proc/self`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcFile {
    /// `maps`
    Maps,
    /// `smaps`
    Smaps,
    /// `stat`
    Stat,
    /// `status`
    Status,
    /// `fdinfo/NUMBER`
    FdInfo,
    /// `timers`
    Timers,
}

impl Piece for ProcFile {
    fn put_into(&self, text: &mut impl Text) {
        text.push_text("/proc/self/");
        text.push_text(match self {
            Self::Maps => "maps",
            Self::Smaps => "smaps",
            Self::Stat => "stat",
            Self::Status => "status",
            Self::FdInfo => "fdinfo",
            Self::Timers => "timers",
        });
    }
}

/// A file under `/proc` that could not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcError {
    /// It could not be read.
    Read {
        /// Which file.
        file: ProcFile,
        /// Why.
        errno: Errno,
    },
    /// It does not look as proc(5) says.
    Malformed {
        /// Which file.
        file: ProcFile,
    },
}

impl Piece for ProcError {
    fn put_into(&self, text: &mut impl Text) {
        match self {
            Self::Read { file, errno } => put!(text, "reading ", file, ": ", errno),
            Self::Malformed { file } => put!(text, file, " does not look as proc(5) says"),
        }
    }
}

impl fmt::Display for ProcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words())
    }
}

impl core::error::Error for ProcError {}

/// Bytes that are read at a time.
const STEP: usize = 64 << 10;
/// Bytes of the longest line; paths have at most 4096, each of which may be escaped by four.
const LONGEST_LINE: usize = 256 << 10;

/// Hands every line of a file, without its newline, to `each`: the whole file may be larger than what the parasite
/// can hold.
fn for_each_line(
    path: &CStr,
    name: ProcFile,
    each: &mut dyn FnMut(&[u8]) -> Result<(), ProcError>,
) -> Result<(), ProcError> {
    let failed = |errno| ProcError::Read { file: name, errno };
    let fd = file::open(path, file::READ_ONLY).map_err(failed)?;
    let mut pending = Vec::with_capacity(2 * STEP);
    loop {
        if pending.capacity() - pending.len() < STEP {
            pending.reserve(STEP);
        }
        let got = file::append(&fd, &mut pending).map_err(failed)?;
        let mut rest = pending.as_slice();
        while let Some((line, tail)) = split_once(rest, b'\n') {
            each(line)?;
            rest = tail;
        }
        if got == 0 {
            return if rest.is_empty() { Ok(()) } else { each(rest) };
        }
        let left = rest.len();
        if left > LONGEST_LINE {
            return Err(ProcError::Malformed { file: name });
        }
        let done = pending.len() - left;
        pending.copy_within(done.., 0);
        pending.truncate(left);
    }
}

fn read(path: &CStr, name: ProcFile, limit: usize) -> Result<Vec<u8>, ProcError> {
    file::read_file(path, limit).map_err(|errno| ProcError::Read { file: name, errno })
}
