//! userfaultfd(2): missing pages of one address space, served from outside.
//!
//! A thin typed skin over the crate `userfaultfd`; what that crate lacks (poison, partial zeroing, the probe
//! for changes in flight) is a raw ioctl(2) here. Every request says what came of it as a [`CopyOutcome`]: no
//! caller compares error numbers. Requests act on the address space that made the descriptor, wherever the
//! caller lives.
//!
//! What this module does not do: decide what a page holds, or retry.

mod error;
mod event;
mod log;
mod open;

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use memory::{Addr, PAGE_SIZE, PageRange};

pub use self::error::UffdError;
use self::error::errno_of;
pub use self::event::UffdEvent;
pub use self::log::{EventLog, Note, Record};
pub(crate) use self::open::open_in_this_process;
pub use self::open::{FLAGS, Permission, USERFAULTFD_IOC_NEW, check_permission};
use crate::Errno;
use crate::poll::{Interest, poll};
use crate::raw::{nr, syscall3};

/// A userfaultfd, non-blocking, after its handshake.
#[derive(Debug)]
pub struct Uffd(userfaultfd::Uffd);

/// What came of filling a run of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyOutcome {
    /// The first so many pages are there (at least one) and whoever waited for them runs. If these are not
    /// all, ask again for the rest.
    Copied(u64),
    /// The first page was there already.
    AlreadyPresent,
    /// The program is changing its mappings. Read the events, then ask again.
    Retry,
    /// Some page is not mapped, not registered, or in another mapping than the first. Nothing was done: a
    /// smaller run may work.
    RangeGone,
    /// The address space has ended, by exit or exec.
    ProcessGone,
}

impl Uffd {
    /// Reports every touch of a missing page in `range`, which must be mapped; mappings that cannot be
    /// registered (private file mappings) fail with `EINVAL`.
    ///
    /// # Errors
    /// [`UffdError::Request`].
    pub fn register(&self, range: PageRange) -> Result<(), UffdError> {
        let result = self.0.register(pointer(range.start()), length(range));
        result.map(|_| ()).map_err(|error| UffdError::request("register", range, &error))
    }

    /// Stops reporting in `range`: whoever waits there goes on, and missing pages read as zero from here on.
    ///
    /// # Errors
    /// [`UffdError::Request`]: `EINVAL` when nothing is mapped there, `ENOMEM` also when the address space has
    /// ended.
    pub fn unregister(&self, range: PageRange) -> Result<(), UffdError> {
        let result = self.0.unregister(pointer(range.start()), length(range));
        result.map_err(|error| UffdError::request("unregister", range, &error))
    }

    /// Fills missing pages `at` with `bytes` and wakes whoever waits for them.
    ///
    /// # Errors
    /// [`UffdError::Request`] for what [`CopyOutcome`] does not name, such as lack of memory.
    ///
    /// # Panics
    /// If `bytes` is not as long as `at`.
    pub fn copy(&self, at: PageRange, bytes: &[u8]) -> Result<CopyOutcome, UffdError> {
        assert_eq!(bytes.len(), length(at), "one page of bytes for each page of the range");
        // SAFETY: the source is a slice of exactly this length; the destination lies in the address space of
        // the userfaultfd and only missing pages of registered ranges are filled, which no Rust value of this
        // process inhabits.
        let result = unsafe { self.0.copy(bytes.as_ptr().cast(), pointer(at.start()), bytes.len(), true) };
        match result {
            Ok(done) => Ok(copied(done)),
            // On a change in flight the kernel writes -EAGAIN where the count belongs.
            Err(userfaultfd::Error::PartiallyCopied(done)) if done <= bytes.len() => Ok(copied(done)),
            Err(userfaultfd::Error::PartiallyCopied(_)) => Ok(CopyOutcome::Retry),
            Err(error) => outcome("copy to", at, errno_of(&error)),
        }
    }

    /// Fills missing pages `at` with zeros and wakes whoever waits for them.
    ///
    /// # Errors
    /// [`UffdError::Request`] for what [`CopyOutcome`] does not name.
    pub fn zero(&self, at: PageRange) -> Result<CopyOutcome, UffdError> {
        self.fill("zero", UFFDIO_ZEROPAGE, at)
    }

    /// Lets every touch of the missing pages `at` end in SIGBUS (Linux 6.6) and wakes whoever waits for them.
    ///
    /// # Errors
    /// [`UffdError::Request`] for what [`CopyOutcome`] does not name.
    pub fn poison(&self, at: PageRange) -> Result<CopyOutcome, UffdError> {
        self.fill("poison", UFFDIO_POISON, at)
    }

    /// Wakes whoever waits in `range`; who finds its page still missing is reported again.
    ///
    /// # Errors
    /// [`UffdError::Request`].
    pub fn wake(&self, range: PageRange) -> Result<(), UffdError> {
        let result = self.0.wake(pointer(range.start()), length(range));
        result.map_err(|error| UffdError::request("wake", range, &error))
    }

