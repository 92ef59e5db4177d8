//! `/proc/PID/stat`: one line, whose second field may hold anything.

use super::{ProcError, ProcFile};
use crate::number::{decimal, words};

const FILE: ProcFile = ProcFile::Stat;
const LIMIT: usize = 64 << 10;

/// The fields that describe the address space; numbers and meaning as in proc(5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    /// 3: state, one letter.
    pub state: u8,
    /// 4: the parent's process id.
    pub parent: u64,
    /// 26
    pub start_code: u64,
    /// 27
    pub end_code: u64,
    /// 28
    pub start_stack: u64,
    /// 45
    pub start_data: u64,
    /// 46
    pub end_data: u64,
    /// 47
    pub start_brk: u64,
    /// 48
    pub arg_start: u64,
    /// 49
    pub arg_end: u64,
    /// 50
    pub env_start: u64,
    /// 51
    pub env_end: u64,
}

/// The line of the calling thread.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn own() -> Result<Stat, ProcError> {
    parse(&super::read(c"/proc/thread-self/stat", FILE, LIMIT)?)
}

/// Parses a whole `stat` file.
///
/// # Errors
/// A line that the kernel would not write.
pub fn parse(bytes: &[u8]) -> Result<Stat, ProcError> {
    fields(bytes).ok_or(ProcError::Malformed { file: FILE })
}

fn fields(bytes: &[u8]) -> Option<Stat> {
    // The name may hold parentheses and spaces, nothing behind it does.
    let name_end = bytes.iter().rposition(|byte| *byte == b')')?;
    let mut words = words(bytes.get(name_end + 1..)?.trim_ascii());
    let state = *words.next()?.first()?;
    let mut at = 3;
    let mut field = |number: usize| {
        let skipped = number.checked_sub(at + 1)?;
        at = number;
        decimal(words.nth(skipped)?)
    };
    Some(Stat {
        state,
        parent: field(4)?,
        start_code: field(26)?,
        end_code: field(27)?,
        start_stack: field(28)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        arg_start: field(48)?,
        arg_end: field(49)?,
        env_start: field(50)?,
        env_end: field(51)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &[u8] = b"7925 (cat) R 7922 7922 6645 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 170855 \
3133440 358 18446744073709551615 94174584336384 94174584356265 140733372225376 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 \
0 94174584372272 94174584373888 94175165702144 140733372230368 140733372230388 140733372230388 \
140733372231659 0\n";

    #[test]
    fn a_real_line_gives_the_layout() {
        let stat = parse(REAL).expect("what a kernel wrote");
        assert_eq!((stat.state, stat.parent), (b'R', 7922));
        assert_eq!(stat.start_code, 94_174_584_336_384);
        assert_eq!(stat.start_stack, 140_733_372_225_376);
        assert_eq!(stat.start_brk, 94_175_165_702_144);
        assert_eq!((stat.arg_end, stat.env_start), (140_733_372_230_388, 140_733_372_230_388));
        assert_eq!(stat.env_end, 140_733_372_231_659);
    }

    #[test]
    fn a_name_cannot_shift_the_fields() {
        let text = core::str::from_utf8(REAL).expect("ascii");
        let renamed = text.replacen("(cat)", "(a) R 1 2 ((x)", 1);
        assert_eq!(parse(renamed.as_bytes()), parse(REAL));
    }

    #[test]
    fn a_short_line_is_an_error() {
        for line in [b"".as_slice(), b"1 (x", b"1 (x) ", b"1 (x) R 1 2 3", b"1 (x) R x"] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
