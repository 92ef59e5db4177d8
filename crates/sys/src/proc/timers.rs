//! `/proc/PID/timers`: what timer_create(2) was given, four lines a timer.

use alloc::vec::Vec;

use protocol::{TimerRecord, TimerTimes};

use super::{ProcError, ProcFile};
use crate::number::{decimal, field, hexadecimal, index_of, split_once};
use crate::{Errno, file};

const FILE: ProcFile = ProcFile::Timers;
const LIMIT: usize = 4 << 20;
/// `SIGEV_SIGNAL`, `SIGEV_NONE`, `SIGEV_THREAD`
const KINDS: &[u8] = b"signal none thread";
/// `SIGEV_THREAD_ID`
const TO_THREAD: u32 = 4;

/// The timers of the calling process; a kernel without `CONFIG_CHECKPOINT_RESTORE` lists none.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn own() -> Result<Vec<TimerRecord>, ProcError> {
    match file::read_file(c"/proc/self/timers", LIMIT) {
        Ok(text) => parse(&text),
        Err(Errno::ENOENT) => Ok(Vec::new()),
        Err(errno) => Err(ProcError::Read { file: FILE, errno }),
    }
}

/// Parses a whole `timers` file; it does not say when a timer goes off.
///
/// # Errors
/// Lines that the kernel would not write.
pub fn parse(text: &[u8]) -> Result<Vec<TimerRecord>, ProcError> {
    let (mut timers, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        if rest.starts_with(b"ID:") {
            timers.push(first(rest).ok_or(ProcError::Malformed { file: FILE })?);
        }
        rest = split_once(rest, b'\n').map_or(&[], |(_, tail)| tail);
    }
    Ok(timers)
}

/// The timer whose lines come first in `text`.
fn first(text: &[u8]) -> Option<TimerRecord> {
    let number = |digits| u32::try_from(decimal(digits)?).ok();
    let (signal, value) = split_once(field(text, b"signal")?, b'/')?;
    let (kind, target) = split_once(field(text, b"notify")?, b'/')?;
    let (whom, thread) = split_once(target, b'.')?;
    let kind = index_of(KINDS, kind)?;
    let clock = field(text, b"ClockID")?;
    Some(TimerRecord {
        id: number(field(text, b"ID")?)?,
        clock: match clock.strip_prefix(b"-") {
            Some(digits) => 0_i32.checked_sub_unsigned(number(digits)?)?,
            None => i32::try_from(number(clock)?).ok()?,
        },
        signal: number(signal)?,
        value: hexadecimal(value.strip_prefix(b"0x").unwrap_or(value))?,
        notify: u32::try_from(kind).ok()? | if whom == b"tid" { TO_THREAD } else { 0 },
        thread: number(thread)?,
        times: TimerTimes::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_is_listed_with_its_target() {
        let text = b"ID: 0\nsignal: 60/00007fff86e452a8\nnotify: signal/pid.2634\nClockID: 0\n\
ID: 12\nsignal: 32/0000000000000000\nnotify: signal/tid.2635\nClockID: -6\n";
        let times = TimerTimes::default();
        let value = 0x7fff_86e4_52a8;
        let first = TimerRecord { id: 0, signal: 60, value, notify: 0, thread: 2634, clock: 0, times };
        let second = TimerRecord { id: 12, signal: 32, value: 0, notify: 4, thread: 2635, clock: -6, times };
        assert_eq!(parse(text), Ok(alloc::vec![first, second]));
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in [
            b"ID: x\nsignal: 1/0\nnotify: signal/pid.1\nClockID: 0\n".as_slice(),
            b"ID: 1\nsignal: 1\nnotify: signal/pid.1\nClockID: 0\n",
            b"ID: 1\nsignal: 1/0\nnotify: pigeon/pid.1\nClockID: 0\n",
            b"ID: 1\nsignal: 1/0\nnotify: signal/pid.1\nClockID: --1\n",
            b"ID: 1\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn this_process_has_none() {
        assert_eq!(own(), Ok(Vec::new()));
    }
}
