//! Descriptors of the calling process by number: what they are, without owning or changing them.
//!
//! A number may be closed by the program at any moment; every function then says `EBADF` and does no harm.

pub mod pair;
pub mod pipe;
pub mod socket;
pub mod tcp;
pub mod terminal;

use alloc::vec::Vec;

use crate::path::KernelPath;
use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd, file, thread};

/// `O_ACCMODE`
pub const ACCESS_MODE: u32 = 0o3;
/// `O_WRONLY`
pub const WRITE_ONLY: u32 = 0o1;
/// `O_RDWR`
pub const READ_WRITE: u32 = 0o2;
/// `O_DIRECT`; on a pipe: packet mode.
pub const DIRECT: u32 = 0o40_000;
/// `O_PATH`
pub const PATH_ONLY: u32 = 0o10_000_000;

/// The numbers that are open, ascending.
///
/// # Errors
/// Those of open(2) and getdents64(2).
pub fn numbers() -> Result<Vec<u32>, Errno> {
    let mut numbers = file::numeric_entries(c"/proc/thread-self/fd")?;
    // The directory itself was in the list and is closed by now.
    numbers.retain(|number| close_on_exec(*number).is_ok());
    Ok(numbers)
}

/// Where `/proc/self/fd/NUMBER` points to: a path, `pipe:[…]`, `socket:[…]`, `anon_inode:…`.
///
/// # Errors
/// `ENOENT` when the number is closed.
pub fn link(fd: u32) -> Result<Vec<u8>, Errno> {
    file::read_link(path_of(fd).as_c_str())
}

/// Where the symbolic link leads to that `fd` is open on (`O_PATH`).
///
/// # Errors
/// `ENOENT` when it is open on anything else; those of readlinkat(2).
pub fn target(fd: u32) -> Result<Vec<u8>, Errno> {
    file::read_link_at(fd as usize, c"")
}

/// Gives up every lock on the file that `fd` is open on: the process's own, the description's, and that of flock(2).
pub fn unlock(fd: u32) {
    const LOCK_UN: usize = 8;
    const F_SETLK: usize = 6;
    const F_OFD_SETLK: usize = 37;
    const F_UNLCK: u64 = 2;
    // struct flock: type and whence, start, length (0: to the end), process.
    let whole = [F_UNLCK, 0, 0, 0];
    let pointer = whole.as_ptr().expose_provenance();
    // What is not locked in one of these ways is unlocked without effect.
    // SAFETY: plain numbers.
    let _ = unsafe { syscall3(nr::FLOCK, fd as usize, LOCK_UN, 0) };
    for command in [F_SETLK, F_OFD_SETLK] {
        // SAFETY: the kernel reads one struct flock of 32 bytes.
        let _ = unsafe { syscall3(nr::FCNTL, fd as usize, command, pointer) };
    }
}

/// The text of `/proc/self/fdinfo/NUMBER`.
///
/// # Errors
/// `ENOENT` when the number is closed.
pub fn info(fd: u32) -> Result<Vec<u8>, Errno> {
    const LIMIT: usize = 4 << 20;
    file::read_file(KernelPath::numbered("/proc/thread-self/fdinfo/", fd, "").as_c_str(), LIMIT)
}

fn path_of(fd: u32) -> KernelPath {
    KernelPath::numbered("/proc/thread-self/fd/", fd, "")
}

/// A close-on-exec duplicate of `fd` with a number of at least `lowest`, or with any if the limit forbids that.
///
/// # Errors
/// Those of fcntl(2).
pub fn duplicate(fd: u32, lowest: u32) -> Result<Fd, Errno> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    let attempt = |lowest: u32| {
        // SAFETY: fcntl with F_DUPFD_CLOEXEC touches no memory.
        unsafe { syscall3(nr::FCNTL, fd as usize, F_DUPFD_CLOEXEC, lowest as usize) }
    };
    attempt(lowest).or_else(|_| attempt(0)).and_then(Fd::from_result)
}

/// Whether `FD_CLOEXEC` is set.
///
/// # Errors
/// `EBADF`
pub fn close_on_exec(fd: u32) -> Result<bool, Errno> {
    const F_GETFD: usize = 1;
    fcntl(fd, F_GETFD, 0).map(|flags| flags & 1 != 0)
}

