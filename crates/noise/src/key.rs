//! The secret that both sides share, and how it is written down.

use core::fmt;

use zeroize::Zeroize;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a key's text: two hexadecimal digits for each byte.
pub const KEY_TEXT_BYTES: usize = 2 * KEY_BYTES;

/// Overwrites bytes that hold a secret, in a way that the compiler does not leave out.
pub fn forget(bytes: &mut [u8]) {
    bytes.zeroize();
}

/// A shared secret; overwritten when it is dropped, never shown.
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// A key of these bytes, which the caller overwrites.
    #[must_use]
    pub const fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(*bytes)
    }

    /// Reads 64 hexadecimal digits, which white space may follow.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii_end();
        if text.len() != KEY_TEXT_BYTES {
            return None;
        }
        let mut key = Self([0; KEY_BYTES]);
        for (byte, pair) in key.0.iter_mut().zip(text.chunks_exact(2)) {
            for digit in pair {
                let value = char::from(*digit).to_digit(16)?;
                *byte = *byte << 4 | u8::try_from(value).ok()?;
            }
        }
        Some(key)
    }

    /// Its bytes, to hand it to a process of one's own.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}
