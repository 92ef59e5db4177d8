//! Descriptors that a parent has left open across `exec` on purpose.

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use crate::Errno;
use crate::raw::{nr, syscall3};

/// Numbers that were claimed already: ownership of a descriptor can be taken once only, in the whole process.
static CLAIMED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Takes ownership of descriptor `number`, which this process was started with, and marks it close-on-exec.
///
/// Call it first thing in `main`, before anything else opens descriptors. The standard streams (0 to 2)
/// cannot be claimed.
///
/// # Errors
/// `EBADF` if it is not open, a standard stream, or claimed before.
pub fn claim(number: u16) -> Result<OwnedFd, Errno> {
    const F_SETFD: usize = 2;
    const FD_CLOEXEC: usize = 1;
    if number < 3 {
        return Err(Errno::EBADF);
    }
    // SAFETY: fcntl with F_SETFD touches no memory; a number that is not open gives EBADF.
    unsafe { syscall3(nr::FCNTL, usize::from(number), F_SETFD, FD_CLOEXEC) }?;
    if !CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
        return Err(Errno::EBADF);
    }
    // SAFETY: the descriptor is open (fcntl said so) and given out once (the set says so); by the rule above
    // nothing else in this process has opened it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::from(number)) })
}
