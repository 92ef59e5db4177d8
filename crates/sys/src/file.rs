//! Files and directories by raw system calls.

use alloc::vec::Vec;
use core::ffi::CStr;

use crate::number::decimal;
use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd};

const AT_FDCWD: usize = (-100_isize).cast_unsigned();
const O_CLOEXEC: usize = 0o2_000_000;

/// `O_RDONLY`
pub const READ_ONLY: usize = 0;
/// `O_WRONLY | O_APPEND | O_CREAT`
pub const APPEND: usize = 0o1 | 0o2000 | 0o100;
/// `O_DIRECTORY`
pub const DIRECTORY: usize = 0o200_000;
/// `O_PATH`
pub const PATH_ONLY: usize = 0o10_000_000;

/// Opens `path`, close-on-exec; a file that is created gets mode 0644.
///
/// # Errors
/// Those of open(2).
pub fn open(path: &CStr, flags: usize) -> Result<Fd, Errno> {
    let arguments = [AT_FDCWD, path.as_ptr().expose_provenance(), flags | O_CLOEXEC, 0o644, 0, 0];
    // SAFETY: the path is a valid C string; the kernel only reads it.
    let raw = unsafe { syscall(nr::OPENAT, arguments) }?;
    Fd::from_result(raw)
}

/// As [`open`], but not through links of `/proc` into other processes (`openat2(2)`, Linux 5.6).
///
/// # Errors
/// Those of open(2); `ELOOP` where the path leads through such a link.
#[cfg(feature = "std")]
pub fn open_without_magic(path: &CStr, flags: usize) -> Result<Fd, Errno> {
    open_how(AT_FDCWD, path, flags, true)
}

/// Opens `path`, which leads on from `directory`; as [`open_without_magic`] does, or as [`open`].
///
/// # Errors
/// Those of open(2).
#[cfg(feature = "std")]
pub fn open_below(
    directory: std::os::fd::BorrowedFd<'_>,
    path: &CStr,
    flags: usize,
    without_magic: bool,
) -> Result<Fd, Errno> {
    let directory = std::os::fd::AsRawFd::as_raw_fd(&directory).cast_unsigned() as usize;
    open_how(directory, path, flags, without_magic)
}

#[cfg(feature = "std")]
fn open_how(directory: usize, path: &CStr, flags: usize, without_magic: bool) -> Result<Fd, Errno> {
    const OPENAT2: usize = 437;
    const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
    const O_NOFOLLOW: usize = 0o400_000;
    // Flags that mean nothing together with O_PATH are an error here.
    let kept = if flags & PATH_ONLY == 0 { usize::MAX } else { PATH_ONLY | DIRECTORY | O_NOFOLLOW };
    // struct open_how: flags, mode, resolve.
    let how = [(flags & kept | O_CLOEXEC) as u64, 0, if without_magic { RESOLVE_NO_MAGICLINKS } else { 0 }];
    let (path, how) = (path.as_ptr().expose_provenance(), how.as_ptr().expose_provenance());
    // SAFETY: the path is a valid C string and the structure is complete; the kernel only reads both.
    let raw = unsafe { syscall(OPENAT2, [directory, path, how, 24, 0, 0]) }?;
    Fd::from_result(raw)
}

/// Reads at the file position; 0 at the end.
///
/// # Errors
/// Those of read(2).
pub fn read(fd: &Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer is valid for writes of its length.
    unsafe { syscall3(nr::READ, fd.arg(), buffer.as_mut_ptr().expose_provenance(), buffer.len()) }
}

/// Reads at `offset`, leaving the file position alone; 0 at the end.
///
/// # Errors
/// Those of pread(2).
pub fn read_at(fd: &Fd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let arguments = [fd.arg(), buffer.as_mut_ptr().expose_provenance(), buffer.len(), offset, 0, 0];
    // SAFETY: the buffer is valid for writes of its length.
    unsafe { syscall(nr::PREAD64, arguments) }
}

