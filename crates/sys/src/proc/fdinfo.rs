//! `/proc/PID/fdinfo/FD`: what the kernel says of an open file description, one `name: value` line each.

use alloc::vec::Vec;

use super::{ProcError, ProcFile};
use crate::number::{decimal, field, hexadecimal, number_of, split_once, words};
use crate::path::KernelPath;

const FILE: ProcFile = ProcFile::FdInfo;
const LIMIT: usize = 64 << 20;

/// One `tfd:` line of an epoll descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    /// The number under which the file was added.
    pub fd: u32,
    /// `EPOLL*` bits.
    pub events: u32,
    /// `epoll_data`
    pub data: u64,
    /// Inode of the file that is watched, if the kernel says so.
    pub inode: Option<u64>,
}

/// The lines that matter here; meaning as in proc(5).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FdInfo {
    /// `pos`
    pub position: u64,
    /// `flags`: those of open(2), close-on-exec among them.
    pub flags: u32,
    /// `eventfd-count`
    pub event_count: Option<u64>,
    /// `eventfd-semaphore`
    pub event_semaphore: bool,
    /// `tfd` lines.
    pub watches: Vec<Watch>,
    /// What stands behind `lock:`, once for every lock.
    pub locks: Vec<Vec<u8>>,
}

/// What the kernel says of descriptor `fd` of the calling process.
///
/// # Errors
/// The file cannot be read (`ENOENT` when the descriptor is closed) or is not what the kernel writes.
pub fn of_number(fd: u32) -> Result<FdInfo, ProcError> {
    let path = KernelPath::numbered("/proc/thread-self/fdinfo/", fd, "");
    parse(&super::read(path.as_c_str(), FILE, LIMIT)?)
}

/// Parses a whole `fdinfo` file; lines that are not known are left out.
///
/// # Errors
/// A known line with a value that the kernel would not write.
pub fn parse(text: &[u8]) -> Result<FdInfo, ProcError> {
    lines(text).ok_or(ProcError::Malformed { file: FILE })
}

fn lines(text: &[u8]) -> Option<FdInfo> {
    let (mut watches, mut locks) = (Vec::new(), Vec::new());
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"tfd:") {
            watches.push(watch(value)?);
        } else if let Some(value) = line.strip_prefix(b"lock:") {
            locks.push(value.to_vec());
        }
    }
    Some(FdInfo {
        position: number_of(text, b"pos", 10)?,
        flags: u32::try_from(number_of(text, b"flags", 8)?).ok()?,
        event_count: match field(text, b"eventfd-count") {
            Some(digits) => Some(hexadecimal(digits)?),
            None => None,
        },
        event_semaphore: number_of(text, b"eventfd-semaphore", 10)? != 0,
        watches,
        locks,
    })
}

/// `FD events: HEX data: HEX pos:N ino:HEX sdev:HEX`; numbers are padded, so a colon may stand alone.
fn watch(value: &[u8]) -> Option<Watch> {
    let mut words = words(value);
    let fd = u32::try_from(decimal(words.next()?)?).ok()?;
    let mut found = Watch { fd, events: 0, data: 0, inode: None };
    while let Some(word) = words.next() {
        let (name, value) = split_once(word, b':')?;
        let value = if value.is_empty() { words.next()? } else { value };
        match name {
            b"events" => found.events = u32::try_from(hexadecimal(value)?).ok()?,
            b"data" => found.data = hexadecimal(value)?,
            b"ino" => found.inode = Some(hexadecimal(value)?),
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoll_descriptor_lists_what_it_watches() {
        let text = b"pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1043\n\
tfd:        7 events: 8000001d data: fffffffffffffff3  pos:0 ino:413 sdev:10\n\
tfd:      123 events:       19 data:              7b\n";
        let info = parse(text).expect("what a kernel wrote");
        assert_eq!(info.flags, 0o2_000_002);
        let first = Watch { fd: 7, events: 0x8000_001d, data: u64::MAX - 12, inode: Some(0x413) };
        let second = Watch { fd: 123, events: 0x19, data: 0x7b, inode: None };
        assert_eq!(info.watches, [first, second]);
    }

    #[test]
    fn an_eventfd_tells_its_counter_in_hexadecimal() {
        let text =
            b"pos:\t0\nflags:\t04002\neventfd-count:               1f\neventfd-id: 3\neventfd-semaphore: 1\n";
        let info = parse(text).expect("what a kernel wrote");
        assert_eq!((info.event_count, info.event_semaphore), (Some(0x1f), true));
    }

    #[test]
    fn a_lock_is_told_as_it_is() {
        let text = b"pos:\t12\nflags:\t0100002\nlock:\t1: POSIX  ADVISORY  WRITE 359 00:13:11691 0 EOF\n";
        let info = parse(text).expect("what a kernel wrote");
        assert_eq!(info.position, 12);
        assert_eq!(info.locks, [b"\t1: POSIX  ADVISORY  WRITE 359 00:13:11691 0 EOF".to_vec()]);
    }

    #[test]
    fn a_broken_value_is_an_error() {
        for text in [b"pos:\tx\n".as_slice(), b"flags:\t9\n", b"tfd: x\n", b"tfd: 1 events:\n", b"tfd:\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
