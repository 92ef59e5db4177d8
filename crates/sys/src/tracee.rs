//! Threads that the calling one traces (`ptrace(2)`).

use crate::Errno;
use crate::raw::syscall;

const PTRACE: usize = 101;
const GET_SIGNAL_MASK: usize = 0x420a;
const SET_SIGNAL_MASK: usize = 0x420b;
const MASK_BYTES: usize = size_of::<u64>();

/// The signals that `thread` blocks, bit N - 1 for signal N (`PTRACE_GETSIGMASK`, Linux 3.11).
///
/// # Errors
/// `ESRCH` if the calling thread does not trace it, or it does not stand still.
pub fn signal_mask(thread: u32) -> Result<u64, Errno> {
    let mut mask = 0_u64;
    let at = (&raw mut mask).expose_provenance();
    // SAFETY: the kernel writes the eight bytes of `mask`.
    unsafe { syscall(PTRACE, [GET_SIGNAL_MASK, thread as usize, MASK_BYTES, at, 0, 0]) }?;
    Ok(mask)
}

/// Has `thread` block these signals, as [`signal_mask`] has them (`PTRACE_SETSIGMASK`, Linux 3.11).
///
/// # Errors
/// As for [`signal_mask`].
pub fn set_signal_mask(thread: u32, mask: u64) -> Result<(), Errno> {
    let at = (&raw const mask).expose_provenance();
    // SAFETY: the kernel reads the eight bytes of `mask`.
    unsafe { syscall(PTRACE, [SET_SIGNAL_MASK, thread as usize, MASK_BYTES, at, 0, 0]) }.map(|_| ())
}
