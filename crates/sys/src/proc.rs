//! `/proc`: parsers over bytes, readers for the calling process.
//!
//! A parser never panics and never guesses: a line that the kernel would not write is an error.

pub mod fdinfo;
pub mod maps;
pub mod smaps;
pub mod stat;
pub mod status;

use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

use crate::{Errno, file};

/// A file under `/proc` that could not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcError {
    /// It could not be read.
    Read {
        /// Which file.
        file: &'static str,
        /// Why.
        errno: Errno,
    },
    /// It does not look as proc(5) says.
    Malformed {
        /// Which file.
        file: &'static str,
    },
}

impl fmt::Display for ProcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { file, errno } => write!(f, "reading {file}: {errno}"),
            Self::Malformed { file } => write!(f, "{file} does not look as proc(5) says"),
        }
    }
}

impl core::error::Error for ProcError {}

fn read(path: &CStr, name: &'static str, limit: usize) -> Result<Vec<u8>, ProcError> {
    file::read_file(path, limit).map_err(|errno| ProcError::Read { file: name, errno })
}