/// `F_GETFL`: access mode and status flags.
///
/// # Errors
/// `EBADF`
pub fn status_flags(fd: u32) -> Result<u32, Errno> {
    const F_GETFL: usize = 3;
    fcntl(fd, F_GETFL, 0)
}

/// `F_GETSEALS` of a memfd.
///
/// # Errors
/// `EINVAL` for any other file.
pub fn seals(fd: u32) -> Result<u32, Errno> {
    const F_GET_SEALS: usize = 1034;
    fcntl(fd, F_GET_SEALS, 0)
}

/// Whether two numbers share an open file description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sameness {
    /// They do: one offset, one set of status flags.
    Same,
    /// They do not.
    Different,
    /// This kernel does not tell (neither kcmp(2) nor `F_DUPFD_QUERY`).
    Unknown,
}

/// Whether `one` and `other` share an open file description.
#[must_use]
pub fn sameness(one: u32, other: u32) -> Sameness {
    const KCMP_FILE: usize = 0;
    const F_DUPFD_QUERY: usize = 1027;
    let pid = thread::process_id() as usize;
    // SAFETY: plain numbers; nothing is changed.
    match unsafe { syscall(nr::KCMP, [pid, pid, KCMP_FILE, one as usize, other as usize, 0]) } {
        Ok(0) => return Sameness::Same,
        Ok(_) => return Sameness::Different,
        Err(_) => {}
    }
    match fcntl(one, F_DUPFD_QUERY, other as usize) {
        Ok(1) => Sameness::Same,
        Ok(0) => Sameness::Different,
        Ok(_) | Err(_) => Sameness::Unknown,
    }
}

/// `timerfd_gettime(2)`, so that `fdinfo` counts what has gone off since the timer was last looked at. Does nothing to
/// anything else.
pub fn ask_timer(fd: u32) {
    let mut times = [0_u64; 4];
    // SAFETY: the kernel writes one struct itimerspec through the pointer.
    let _ = unsafe { syscall3(nr::TIMERFD_GETTIME, fd as usize, times.as_mut_ptr().expose_provenance(), 0) };
}

/// Whether the number is a terminal (isatty(3)).
#[must_use]
pub fn is_terminal(fd: u32) -> bool {
    const TCGETS: usize = 0x5401;
    // Larger than the kernel's struct termios of 36 bytes.
    let mut termios = [0_u64; 8];
    let pointer = termios.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel writes one struct termios through the pointer.
    unsafe { syscall3(nr::IOCTL, fd as usize, TCGETS, pointer) }.is_ok()
}

/// What poll(2) says of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Readiness {
    /// `POLLIN`: a read or an accept would not block.
    pub input: bool,
    /// `POLLHUP`: nobody has the other end open.
    pub hang_up: bool,
    /// `POLLERR`: for the writing end of a pipe, nobody can read.
    pub error: bool,
}

/// Asks poll(2) without waiting.
///
/// # Errors
/// Those of poll(2); `EBADF`.
pub fn readiness(fd: u32) -> Result<Readiness, Errno> {
    const POLLIN: u32 = 0x1;
    const POLLERR: u32 = 0x8;
    const POLLHUP: u32 = 0x10;
    const POLLNVAL: u32 = 0x20;
    // struct pollfd: the number, then two 16-bit words of events, asked for and returned.
    let mut interest = [fd, POLLIN];
    let pointer = (&raw mut interest).expose_provenance();
    // SAFETY: the pointer is valid for reads and writes of one struct pollfd.
    unsafe { syscall3(nr::POLL, pointer, 1, 0) }?;
    let [_, events] = interest;
    let returned = events >> 16;
    if returned & POLLNVAL != 0 {
        return Err(Errno::EBADF);
    }
    let returned = |event| returned & event != 0;
    Ok(Readiness { input: returned(POLLIN), hang_up: returned(POLLHUP), error: returned(POLLERR) })
}