/// Fills `buffer` from `offset` on, leaving the file position alone.
///
/// # Errors
/// Those of pread(2); `ENODATA` when the file ends before.
pub fn read_exact_at(fd: &Fd, mut buffer: &mut [u8], mut offset: u64) -> Result<(), Errno> {
    while !buffer.is_empty() {
        match read_at(fd, buffer, offset) {
            Ok(0) => return Err(Errno::ENODATA),
            Ok(got) => {
                buffer = buffer.get_mut(got..).unwrap_or_default();
                offset = offset.saturating_add(got as u64);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes all of `bytes` at the file position.
///
/// # Errors
/// Those of write(2); `EIO` if the kernel takes nothing.
pub fn write_all(fd: &Fd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: the slice is valid for reads of its length.
        match unsafe { syscall3(nr::WRITE, fd.arg(), bytes.as_ptr().expose_provenance(), bytes.len()) } {
            Ok(0) => return Err(Errno::EIO),
            Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Reads at the file position into the room that `content` has, behind what is in it; 0 at the end, or without room.
/// What the room held before is never looked at, and so never cleared.
///
/// # Errors
/// Those of read(2).
pub fn append(fd: &Fd, content: &mut Vec<u8>) -> Result<usize, Errno> {
    let room = content.spare_capacity_mut();
    // SAFETY: the room is valid for writes of its length.
    let got = unsafe { syscall3(nr::READ, fd.arg(), room.as_mut_ptr().expose_provenance(), room.len()) }?;
    // SAFETY: the kernel has written the first `got` bytes of the room.
    unsafe { content.set_len(content.len() + got) };
    Ok(got)
}

/// Reads a file from its position to its end, at most `limit` bytes.
///
/// # Errors
/// Those of read(2); `EOVERFLOW` when there is more than `limit`.
pub fn read_to_end(fd: &Fd, limit: usize) -> Result<Vec<u8>, Errno> {
    const STEP: usize = 16 << 10;
    let mut content = Vec::new();
    loop {
        if content.len() > limit {
            return Err(Errno::EOVERFLOW);
        }
        if content.capacity() - content.len() < STEP / 4 {
            content.reserve(STEP);
        }
        match append(fd, &mut content) {
            Ok(0) => return Ok(content),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Opens `path` and reads it whole, at most `limit` bytes.
///
/// # Errors
/// Those of [`open`] and [`read_to_end`].
pub fn read_file(path: &CStr, limit: usize) -> Result<Vec<u8>, Errno> {
    read_to_end(&open(path, READ_ONLY)?, limit)
}

/// Where the symbolic link `path` points to, at most 4095 bytes.
///
/// # Errors
/// Those of readlink(2); `EOVERFLOW` for a longer target.
pub fn read_link(path: &CStr) -> Result<Vec<u8>, Errno> {
    read_link_at(AT_FDCWD, path)
}

/// The target of the symbolic link `path` below `directory`.
pub(crate) fn read_link_at(directory: usize, path: &CStr) -> Result<Vec<u8>, Errno> {
    let mut target = alloc::vec![0; 4096];
    let arguments = [
        directory,
        path.as_ptr().expose_provenance(),
        target.as_mut_ptr().expose_provenance(),
        target.len(),
        0,
        0,
    ];
    // SAFETY: the path is a valid C string, the buffer is valid for writes of its length.
    let len = unsafe { syscall(nr::READLINKAT, arguments) }?;
    if len >= target.len() {
        return Err(Errno::EOVERFLOW);
    }
    target.truncate(len);
    Ok(target)
}

/// The numeric entries of a directory such as `/proc/self/task`, ascending.
///
/// # Errors
/// Those of open(2) and getdents64(2).
pub fn numeric_entries(path: &CStr) -> Result<Vec<u32>, Errno> {
    let directory = open(path, READ_ONLY | DIRECTORY)?;
    let mut numbers: Vec<u32> = Vec::new();
    let mut buffer = alloc::vec![0_u8; 16 << 10];
    loop {
        // SAFETY: the buffer is valid for writes of its length.
        let got = unsafe {
            syscall3(nr::GETDENTS64, directory.arg(), buffer.as_mut_ptr().expose_provenance(), buffer.len())
        }?;
        if got == 0 {
            return Ok(numbers);
        }
        let mut entries = buffer.get(..got).unwrap_or_default();
        while let Some((number, rest)) = next_entry(entries) {
            if let Some(number) = number {
                // The kernel's order is ascending or nearly so: almost always this appends.
                numbers.insert(numbers.partition_point(|known| *known < number), number);
            }
            entries = rest;
        }
    }
}

/// Splits one `struct linux_dirent64` off: inode 8, offset 8, record length 2, type 1, then the name.
fn next_entry(bytes: &[u8]) -> Option<(Option<u32>, &[u8])> {
    const NAME: usize = 19;
    let length = u16::from_le_bytes([*bytes.get(16)?, *bytes.get(17)?]);
    let (entry, rest) = bytes.split_at_checked(usize::from(length).max(NAME))?;
    let name = CStr::from_bytes_until_nul(entry.get(NAME..)?).ok()?;
    Some((decimal(name.to_bytes()).and_then(|number| u32::try_from(number).ok()), rest))
}
