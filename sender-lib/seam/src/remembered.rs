//! A short text in static memory that any thread may read and replace.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Bytes of the longest text, its final zero included.
pub const LONGEST: usize = 512;

/// A zero-terminated text; empty at first.
///
/// Replaced only by the constructor and by the one helper thread; a reader on another thread in that moment may see
/// a mixture of two texts, no more.
#[derive(Debug)]
pub struct Remembered([AtomicU8; LONGEST]);

/// The text does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl Default for Remembered {
    fn default() -> Self {
        Self::new()
    }
}

impl Remembered {
    /// The empty text.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU8::new(0) }; LONGEST])
    }

    /// Replaces the text.
    ///
    /// # Errors
    /// It is too long; the old one stays.
    pub fn set(&self, text: &[u8]) -> Result<(), TooLong> {
        if text.len() >= LONGEST {
            return Err(TooLong);
        }
        let padded = text.iter().copied().chain(core::iter::once(0));
        self.0.iter().zip(padded).for_each(|(slot, byte)| slot.store(byte, Relaxed));
        Ok(())
    }

    /// A copy of the text.
    pub fn copy_to<'a>(&self, copy: &'a mut [u8; LONGEST]) -> &'a CStr {
        for (byte, slot) in copy.iter_mut().zip(&self.0) {
            *byte = slot.load(Relaxed);
        }
        CStr::from_bytes_until_nul(copy).unwrap_or_default()
    }
}
