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

/// What a timerfd tells of itself; times in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// `CLOCK_*`
    pub clock: u32,
    /// How often it went off and was not read.
    pub ticks: u64,
    /// `TFD_TIMER_*`, as it was set.
    pub settime_flags: u32,
    /// Until it goes off.
    pub remaining_ns: u64,
    /// Between two times.
    pub interval_ns: u64,
}

/// One `inotify` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watcher {
    /// The number that inotify_add_watch(2) returned.
    pub number: u32,
    /// Inode that is watched.
    pub inode: u64,
    /// Its device, as in `stat`.
    pub device: u64,
    /// `IN_*`
    pub mask: u32,
    /// Type of the file handle.
    pub handle_type: i32,
    /// The file handle (`name_to_handle_at(2)`).
    pub handle: Vec<u8>,
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
    /// What a timerfd tells.
    pub timer: Option<Timer>,
    /// `sigmask` of a signalfd.
    pub signals: Option<u64>,
    /// `inotify` lines.
    pub watchers: Vec<Watcher>,
    /// Of a pidfd: the id in the innermost namespace, `Some(None)` for a process that is gone.
    pub process: Option<Option<u32>>,
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
    let mut info = FdInfo {
        position: number_of(text, b"pos", 10)?,
        flags: u32::try_from(number_of(text, b"flags", 8)?).ok()?,
        event_count: parsed(text, b"eventfd-count", hexadecimal)?,
        event_semaphore: number_of(text, b"eventfd-semaphore", 10)? != 0,
        signals: parsed(text, b"sigmask", hexadecimal)?,
        timer: if field(text, b"clockid").is_some() { Some(timer(text)?) } else { None },
        process: process(text)?,
        ..FdInfo::default()
    };
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"tfd:") {
            info.watches.push(watch(value)?);
        } else if let Some(value) = line.strip_prefix(b"inotify ") {
            info.watchers.push(watcher(value)?);
        }
    }
    Some(info)
}

/// The value of a line that may be missing; `None` if it makes no sense.
fn parsed<T>(text: &[u8], name: &[u8], parse: fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    match field(text, name) {
        Some(value) => parse(value).map(Some),
        None => Some(None),
    }
}

/// The id of a pidfd's process in the innermost of its namespaces.
fn process(text: &[u8]) -> Option<Option<Option<u32>>> {
    let Some(outer) = field(text, b"Pid") else { return Some(None) };
    if outer == b"-1" {
        return Some(Some(None));
    }
    let innermost = words(field(text, b"NSpid").unwrap_or(outer)).last()?;
    Some(Some(Some(u32::try_from(decimal(innermost)?).ok()?)))
}

fn timer(text: &[u8]) -> Option<Timer> {
    Some(Timer {
        clock: u32::try_from(number_of(text, b"clockid", 10)?).ok()?,
        ticks: number_of(text, b"ticks", 10)?,
        settime_flags: u32::try_from(number_of(text, b"settime flags", 8)?).ok()?,
        remaining_ns: time(field(text, b"it_value")?)?,
        interval_ns: time(field(text, b"it_interval")?)?,
    })
}

/// `(SECONDS, NANOSECONDS)`
fn time(value: &[u8]) -> Option<u64> {
    let value = value.strip_prefix(b"(")?.strip_suffix(b")")?;
    let (seconds, rest) = split_once(value, b',')?;
    decimal(seconds)?.checked_mul(1_000_000_000)?.checked_add(decimal(rest.trim_ascii())?)
}

/// `wd:HEX ino:HEX sdev:HEX mask:HEX ignored_mask:HEX fhandle-bytes:HEX fhandle-type:HEX f_handle:HEX…`
fn watcher(value: &[u8]) -> Option<Watcher> {
    let mut found = Watcher { number: 0, inode: 0, device: 0, mask: 0, handle_type: 0, handle: Vec::new() };
    for word in words(value) {
        let (name, value) = split_once(word, b':')?;
        match name {
            b"wd" => found.number = u32::try_from(hexadecimal(value)?).ok()?,
            b"ino" => found.inode = hexadecimal(value)?,
            b"sdev" => found.device = hexadecimal(value)?,
            b"mask" => found.mask = u32::try_from(hexadecimal(value)?).ok()?,
            b"fhandle-type" => found.handle_type = i32::try_from(hexadecimal(value)?).ok()?,
            b"f_handle" => {
                for pair in value.chunks_exact(2) {
                    found.handle.push(u8::try_from(hexadecimal(pair)?).ok()?);
                }
            }
            _ => {}
        }
    }
    Some(found)
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
    fn a_timer_tells_when_it_goes_off() {
        let text = b"pos:\t0\nflags:\t02\nclockid: 1\nticks: 3\nsettime flags: 01\nit_value: (0, 49406829)\n\
it_interval: (1, 5)\n";
        let expected = Timer {
            clock: 1,
            ticks: 3,
            settime_flags: 1,
            remaining_ns: 49_406_829,
            interval_ns: 1_000_000_005,
        };
        assert_eq!(parse(text).expect("what a kernel wrote").timer, Some(expected));
    }

    #[test]
    fn signals_watched_files_and_processes_are_told() {
        let head = b"pos:\t0\nflags:\t02\n".as_slice();
        let parse = |rest: &[u8]| super::parse(&[head, rest].concat()).expect("what a kernel wrote");
        assert_eq!(parse(b"sigmask:\t0000000000000200\n").signals, Some(0x200));
        assert_eq!(parse(b"Pid:\t77\nNSpid:\t77\t12\n").process, Some(Some(12)));
        assert_eq!(parse(b"Pid:\t-1\n").process, Some(None));
        let line = b"inotify wd:3 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 \
fhandle-type:1 f_handle:7e9e0000640d1b6d\n";
        let expected = Watcher {
            number: 3,
            inode: 0x9e7e,
            device: 0x80_0013,
            mask: 0x800_afce,
            handle_type: 1,
            handle: alloc::vec![0x7e, 0x9e, 0, 0, 0x64, 0x0d, 0x1b, 0x6d],
        };
        assert_eq!(parse(line).watchers, [expected]);
    }

    #[test]
    fn a_broken_value_is_an_error() {
        for text in [b"pos:\tx\n".as_slice(), b"flags:\t9\n", b"tfd: x\n", b"tfd: 1 events:\n", b"tfd:\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
