//! Error numbers as the kernel returns them.

use core::fmt;

use protocol::{Piece, Text, put};

/// An error number. Callers outside this crate do not compare numbers: functions here return enums that
/// say what to do; `Errno` is for the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Self = Self($number);)*

            /// The usual English sentence, without the number.
            ///
            /// Looked up in one string: a table of pointers would cost the parasite two relocations a line.
            #[must_use]
            pub fn text(self) -> &'static str {
                const NUMBERS: &[i32] = &[$($number),*];
                const TEXTS: &str = concat!($($text, "\n"),*);
                let at = NUMBERS.iter().position(|number| *number == self.0);
                at.map_or("unknown error", |at| crate::number::nth_line(TEXTS, at))
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    ESRCH = 3, "no such process";
    EINTR = 4, "interrupted system call";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or address";
    EBADF = 9, "bad file descriptor";
    ECHILD = 10, "no child processes";
    EAGAIN = 11, "resource temporarily unavailable";
    ENOMEM = 12, "cannot allocate memory";
    EACCES = 13, "permission denied";
    EFAULT = 14, "bad address";
    EBUSY = 16, "device or resource busy";
    EEXIST = 17, "file exists";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files in system";
    EMFILE = 24, "too many open files";
    ENOTTY = 25, "inappropriate ioctl";
    ENOSPC = 28, "no space left on device";
    ESPIPE = 29, "illegal seek";
    EPIPE = 32, "broken pipe";
    ERANGE = 34, "result too large";
    ENOSYS = 38, "not implemented by this kernel";
    ELOOP = 40, "too many symbolic links";
    ENOMSG = 42, "no such message";
    ENODATA = 61, "no data available";
    EOVERFLOW = 75, "value too large";
    ENOTSOCK = 88, "not a socket";
    EOPNOTSUPP = 95, "operation not supported";
    EADDRINUSE = 98, "address already in use";
    EADDRNOTAVAIL = 99, "address not available";
    ENETUNREACH = 101, "network unreachable";
    ECONNRESET = 104, "connection reset by peer";
    ENOTCONN = 107, "not connected";
    ETIMEDOUT = 110, "timed out";
    ECONNREFUSED = 111, "connection refused";
    EHOSTUNREACH = 113, "no route to host";
    EINPROGRESS = 115, "operation in progress";
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Piece for Errno {
    fn put_into(&self, text: &mut impl Text) {
        put!(text, self.text(), " (errno ", self.0.unsigned_abs(), ")");
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words())
    }
}

impl core::error::Error for Errno {}

#[cfg(feature = "std")]
impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.0)
    }
}
