//! Signal numbers by name, as kill(1) takes them.

use core::fmt;

/// Names of the signals 1 to 31 on `x86_64`.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The first real-time signal that a libc gives to programs; 32 and 33 are its own.
const REAL_TIME_MIN: u32 = 34;
const REAL_TIME_MAX: u32 = 64;
/// Raised by the program's own instructions, or not catchable: ILL, TRAP, BUS, FPE, KILL, SEGV, STOP.
const UNSUITABLE: [u32; 7] = [4, 5, 7, 8, 9, 11, 19];

/// A setting that names no signal which could be a trigger.
#[derive(Clone, Copy)]
pub(crate) enum NotASignal {
    /// No signal has this name or number.
    Unknown,
    /// It exists, but it cannot be caught, the program's own faults raise it, or the libc reserves it.
    Unsuitable(u32),
}

impl fmt::Display for NotASignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("names no signal (a number, or a name such as USR1 or RTMIN+3)"),
            Self::Unsuitable(number) => write!(f, "names signal {number}, which cannot be a trigger"),
        }
    }
}

/// The number of `name`: `12`, `USR2`, `SIGUSR2`, `RTMIN+3`, `SIGRTMAX-2`.
pub(super) fn number(name: &[u8]) -> Result<u32, NotASignal> {
    let name = core::str::from_utf8(name).map_err(|_| NotASignal::Unknown)?;
    let number =
        parse(name).filter(|number| (1..=REAL_TIME_MAX).contains(number)).ok_or(NotASignal::Unknown)?;
    if UNSUITABLE.contains(&number) || (32..REAL_TIME_MIN).contains(&number) {
        return Err(NotASignal::Unsuitable(number));
    }
    Ok(number)
}

fn parse(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let name = name.strip_prefix("SIG").unwrap_or(name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        return real_time(REAL_TIME_MIN.checked_add(offset)?);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset = if offset.is_empty() { 0 } else { offset.strip_prefix('-')?.parse().ok()? };
        return real_time(REAL_TIME_MAX.checked_sub(offset)?);
    }
    let index = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
    u32::try_from(index + 1).ok()
}

fn real_time(number: u32) -> Option<u32> {
    (REAL_TIME_MIN..=REAL_TIME_MAX).contains(&number).then_some(number)
}
