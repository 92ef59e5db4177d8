//! What a file is: statx(2).

use core::ffi::CStr;
use core::mem::offset_of;

use crate::raw::{nr, syscall};
use crate::{Errno, Fd};

/// Major and minor number of a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Device {
    /// The device `major:minor`; numbers beyond 32 bits do not exist and are cut.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "dev_t has 32 bits in the kernel")]
    pub const fn new(major: u64, minor: u64) -> Self {
        Self { major: major as u32, minor: minor as u32 }
    }

    /// Both numbers in one word.
    #[must_use]
    pub const fn number(self) -> u64 {
        (self.major as u64) << 32 | self.minor as u64
    }
}

/// What kind of file an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileType {
    /// Bytes in a file system.
    Regular,
    /// A directory.
    Directory,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A pipe or FIFO.
    Pipe,
    /// A socket.
    Socket,
    /// A symbolic link.
    Link,
    /// None of these: an anonymous inode of the kernel.
    Other,
}

/// One inode at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStatus {
    /// Kind.
    pub file_type: FileType,
    /// Bytes.
    pub size: u64,
    /// The file system's device.
    pub device: Device,
    /// Inode number in it.
    pub inode: u64,
    /// For device files: which device.
    pub special: Device,
    /// Modification time, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Time of the last change to the inode, nanoseconds since 1970.
    pub changed_ns: i64,
    /// Names that the inode has in its file system.
    pub links: u32,
    /// `st_mode`: kind and permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Time of the last access, nanoseconds since 1970.
    pub accessed_ns: i64,
}

/// `struct statx_timestamp`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
    reserved: i32,
}

/// `struct statx` (linux/stat.h).
#[repr(C)]
#[derive(Default)]
struct Statx {
    mask: u32,
    block_size: u32,
    attributes: u64,
    links: u32,
    user: u32,
    group: u32,
    mode: u16,
    spare0: u16,
    inode: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    accessed: Timestamp,
    born: Timestamp,
    changed: Timestamp,
    modified: Timestamp,
    special: [u32; 2],
    device: [u32; 2],
    spare: [u64; 14],
}

const _: () = assert!(size_of::<Statx>() == 256, "struct statx is 256 bytes");
const _: () = assert!(offset_of!(Statx, special) == 0x80, "stx_rdev_major");

const AT_FDCWD: usize = (-100_isize).cast_unsigned();
const AT_EMPTY_PATH: usize = 0x1000;
const STATX_BASIC_STATS: usize = 0x7ff;

/// The status of what `path` leads to.
///
/// # Errors
/// Those of statx(2).
pub fn of_path(path: &CStr) -> Result<FileStatus, Errno> {
    statx(AT_FDCWD, path, 0)
}

/// The status of what `fd` is open on.
///
/// # Errors
/// Those of statx(2).
pub fn of_fd(fd: &Fd) -> Result<FileStatus, Errno> {
    statx(fd.arg(), c"", AT_EMPTY_PATH)
}

/// The status of what descriptor number `fd` of this process is open on.
///
/// # Errors
/// Those of statx(2); `EBADF` when the number is not open.
pub fn of_number(fd: u32) -> Result<FileStatus, Errno> {
    statx(fd as usize, c"", AT_EMPTY_PATH)
}

fn statx(directory: usize, path: &CStr, flags: usize) -> Result<FileStatus, Errno> {
    let mut raw = Statx::default();
    let arguments = [
        directory,
        path.as_ptr().expose_provenance(),
        flags,
        STATX_BASIC_STATS,
        (&raw mut raw).expose_provenance(),
        0,
    ];
    // SAFETY: the path is a valid C string, `raw` is valid for the 256 bytes that the kernel writes.
    unsafe { syscall(nr::STATX, arguments) }?;
    Ok(FileStatus::from(&raw))
}

impl From<&Statx> for FileStatus {
    fn from(raw: &Statx) -> Self {
        let file_type = match raw.mode & 0o170_000 {
            0o100_000 => FileType::Regular,
            0o040_000 => FileType::Directory,
            0o020_000 => FileType::Character,
            0o060_000 => FileType::Block,
            0o010_000 => FileType::Pipe,
            0o140_000 => FileType::Socket,
            0o120_000 => FileType::Link,
            _ => FileType::Other,
        };
        let device = |[major, minor]: [u32; 2]| Device { major, minor };
        Self {
            file_type,
            size: raw.size,
            device: device(raw.device),
            inode: raw.inode,
            special: device(raw.special),
            modified_ns: nanoseconds(raw.modified),
            changed_ns: nanoseconds(raw.changed),
            links: raw.links,
            mode: u32::from(raw.mode),
            owner: (raw.user, raw.group),
            accessed_ns: nanoseconds(raw.accessed),
        }
    }
}

const fn nanoseconds(time: Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanoseconds as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_null_is_the_character_device_one_three() {
        let status = of_path(c"/dev/null").expect("exists");
        assert_eq!((status.file_type, status.special), (FileType::Character, Device::new(1, 3)));
    }

    #[test]
    fn a_missing_file_is_not_found() {
        assert_eq!(of_path(c"/no/such/file"), Err(Errno::ENOENT));
    }
}
