//! Making a userfaultfd, and saying why it cannot be had.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use super::{Uffd, UffdError};
use crate::raw::{nr, syscall3};
use crate::{Errno, Fd};

const EVENT_FORK: u64 = 1 << 1;
const EVENT_REMAP: u64 = 1 << 2;
const EVENT_REMOVE: u64 = 1 << 3;
const EVENT_UNMAP: u64 = 1 << 6;
const THREAD_ID: u64 = 1 << 8;

/// `UFFD_FEATURE_*` bits without which post-copy corrupts programs: a fork, remap, remove or unmap that goes
/// unseen turns pages that still travel into zeros, or brings pages back that were dropped.
const REQUIRED_FEATURES: u64 = EVENT_FORK | EVENT_REMAP | EVENT_REMOVE | EVENT_UNMAP | THREAD_ID | POISON;

const POISON: u64 = 1 << 14;
const UFFD_API: u64 = 0xaa;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`
const UFFDIO_API: usize = 0xc018_aa3f;
/// `_IO(0xaa, 0)`: what userfaultfd(2) does, for whoever may open the device.
pub const USERFAULTFD_IOC_NEW: u32 = 0xaa00;

/// `O_CLOEXEC | O_NONBLOCK`: poll(2) on a blocking userfaultfd always reports an error.
pub const FLAGS: u32 = 0o2_000_000 | 0o4000;

/// How far this process may serve another one's faults, those of system calls included.
#[derive(Debug)]
pub enum Permission {
    /// Whatever it does.
    Full,
    /// Unless it forks: its memory must be there before it may. Where the system call is not permitted, userfaultfds
    /// are made by this open device.
    WithoutForks(Option<File>),
}

impl Permission {
    /// Asks the kernel.
    ///
    /// # Errors
    /// [`UffdError`] with what would help.
    pub fn ask() -> Result<Self, UffdError> {
        match check_permission() {
            Ok(()) => Ok(Self::Full),
            Err(UffdError::ForksNotPermitted) => Ok(Self::WithoutForks(device().ok())),
            Err(error) => Err(error),
        }
    }

    /// The features to ask for.
    #[must_use]
    pub const fn features(&self) -> u64 {
        match self {
            Self::Full => REQUIRED_FEATURES,
            Self::WithoutForks(_) => REQUIRED_FEATURES & !EVENT_FORK,
        }
    }
}

/// Asks the kernel whether this process may serve another one's faults, those of system calls and forks included.
///
/// # Errors
/// [`UffdError`] with what would help.
pub fn check_permission() -> Result<(), UffdError> {
    Uffd::open().map(|_| ())
}

impl Uffd {
    /// Makes a userfaultfd for the calling process, with what [`Permission::Full`] asks for: by the system call, else by
    /// `/dev/userfaultfd`.
    ///
    /// # Errors
    /// [`UffdError::NotPermitted`], [`UffdError::ForksNotPermitted`], [`UffdError::MissingFeatures`].
    pub fn open() -> Result<Self, UffdError> {
        let fd = by_system_call().or_else(|errno| by_device().map_err(|_| errno)).map_err(not_opened)?;
        handshake(&fd, REQUIRED_FEATURES).map_err(|errno| match errno {
            Errno::EPERM => UffdError::ForksNotPermitted,
            _ => UffdError::MissingFeatures { missing: REQUIRED_FEATURES & !offered(&fd) },
        })?;
        Ok(Self::from(OwnedFd::from(fd)))
    }
}

/// [`Uffd::open`] without allocating, for a child between fork and exec.
pub(crate) fn open_in_this_process() -> Result<Fd, Errno> {
    let fd = by_system_call()?;
    handshake(&fd, REQUIRED_FEATURES)?;
    Ok(fd)
}

fn by_system_call() -> Result<Fd, Errno> {
    // SAFETY: plain numbers.
    let raw = unsafe { syscall3(nr::USERFAULTFD, FLAGS as usize, 0, 0) }?;
    Fd::from_result(raw)
}

fn by_device() -> Result<Fd, Errno> {
    let device = device()?;
    let number = device.as_raw_fd().cast_unsigned() as usize;
    // SAFETY: the request takes its flags as a plain number.
    let raw = unsafe { syscall3(nr::IOCTL, number, USERFAULTFD_IOC_NEW as usize, FLAGS as usize) }?;
    Fd::from_result(raw)
}

fn device() -> Result<File, Errno> {
    let opened = OpenOptions::new().read(true).open("/dev/userfaultfd");
    opened.map_err(|error| Errno(error.raw_os_error().unwrap_or(0)))
}

const fn not_opened(errno: Errno) -> UffdError {
    match errno {
        Errno::ENOSYS => UffdError::MissingFeatures { missing: REQUIRED_FEATURES },
        Errno::EPERM | Errno::EACCES => UffdError::NotPermitted,
        errno => UffdError::Read(errno),
    }
}

/// What the kernel has; a refused handshake may be repeated on the same descriptor.
fn offered(fd: &Fd) -> u64 {
    handshake(fd, 0).unwrap_or(0)
}

/// Asks for `features` and returns all that the kernel has.
fn handshake(fd: &Fd, features: u64) -> Result<u64, Errno> {
    let mut api = [UFFD_API, features, 0];
    // SAFETY: `api` is a struct uffdio_api, three words, which the kernel reads and writes.
    unsafe { syscall3(nr::IOCTL, fd.arg(), UFFDIO_API, ptr::from_mut(&mut api).expose_provenance()) }?;
    let [_, offered, _] = api;
    Ok(offered)
}