    /// Wakes whoever waits, wherever it is; who finds its page still missing is reported again.
    ///
    /// # Errors
    /// [`UffdError::Request`].
    pub fn wake_all(&self) -> Result<(), UffdError> {
        const LOWEST: Addr = Addr(1 << 20);
        let everything = PageRange::new(LOWEST, Addr(memory::USER_END - PAGE_SIZE));
        everything.map_or(Ok(()), |everything| self.wake(everything))
    }

    /// Whether the program is in the middle of a change of its mappings: an event waits to be read, or the
    /// thread that caused it has not gone on yet. Such a change ends only after its event has been read.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        // The kernel looks for changes before it looks at the range, and refuses an empty range (EINVAL).
        let mut nothing = FillRequest { start: 0, len: 0, mode: 0, result: 0 };
        self.ioctl(UFFDIO_ZEROPAGE, &mut nothing) == Err(Errno::EAGAIN)
    }

    /// Whether the address space has ended: every process that shared it is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        // Where nothing is registered for write protection, lifting it changes nothing.
        let mut nowhere = FillRequest { start: LOWEST_MAPPED, len: PAGE_SIZE, mode: 0, result: 0 };
        self.ioctl(UFFDIO_WRITEPROTECT, &mut nowhere) == Err(Errno::ESRCH)
    }

    /// Waits until an event can be read; false when `timeout_ms` is over first.
    ///
    /// # Errors
    /// [`UffdError::Read`].
    pub fn wait_readable(&self, timeout_ms: u32) -> Result<bool, UffdError> {
        let mut interest = [Interest::borrowed(self.as_fd(), false)];
        poll(&mut interest, Some(timeout_ms)).map(|ready| ready > 0).map_err(UffdError::Read)
    }

    fn fill(&self, name: &'static str, request: usize, at: PageRange) -> Result<CopyOutcome, UffdError> {
        let mut argument = FillRequest { start: at.start().0, len: at.len(), mode: 0, result: 0 };
        match self.ioctl(request, &mut argument) {
            Ok(()) => Ok(CopyOutcome::Copied(at.pages())),
            Err(Errno::EAGAIN) => match u64::try_from(argument.result) {
                Ok(done) if done > 0 => Ok(CopyOutcome::Copied(done / PAGE_SIZE)),
                _ => Ok(CopyOutcome::Retry),
            },
            Err(errno) => outcome(name, at, errno),
        }
    }

    fn ioctl(&self, request: usize, argument: &mut FillRequest) -> Result<(), Errno> {
        let fd = self.as_raw_fd().cast_unsigned() as usize;
        // SAFETY: each request reads and writes one struct of this layout or a shorter one; pages are filled only where they are
        // missing in registered ranges, which no Rust value of this process inhabits.
        unsafe { syscall3(nr::IOCTL, fd, request, ptr::from_mut(argument).expose_provenance()) }.map(|_| ())
    }
}

/// `struct uffdio_zeropage` and `struct uffdio_poison`: the same four words.
#[repr(C)]
struct FillRequest {
    start: u64,
    len: u64,
    mode: u64,
    result: i64,
}

const _: () = assert!(size_of::<FillRequest>() == 32, "the size is part of the request numbers");

/// `_IOWR(0xaa, 4, struct uffdio_zeropage)`
const UFFDIO_ZEROPAGE: usize = 0xc020_aa04;
/// `_IOWR(0xaa, 6, struct uffdio_writeprotect)`: the first three words.
const UFFDIO_WRITEPROTECT: usize = 0xc018_aa06;
/// `vm.mmap_min_addr` as it is everywhere; the kernel takes no lower range.
const LOWEST_MAPPED: u64 = 0x1_0000;
/// `_IOWR(0xaa, 8, struct uffdio_poison)`
const UFFDIO_POISON: usize = 0xc020_aa08;

fn copied(bytes: usize) -> CopyOutcome {
    CopyOutcome::Copied(bytes as u64 / PAGE_SIZE)
}

fn outcome(request: &'static str, range: PageRange, errno: Errno) -> Result<CopyOutcome, UffdError> {
    match errno {
        Errno::EEXIST => Ok(CopyOutcome::AlreadyPresent),
        Errno::EAGAIN => Ok(CopyOutcome::Retry),
        Errno::ENOENT => Ok(CopyOutcome::RangeGone),
        Errno::ESRCH => Ok(CopyOutcome::ProcessGone),
        errno => Err(UffdError::Request { request, range, errno }),
    }
}

fn pointer(addr: Addr) -> *mut c_void {
    // Never dereferenced here: it is an address in another process.
    ptr::without_provenance_mut(length_of(addr.0))
}

fn length(range: PageRange) -> usize {
    length_of(range.len())
}

fn length_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("usize has 64 bits on x86_64")
}

impl From<OwnedFd> for Uffd {
    /// Takes a descriptor that is a userfaultfd after its handshake; any other fails at its first request.
    fn from(fd: OwnedFd) -> Self {
        // SAFETY: `into_raw_fd` gives up the only ownership.
        Self(unsafe { userfaultfd::Uffd::from_raw_fd(fd.into_raw_fd()) })
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Uffd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
