//! File handles: files without a path (`open_by_handle_at(2)`, `CAP_DAC_READ_SEARCH`).

use std::ffi::CString;
use std::os::fd::OwnedFd;

use crate::number::decimal;
use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd, file};

/// `MAX_HANDLE_SZ`
const MOST_BYTES: usize = 128;
const PATH_ONLY: usize = 0o10_000_000;
const CLOEXEC: usize = 0o2_000_000;

/// Opens, with `O_PATH`, the file with this handle in the file system on `device` (as the kernel counts devices: 20 bits
/// of minor number).
///
/// # Errors
/// `ESTALE` when the file is gone, `ENODEV` when the file system is not mounted here, `EPERM` without the capability.
pub fn open(device: u64, handle_type: i32, handle: &[u8]) -> Result<OwnedFd, Errno> {
    const ENODEV: Errno = Errno(19);
    let (major, minor) = (device >> 20, device & 0xf_ffff);
    let mounts = file::read_file(c"/proc/self/mountinfo", 16 << 20)?;
    let mut outcome = Err(ENODEV);
    for line in mounts.split(|byte| *byte == b'\n') {
        let mut words = line.split(|byte| *byte == b' ').skip(2);
        let (Some(number), Some(_root), Some(point)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let mut numbers = number.split(|byte| *byte == b':').map(decimal);
        if (numbers.next().flatten(), numbers.next().flatten()) != (Some(major), Some(minor)) {
            continue;
        }
        let Ok(point) = CString::new(point) else { continue };
        if let Ok(mount) = file::open(&point, file::READ_ONLY | file::DIRECTORY) {
            outcome = open_in(&mount, handle_type, handle);
            if outcome.is_ok() {
                break;
            }
        }
    }
    outcome
}

fn open_in(mount: &Fd, handle_type: i32, handle: &[u8]) -> Result<OwnedFd, Errno> {
    /// `struct file_handle`: length, type, then the handle.
    const HEADER: usize = 8;
    const ESTALE: Errno = Errno(116);
    let mut bytes = [0_u8; HEADER + MOST_BYTES];
    let len = u32::try_from(handle.len()).map_err(|_| ESTALE)?;
    let (head, body) = bytes.split_at_mut(HEADER);
    let body = body.get_mut(..handle.len()).ok_or(ESTALE)?;
    body.copy_from_slice(handle);
    let (length, kind) = head.split_at_mut(4);
    length.copy_from_slice(&len.to_ne_bytes());
    kind.copy_from_slice(&handle_type.to_ne_bytes());
    let pointer = bytes.as_ptr().expose_provenance();
    // SAFETY: the structure is valid for reads of the length that it names.
    let raw = unsafe { syscall3(nr::OPEN_BY_HANDLE_AT, mount.arg(), pointer, PATH_ONLY | CLOEXEC) }?;
    Fd::from_result(raw).map(Into::into)
}

/// The handle of what `path` leads to: its type and its bytes.
///
/// # Errors
/// Those of `name_to_handle_at(2)`.
pub fn of_path(path: &std::ffi::CStr) -> Result<(i32, Vec<u8>), Errno> {
    const AT_FDCWD: usize = (-100_isize).cast_unsigned();
    let mut words = [0_u32; 2 + MOST_BYTES / 4];
    words[0] = 128;
    let mut mount = 0_i32;
    let arguments = [
        AT_FDCWD,
        path.as_ptr().expose_provenance(),
        words.as_mut_ptr().expose_provenance(),
        (&raw mut mount).expose_provenance(),
        0,
        0,
    ];
    // SAFETY: the path is a C string; the kernel writes at most the handle's length, and the mount's number.
    unsafe { syscall(nr::NAME_TO_HANDLE_AT, arguments) }?;
    let [len, kind, rest @ ..] = words;
    let mut bytes: Vec<u8> = rest.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.truncate(len as usize);
    Ok((kind.cast_signed(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status;

    #[test]
    fn a_file_is_found_by_its_handle() {
        let path = std::env::temp_dir().join(std::format!("posthaste-handle-{}", std::process::id()));
        std::fs::write(&path, b"x").expect("room");
        let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
        let before = status::of_path(&name).expect("exists");
        let Ok((kind, handle)) = of_path(&name) else {
            std::println!("skipped: this file system has no handles");
            return;
        };
        let device = u64::from(before.device.major) << 20 | u64::from(before.device.minor);
        match open(device, kind, &handle) {
            Ok(found) => {
                let found = status::of_fd(&found.into()).expect("open");
                assert_eq!(found.inode, before.inode);
            }
            Err(Errno(1)) => std::println!("skipped: no CAP_DAC_READ_SEARCH"),
            Err(errno) => std::panic!("{errno}"),
        }
        std::fs::remove_file(&path).expect("ours");
    }
}
