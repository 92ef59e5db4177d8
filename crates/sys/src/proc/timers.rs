//! `/proc/PID/timers`: what timer_create(2) was given, four lines a timer.

use alloc::vec::Vec;

use super::{ProcError, ProcFile};
use crate::number::{decimal, hexadecimal, split_once};
use crate::{Errno, file};

const FILE: ProcFile = ProcFile::Timers;
const LIMIT: usize = 4 << 20;

/// One timer; names as in sigevent(3type).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timer {
    /// What the kernel calls it.
    pub id: u32,
    /// `sigev_signo`
    pub signal: u32,
    /// `sigev_value`
    pub value: u64,
    /// `sigev_notify`: 0 signals the process, 1 nobody, 2 makes a thread, with 4 added signals a thread.
    pub notify: u32,
    /// The process or thread to signal.
    pub target: u32,
    /// `CLOCK_*`
    pub clock: i32,
}

/// The timers of the calling process; a kernel without `CONFIG_CHECKPOINT_RESTORE` lists none.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn own() -> Result<Vec<Timer>, ProcError> {
    match file::read_file(c"/proc/self/timers", LIMIT) {
        Ok(text) => parse(&text),
        Err(Errno::ENOENT) => Ok(Vec::new()),
        Err(errno) => Err(ProcError::Read { file: FILE, errno }),
    }
}

/// Parses a whole `timers` file.
///
/// # Errors
/// Lines that the kernel would not write.
pub fn parse(text: &[u8]) -> Result<Vec<Timer>, ProcError> {
    let mut timers: Vec<Timer> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some((name, value)) = split_once(line, b':') else { continue };
        let value = value.trim_ascii();
        if name == b"ID" {
            timers.push(Timer::default());
        }
        let known = timers.last_mut().and_then(|timer| set(timer, name, value));
        known.ok_or(ProcError::Malformed { file: FILE })?;
    }
    Ok(timers)
}

fn set(timer: &mut Timer, name: &[u8], value: &[u8]) -> Option<()> {
    let number = |digits| u32::try_from(decimal(digits)?).ok();
    match name {
        b"ID" => timer.id = number(value)?,
        b"signal" => {
            let (signal, pointer) = split_once(value, b'/')?;
            timer.signal = number(signal)?;
            timer.value = hexadecimal(pointer.strip_prefix(b"0x").unwrap_or(pointer))?;
        }
        b"notify" => {
            let (kind, target) = split_once(value, b'/')?;
            let (whom, target) = split_once(target, b'.')?;
            let kind = match kind {
                b"signal" => 0,
                b"none" => 1,
                b"thread" => 2,
                _ => return None,
            };
            timer.notify = if whom == b"tid" { kind | 4 } else { kind };
            timer.target = number(target)?;
        }
        b"ClockID" => {
            timer.clock = match value.strip_prefix(b"-") {
                Some(digits) => 0_i32.checked_sub_unsigned(number(digits)?)?,
                None => i32::try_from(number(value)?).ok()?,
            }
        }
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_is_listed_with_its_target() {
        let text = b"ID: 0\nsignal: 60/00007fff86e452a8\nnotify: signal/pid.2634\nClockID: 0\n\
ID: 12\nsignal: 32/0000000000000000\nnotify: signal/tid.2635\nClockID: -6\n";
        let first = Timer { id: 0, signal: 60, value: 0x7fff_86e4_52a8, notify: 0, target: 2634, clock: 0 };
        let second = Timer { id: 12, signal: 32, value: 0, notify: 4, target: 2635, clock: -6 };
        assert_eq!(parse(text), Ok(alloc::vec![first, second]));
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in [
            b"signal: 1/0\n".as_slice(),
            b"ID: x\n",
            b"ID: 1\nsignal: 1\n",
            b"ID: 1\nnotify: pigeon/pid.1\n",
            b"ID: 1\nClockID: --1\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn this_process_has_none() {
        assert_eq!(own(), Ok(Vec::new()));
    }
}