/// The extents of `fd` that hold data, as (offset, bytes), without moving its position and at most `limit`
/// bytes in all. Never a byte behind `size`.
///
/// # Errors
/// Those of open(2) and pread(2); `EOVERFLOW` when there is more than `limit`.
pub fn content(fd: u32, size: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, Errno> {
    let file = open_again(fd)?;
    let (mut extents, mut at, mut total) = (Vec::new(), 0, 0_usize);
    while let Some((start, end)) = next_data(&file, at, size)? {
        let len = usize::try_from(end - start).map_err(|_| Errno::EOVERFLOW)?;
        total = total.saturating_add(len);
        if total > limit {
            return Err(Errno::EOVERFLOW);
        }
        let mut bytes = alloc::vec![0; len];
        match file::read_exact_at(&file, &mut bytes, start) {
            Ok(()) => extents.push((start, bytes)),
            // Whoever still runs has made it shorter meanwhile.
            Err(Errno::ENODATA) => break,
            Err(errno) => return Err(errno),
        }
        at = end;
    }
    Ok(extents)
}

/// What `fd` is open on, in a description of our own: the program's position stays, and one that is open only for writing
/// can be read.
///
/// # Errors
/// Those of open(2).
pub fn open_again(fd: u32) -> Result<crate::Fd, Errno> {
    file::open(path_of(fd).as_c_str(), file::READ_ONLY)
}

/// The first data of `file` in `[from, size)`: from where to where.
///
/// # Errors
/// Those of lseek(2).
pub fn next_data(file: &crate::Fd, from: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    const SEEK_DATA: usize = 3;
    const SEEK_HOLE: usize = 4;
    let seek = |offset: u64, whence| {
        let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        // SAFETY: plain numbers; the position belongs to our own description.
        unsafe { syscall3(nr::LSEEK, file.arg(), offset, whence) }.map(|at| at as u64)
    };
    if from >= size {
        return Ok(None);
    }
    let start = match seek(from, SEEK_DATA) {
        Err(Errno::ENXIO) => return Ok(None),
        other => other?,
    };
    let end = match seek(start, SEEK_HOLE) {
        Err(Errno::ENXIO) => return Ok(None),
        other => other?.min(size),
    };
    Ok((start < end).then_some((start, end)))
}

pub(crate) fn fcntl(fd: u32, command: usize, argument: usize) -> Result<u32, Errno> {
    // SAFETY: every command in this crate takes a plain number and touches no memory.
    let value = unsafe { syscall3(nr::FCNTL, fd as usize, command, argument) }?;
    u32::try_from(value).map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fd;

    fn number(fd: &Fd) -> u32 {
        fd.raw().cast_unsigned()
    }

    fn temporary(content: &[u8]) -> Fd {
        use std::io::Write as _;
        let path = alloc::format!("/tmp/posthaste-descriptor-{}-{}", std::process::id(), content.len());
        let mut file = std::fs::File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .expect("a temporary file");
        std::fs::remove_file(&path).expect("ours");
        file.write_all(content).expect("room");
        // SAFETY: the number is given up by its owner.
        unsafe { Fd::from_raw(std::os::fd::IntoRawFd::into_raw_fd(file)) }
    }

    #[test]
    fn a_duplicate_shares_and_a_second_open_does_not() {
        let one = file::open(c"/dev/null", file::READ_ONLY).expect("exists");
        let two = one.duplicate_from(0).expect("room");
        let three = file::open(c"/dev/null", file::READ_ONLY).expect("exists");
        assert_eq!(sameness(number(&one), number(&two)), Sameness::Same);
        assert_eq!(sameness(number(&one), number(&three)), Sameness::Different);
    }

    #[test]
    fn open_numbers_are_listed_and_closed_ones_are_not() {
        let open = file::open(c"/dev/null", file::READ_ONLY).expect("exists").duplicate_from(700);
        let open = open.expect("room");
        assert!(numbers().expect("readable").contains(&number(&open)));
        assert_eq!(link(number(&open)), Ok(b"/dev/null".to_vec()));
        let closed = number(&open);
        drop(open);
        assert!(!numbers().expect("readable").contains(&closed));
        assert_eq!(close_on_exec(closed), Err(Errno::EBADF));
        assert_eq!(readiness(closed), Err(Errno::EBADF));
    }

    #[test]
    fn content_is_read_up_to_the_limit_and_the_position_stays() {
        let file = temporary(b"twelve bytes");
        let all = content(number(&file), 12, 12);
        assert_eq!(all, Ok(alloc::vec![(0, b"twelve bytes".to_vec())]));
        assert_eq!(content(number(&file), 12, 11), Err(Errno::EOVERFLOW));
        assert_eq!(content(number(&file), 0, 0), Ok(Vec::new()));
        let info = crate::proc::fdinfo::of_number(number(&file)).expect("open");
        assert_eq!(info.position, 12);
    }
}
