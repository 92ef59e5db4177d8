//! Paths for the kernel: bytes that end with a zero. The standard library's `CString` would bring a search for zeros
//! that is larger than this file.

use alloc::vec::Vec;
use core::ffi::CStr;

use crate::Errno;

/// A path that ends with a zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelPath(Vec<u8>);

impl KernelPath {
    /// The path `bytes`.
    ///
    /// # Errors
    /// `ENOENT` for a path with a zero in it: there is no such file.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        if bytes.contains(&0) {
            return Err(Errno::ENOENT);
        }
        let mut path = Vec::with_capacity(bytes.len() + 1);
        path.extend_from_slice(bytes);
        path.push(0);
        Ok(Self(path))
    }

    /// The path of something that `/proc` has under a number.
    #[must_use]
    pub fn numbered(before: &str, number: u32, behind: &str) -> Self {
        let mut path = Vec::with_capacity(64);
        path.extend_from_slice(before.as_bytes());
        let mut scale = 1_000_000_000;
        while scale > 1 && number < scale {
            scale /= 10;
        }
        while scale > 0 {
            // A remainder of ten is a digit.
            path.push(b'0' + u8::try_from(number / scale % 10).unwrap_or(0));
            scale /= 10;
        }
        path.extend_from_slice(behind.as_bytes());
        path.push(0);
        Self(path)
    }

    /// The path without the zero at its end.
    #[must_use]
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.0.pop();
        self.0
    }

    /// The path as the kernel takes it.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for (number, text) in
            [(0, c"/a0/b"), (7, c"/a7/b"), (10, c"/a10/b"), (4_000_000_009, c"/a4000000009/b")]
        {
            assert_eq!(KernelPath::numbered("/a", number, "/b").as_c_str(), text);
        }
    }

    #[test]
    fn a_path_with_a_zero_leads_nowhere() {
        assert_eq!(KernelPath::new(b"/a\0b"), Err(Errno::ENOENT));
        assert_eq!(KernelPath::new(b"/a b").map(|path| path.as_c_str().to_owned()), Ok(c"/a b".to_owned()));
    }
}
