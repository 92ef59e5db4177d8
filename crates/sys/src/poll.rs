//! poll(2).

use crate::raw::{nr, syscall3};
use crate::{Errno, Fd};

/// One descriptor to wait for; the layout of `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    fd: i32,
    events: i16,
    returned: i16,
}

const READABLE: i16 = 0x1;
const WRITABLE: i16 = 0x4;
const ERROR: i16 = 0x8 | 0x10 | 0x20;

const _: () = assert!(size_of::<Interest>() == 8, "struct pollfd is eight bytes");

impl Interest {
    /// Waits until `fd` can be read, or, with `write`, also until it can be written.
    #[must_use]
    pub const fn new(fd: &Fd, write: bool) -> Self {
        Self { fd: fd.raw(), events: if write { READABLE | WRITABLE } else { READABLE }, returned: 0 }
    }

    /// The same for a descriptor of the standard library.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn borrowed(fd: std::os::fd::BorrowedFd<'_>, write: bool) -> Self {
        use std::os::fd::AsRawFd;
        Self { fd: fd.as_raw_fd(), events: if write { READABLE | WRITABLE } else { READABLE }, returned: 0 }
    }

    /// Waits until `fd` can be written, whatever there is to read.
    #[must_use]
    pub const fn writable(fd: &Fd) -> Self {
        Self { fd: fd.raw(), events: WRITABLE, returned: 0 }
    }

    /// Waits for nothing: keeps a place in the array.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { fd: -1, events: 0, returned: 0 }
    }

    /// Whether reading would not block (an error or a hang-up also shows here).
    #[must_use]
    pub const fn is_readable(&self) -> bool {
        self.returned & (READABLE | ERROR) != 0
    }

    /// Whether writing would not block.
    #[must_use]
    pub const fn is_writable(&self) -> bool {
        self.returned & (WRITABLE | ERROR) != 0
    }
}

/// Waits until one of `interests` is ready or `timeout_ms` is over (`None`: for ever). Returns how many are
/// ready; 0 on a time-out or a signal.
///
/// # Errors
/// Those of poll(2), `EINTR` excepted.
pub fn poll(interests: &mut [Interest], timeout_ms: Option<u32>) -> Result<usize, Errno> {
    let timeout = timeout_ms.map_or(usize::MAX, |ms| ms.min(i32::MAX.cast_unsigned()) as usize);
    // SAFETY: the array is valid for reads and writes of its length in struct pollfd.
    match unsafe { syscall3(nr::POLL, interests.as_mut_ptr().expose_provenance(), interests.len(), timeout) }
    {
        Err(Errno::EINTR) => Ok(0),
        other => other,
    }
}

/// Whether a write of a short line to `fd` would neither block nor raise SIGPIPE; false if it is closed.
#[must_use]
pub fn takes_bytes(fd: &Fd) -> bool {
    let mut interest = [Interest { fd: fd.raw(), events: WRITABLE, returned: 0 }];
    let ready = poll(&mut interest, Some(0));
    ready == Ok(1) && interest.iter().all(|one| one.returned == WRITABLE)
}
