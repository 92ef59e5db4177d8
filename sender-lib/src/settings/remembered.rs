//! A short text in static memory that any thread may read and replace.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// A text of less than `N` bytes, zero-terminated; empty at first.
///
/// Replaced only by the constructor and by the one helper thread; a reader on another thread in that moment may see
/// a mixture of two paths, no more.
pub(super) struct Text<const N: usize> {
    bytes: [AtomicU8; N],
}

/// The text does not fit.
pub(super) struct TooLong;

impl<const N: usize> Text<N> {
    pub(super) const fn new() -> Self {
        Self { bytes: [const { AtomicU8::new(0) }; N] }
    }

    /// Replaces the text.
    pub(super) fn set(&self, text: &[u8]) -> Result<(), TooLong> {
        if text.len() >= N {
            return Err(TooLong);
        }
        let padded = text.iter().copied().chain(core::iter::once(0));
        self.bytes.iter().zip(padded).for_each(|(slot, byte)| slot.store(byte, Relaxed));
        Ok(())
    }

    /// Hands a copy to `action`.
    pub(super) fn with<T>(&self, action: impl FnOnce(&CStr) -> T) -> T {
        let copy = self.bytes.each_ref().map(|slot| slot.load(Relaxed));
        action(CStr::from_bytes_until_nul(&copy).unwrap_or_default())
    }
}
