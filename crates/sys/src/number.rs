//! Numbers in the kernel's text files: bytes in, nothing allocated, overflow is `None`.

/// The value of `digits`, all of them hexadecimal.
#[must_use]
pub fn hexadecimal(digits: &[u8]) -> Option<u64> {
    value(digits, 16)
}

/// The value of `digits`, all of them decimal.
#[must_use]
pub fn decimal(digits: &[u8]) -> Option<u64> {
    value(digits, 10)
}

pub(crate) fn value(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        sum.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}

/// Line `n` of `text`, counted from 0; empty beyond the end.
#[must_use]
pub fn nth_line(text: &str, n: usize) -> &str {
    let (mut start, mut before) = (0, n);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'\n' {
            if before == 0 {
                return text.get(start..at).unwrap_or_default();
            }
            (start, before) = (at + 1, before - 1);
        }
    }
    if before == 0 { text.get(start..).unwrap_or_default() } else { "" }
}

/// Which of the words of `list` `word` is, counted from 0. A `match` would compare byte by byte.
#[must_use]
pub fn index_of(list: &[u8], word: &[u8]) -> Option<usize> {
    words(list).position(|known| known == word)
}

/// Splits at the first `separator`, which belongs to neither part.
#[must_use]
pub fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

/// The non-empty words of a line.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty())
}

/// The value of the first line `NAME: value` of `text`, without the blanks around it.
#[must_use]
pub fn field<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(b":")?;
        Some(value.trim_ascii())
    })
}

/// The number in the first line `NAME: value` of `text`, or 0 if there is no such line: older kernels have fewer.
/// `None` for a line with anything else.
#[must_use]
pub fn number_of(text: &[u8], name: &[u8], radix: u32) -> Option<u64> {
    field(text, name).map_or(Some(0), |digits| value(digits, radix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_whole_or_not_at_all() {
        assert_eq!(hexadecimal(b"7ffffffff000"), Some(0x7fff_ffff_f000));
        assert_eq!(hexadecimal(b"ffffffffffffffff"), Some(u64::MAX));
        assert_eq!(hexadecimal(b"10000000000000000"), None);
        assert_eq!(decimal(b"18446744073709551616"), None);
        assert_eq!(decimal(b""), None);
        assert_eq!(decimal(b"-1"), None);
        assert_eq!(decimal(b"+1"), None);
        assert_eq!(number_of(b"a: 1\nmask:\t0022\n", b"mask", 8), Some(0o22));
        assert_eq!(number_of(b"mask: 8\n", b"mask", 8), None);
        assert_eq!(number_of(b"masked: 8\n", b"mask", 8), Some(0));
    }
}
