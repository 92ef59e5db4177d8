//! Random bytes.

use crate::Errno;
use crate::raw::{nr, syscall3};

/// Bytes that getrandom(2) gives whole or not at all.
const MOST: usize = 256;

/// Fills `bytes`, at most 256 of them, with what nobody can guess.
///
/// # Errors
/// Those of getrandom(2); `EINVAL` for more bytes.
pub fn fill(bytes: &mut [u8]) -> Result<(), Errno> {
    if bytes.len() > MOST {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the buffer is valid for writes of its length.
    unsafe { syscall3(nr::GETRANDOM, bytes.as_mut_ptr().expose_provenance(), bytes.len(), 0) }.map(|_| ())
}

/// Sixteen random bytes that nobody can guess.
///
/// # Errors
/// Those of getrandom(2).
pub fn sixteen_bytes() -> Result<[u8; 16], Errno> {
    let mut bytes = [0_u8; 16];
    fill(&mut bytes)?;
    Ok(bytes)
}
