//! Random bytes.

use crate::Errno;
use crate::raw::{nr, syscall3};

/// Sixteen random bytes that nobody can guess.
///
/// # Errors
/// Those of getrandom(2).
pub fn sixteen_bytes() -> Result<[u8; 16], Errno> {
    let mut bytes = [0_u8; 16];
    // SAFETY: the buffer is valid for writes of its length. Up to 256 bytes come whole or not at all.
    unsafe { syscall3(nr::GETRANDOM, bytes.as_mut_ptr().expose_provenance(), bytes.len(), 0) }?;
    Ok(bytes)
}
