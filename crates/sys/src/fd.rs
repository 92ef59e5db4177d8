//! An owned descriptor that needs no `std`.

use core::fmt;

use crate::Errno;
use crate::raw::{nr, syscall3};

/// A file descriptor that is closed on drop.
pub struct Fd(i32);

impl Fd {
    /// Takes ownership of `raw`.
    ///
    /// # Safety
    /// `raw` is open and nobody else closes it.
    #[must_use]
    pub const unsafe fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    /// The number, still owned by `self`.
    #[must_use]
    pub const fn raw(&self) -> i32 {
        self.0
    }

    /// The number as a system call argument.
    #[must_use]
    pub const fn arg(&self) -> usize {
        self.0.cast_unsigned() as usize
    }

    /// The number, no longer owned: the caller closes it, or it stays open.
    #[must_use]
    pub const fn into_raw(self) -> i32 {
        let raw = self.0;
        core::mem::forget(self);
        raw
    }

    /// A close-on-exec duplicate with a number of at least `lowest`.
    ///
    /// # Errors
    /// `EINVAL` when `lowest` is beyond `RLIMIT_NOFILE`, `EMFILE` when no number is left.
    pub fn duplicate_from(&self, lowest: u32) -> Result<Self, Errno> {
        const F_DUPFD_CLOEXEC: usize = 1030;
        // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory.
        let raw = unsafe { syscall3(nr::FCNTL, self.arg(), F_DUPFD_CLOEXEC, lowest as usize) }?;
        Self::from_result(raw)
    }

    /// Wraps the result of a system call that returned a new descriptor.
    ///
    /// # Errors
    /// `EBADF` if the number is not a descriptor number at all.
    pub(crate) fn from_result(raw: usize) -> Result<Self, Errno> {
        i32::try_from(raw).map(Self).map_err(|_| Errno::EBADF)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is owned, so nobody else relies on it. An error changes nothing: Linux has
        // released the number in every case.
        let _ = unsafe { syscall3(nr::CLOSE, self.arg(), 0, 0) };
    }
}

impl fmt::Debug for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fd({})", self.0)
    }
}

#[cfg(feature = "std")]
impl From<Fd> for std::os::fd::OwnedFd {
    fn from(fd: Fd) -> Self {
        use std::os::fd::FromRawFd;
        // SAFETY: `into_raw` gives up the only ownership.
        unsafe { Self::from_raw_fd(fd.into_raw()) }
    }
}

#[cfg(feature = "std")]
impl From<std::os::fd::OwnedFd> for Fd {
    fn from(fd: std::os::fd::OwnedFd) -> Self {
        use std::os::fd::IntoRawFd;
        Self(fd.into_raw_fd())
    }
}

/// Takes ownership of a descriptor number that the kernel has just made for the caller: received with
/// `SCM_RIGHTS` or returned by `fcntl(F_DUPFD_CLOEXEC)`.
///
/// # Errors
/// `EBADF` when the number is not open.
#[cfg(feature = "std")]
pub fn received(number: i32) -> Result<std::os::fd::OwnedFd, Errno> {
    const F_GETFD: usize = 1;
    let raw = usize::try_from(number).map_err(|_| Errno::EBADF)?;
    // SAFETY: fcntl with F_GETFD touches no memory; a number that is not open gives EBADF.
    unsafe { syscall3(nr::FCNTL, raw, F_GETFD, 0) }?;
    Ok(Fd(number).into())
}
