//! What can go wrong with a userfaultfd, in words for the user.

use memory::PageRange;

use crate::Errno;

/// A request that a userfaultfd did not carry out.
#[derive(Debug, thiserror::Error)]
pub enum UffdError {
    /// This user may not serve faults of system calls.
    #[error(
        "userfaultfd is not permitted: run as root, grant CAP_SYS_PTRACE, or give this user /dev/userfaultfd"
    )]
    NotPermitted,
    /// This user may serve faults but not those of a program that forks.
    #[error("following forks by userfaultfd is not permitted: run as root or grant CAP_SYS_PTRACE")]
    ForksNotPermitted,
    /// The kernel is too old, or built without what is needed.
    #[error("this kernel's userfaultfd lacks features {missing:#x}: 6.6 or newer is needed")]
    MissingFeatures {
        /// The `UFFD_FEATURE_*` bits that are not there; all that are required if the system call is missing.
        missing: u64,
    },
    /// An ioctl(2) on a range failed.
    #[error("userfaultfd: {request} {range}: {errno}")]
    Request {
        /// Which request.
        request: &'static str,
        /// On which pages.
        range: PageRange,
        /// Why.
        errno: Errno,
    },
    /// Reading events failed; `EMFILE` means that a child was forked for whom there is no descriptor left.
    #[error("reading userfaultfd events: {0}")]
    Read(Errno),
    /// An event that this code does not know, or that names no range of pages.
    #[error("userfaultfd event {0} makes no sense")]
    UnknownEvent(String),
}

impl UffdError {
    /// Whether this machine has no memory for a page at the moment: the same may work later.
    #[must_use]
    pub const fn is_shortage(&self) -> bool {
        matches!(self, Self::Request { errno: Errno::ENOMEM, .. })
    }

    pub(super) fn request(request: &'static str, range: PageRange, error: &userfaultfd::Error) -> Self {
        Self::Request { request, range, errno: errno_of(error) }
    }
}

/// The error number in an error of the crate; 0 if the kernel gave none.
pub(super) fn errno_of(error: &userfaultfd::Error) -> Errno {
    match error {
        userfaultfd::Error::CopyFailed(errno)
        | userfaultfd::Error::SystemError(errno)
        | userfaultfd::Error::ZeropageFailed(errno) => Errno(*errno as i32),
        userfaultfd::Error::OpenDevUserfaultfd(error) => Errno(error.raw_os_error().unwrap_or(0)),
        userfaultfd::Error::PartiallyCopied(_) => Errno::EAGAIN,
        userfaultfd::Error::IncompleteMsg { .. }
        | userfaultfd::Error::ReadEof
        | userfaultfd::Error::UnrecognizedEvent(_)
        | userfaultfd::Error::UnsupportedIoctls(_) => Errno(0),
    }
}
