//! `/proc/PID/stat`: one line, whose second field may hold anything.

use alloc::format;

use protocol::MmFields;

use super::{ProcError, ProcFile};
use crate::file;
use crate::number::{decimal, words};
use crate::path::KernelPath;

const FILE: ProcFile = ProcFile::Stat;
const LIMIT: usize = 64 << 10;

/// Where the parts of the calling process's address space are; the end of the heap is not in there and stays 0.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn own() -> Result<MmFields, ProcError> {
    parse(&super::read(c"/proc/thread-self/stat", FILE, LIMIT)?)
}

/// The processor on which a thread runs, or ran last, by its whole `stat` file.
#[must_use]
pub fn processor(bytes: &[u8]) -> Option<u32> {
    /// Fields between the name and `processor`.
    const BEFORE: usize = 36;
    let name_end = bytes.iter().rposition(|byte| *byte == b')')?;
    let processor = words(bytes.get(name_end + 1..)?).nth(BEFORE)?;
    u32::try_from(decimal(processor)?).ok()
}

/// The same of thread `tid` of process `pid`; none if there is no such thread.
#[must_use]
pub fn processor_of(pid: u32, tid: u32) -> Option<u32> {
    let path = KernelPath::new(format!("/proc/{pid}/task/{tid}/stat").as_bytes()).ok()?;
    processor(&file::read_file(path.as_c_str(), LIMIT).ok()?)
}

/// Parses a whole `stat` file.
///
/// # Errors
/// A line that the kernel would not write.
pub fn parse(bytes: &[u8]) -> Result<MmFields, ProcError> {
    fields(bytes).ok_or(ProcError::Malformed { file: FILE })
}

fn fields(bytes: &[u8]) -> Option<MmFields> {
    // The name may hold parentheses and spaces, nothing behind it does.
    let name_end = bytes.iter().rposition(|byte| *byte == b')')?;
    let mut values = [0; 10];
    let mut slots = values.iter_mut();
    // Numbers and meaning of the fields as in proc(5); the first behind the name is the third.
    for (number, word) in (3_u32..).zip(words(bytes.get(name_end + 1..)?)) {
        if matches!(number, 26..=28 | 45..=51) {
            *slots.next()? = decimal(word)?;
        }
    }
    if slots.next().is_some() {
        return None;
    }
    let [start_code, end_code, start_stack, start_data, end_data, start_brk, arguments @ ..] = values;
    let [arg_start, arg_end, env_start, env_end] = arguments;
    Some(MmFields {
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk,
        brk: 0,
        start_stack,
        arg_start,
        arg_end,
        env_start,
        env_end,
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
        assert_eq!(stat.start_code, 94_174_584_336_384);
        assert_eq!(stat.start_stack, 140_733_372_225_376);
        assert_eq!(processor(REAL), Some(1));
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
