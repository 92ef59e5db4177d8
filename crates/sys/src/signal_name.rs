//! The signal that starts a move, as users name it in `POSTHASTE_SIGNAL`: by number, or by name as kill(1) takes them.

use crate::number::words;
use protocol::{Piece, Text, put};

/// Names of the signals 1 to 31 on `x86_64`. One text: a table of texts costs a relocation each.
const NAMES: &[u8] =
    b"HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP \
TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS";
/// The first real-time signal that a libc gives to programs; 32 and 33 are its own.
const REAL_TIME_MIN: u32 = 34;
const REAL_TIME_MAX: u32 = 64;
/// Raised by the program's own instructions, or not catchable: ILL, TRAP, BUS, FPE, KILL, SEGV, STOP.
const UNSUITABLE: [u32; 7] = [4, 5, 7, 8, 9, 11, 19];

/// A setting that names no signal which could be a trigger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotASignal {
    /// No signal has this name or number.
    Unknown,
    /// It exists, but it cannot be caught, the program's own faults raise it, or the libc reserves it.
    Unsuitable(u32),
}

impl Piece for NotASignal {
    fn put_into(&self, text: &mut impl Text) {
        match self {
            Self::Unknown => text.push_text("names no signal (a number, or a name such as USR1 or RTMIN+3)"),
            Self::Unsuitable(number) => put!(text, "names signal ", number, ", which cannot be a trigger"),
        }
    }
}

/// The number of `name`: `12`, `USR2`, `SIGUSR2`, `RTMIN+3`, `SIGRTMAX-2`. SIGUSR2 for no name at all. Allocates nothing.
///
/// # Errors
/// The name of no signal, or of one that cannot be a trigger.
pub fn number(name: &[u8]) -> Result<u32, NotASignal> {
    const SIGUSR2: u32 = 12;
    if name.is_empty() {
        return Ok(SIGUSR2);
    }
    let number =
        parse(name).filter(|number| (1..=REAL_TIME_MAX).contains(number)).ok_or(NotASignal::Unknown)?;
    if UNSUITABLE.contains(&number) || (32..REAL_TIME_MIN).contains(&number) {
        return Err(NotASignal::Unsuitable(number));
    }
    Ok(number)
}

fn parse(name: &[u8]) -> Option<u32> {
    if let Some(number) = decimal(name) {
        return Some(number);
    }
    let name = behind(name, b"SIG").unwrap_or(name);
    if let Some(offset) = behind(name, b"RTMIN") {
        return real_time(REAL_TIME_MIN.checked_add(distance(offset, b"+")?)?);
    }
    if let Some(offset) = behind(name, b"RTMAX") {
        return real_time(REAL_TIME_MAX.checked_sub(distance(offset, b"-")?)?);
    }
    let mut known = words(NAMES);
    let index = known.position(|known| is_alike(known, name))?;
    u32::try_from(index + 1).ok()
}

/// What follows `prefix`, in capitals or not. (Nothing may be allocated here: there is no arena yet.)
fn behind<'a>(name: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (front, rest) = name.split_at_checked(prefix.len())?;
    is_alike(front, prefix).then_some(rest)
}

/// Whether they are the same letters, capitals or not. (That of slices is five times as much code.)
fn is_alike(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.eq_ignore_ascii_case(other))
}

/// The number behind `sign`; 0 for nothing at all.
fn distance(text: &[u8], sign: &[u8]) -> Option<u32> {
    if text.is_empty() { Some(0) } else { decimal(text.strip_prefix(sign)?) }
}

fn decimal(text: &[u8]) -> Option<u32> {
    crate::number::decimal(text).and_then(|number| u32::try_from(number).ok())
}

fn real_time(number: u32) -> Option<u32> {
    (REAL_TIME_MIN..=REAL_TIME_MAX).contains(&number).then_some(number)
}
