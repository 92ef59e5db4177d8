//! `/proc/PID/maps`: one line for each mapping.

use alloc::vec::Vec;

use memory::{Addr, PageRange, Protection, Sharing};

use super::{ProcError, ProcFile};
use crate::number::{decimal, hexadecimal, split_once};
use crate::status::Device;

const FILE: ProcFile = ProcFile::Maps;

/// One mapping of user space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Where it is.
    pub range: PageRange,
    /// What the program may do with it.
    pub protection: Protection,
    /// Who sees writes.
    pub sharing: Sharing,
    /// Offset of the first byte in the file or object.
    pub offset: u64,
    /// Device of the file or object; 0:0 for anonymous memory.
    pub device: Device,
    /// Inode of the file or object; 0 for anonymous memory.
    pub inode: u64,
    /// Path, `[label]`, or nothing; newlines are bytes again, `" (deleted)"` is still there.
    pub name: Vec<u8>,
}

/// What the kernel puts behind the path of an unlinked file.
const DELETED: &[u8] = b" (deleted)";

impl Mapping {
    /// Whether the file or object has no name any more; shared-memory objects never have one.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.name.ends_with(DELETED)
    }

    /// The name without the kernel's remark that the file is deleted.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.name.strip_suffix(DELETED).unwrap_or(&self.name)
    }
}

/// The mappings of the calling process, ascending; what lies beyond user space (vsyscall) is left out.
///
/// Reads through the calling thread, because the main thread may have exited.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn own_mappings() -> Result<Vec<Mapping>, ProcError> {
    let mut mappings = Vec::new();
    super::for_each_line(c"/proc/thread-self/maps", FILE, &mut |line| {
        if let Some(mapping) = parse_line(line)? {
            append(&mut mappings, mapping);
        }
        Ok(())
    })?;
    Ok(mappings)
}

/// A mapping that has grown while the file was read appears a second time, over its neighbours of before.
pub(super) fn append(mappings: &mut Vec<Mapping>, mapping: Mapping) {
    while mappings.pop_if(|before| before.range.end() > mapping.range.start()).is_some() {}
    mappings.push(mapping);
}

/// Parses one line without its newline; `None` for a mapping beyond user space.
///
/// # Errors
/// A line that the kernel would not write.
pub fn parse_line(line: &[u8]) -> Result<Option<Mapping>, ProcError> {
    let malformed = ProcError::Malformed { file: FILE };
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut field = || fields.next().ok_or(malformed);
    let (addresses, permissions, offset, device, inode) = (field()?, field()?, field()?, field()?, field()?);
    let name = field().unwrap_or_default().trim_ascii_start();

    let (start, end) = split_once(addresses, b'-')
        .and_then(|(start, end)| Some((hexadecimal(start)?, hexadecimal(end)?)))
        .ok_or(malformed)?;
    let range = PageRange::new(Addr(start), Addr(end)).filter(|range| !range.is_empty());
    let Some(range) = range else { return Ok(None) };
    let (protection, sharing) = access(permissions).ok_or(malformed)?;
    let device = split_once(device, b':')
        .and_then(|(major, minor)| Some(Device::new(hexadecimal(major)?, hexadecimal(minor)?)))
        .ok_or(malformed)?;
    Ok(Some(Mapping {
        range,
        protection,
        sharing,
        offset: hexadecimal(offset).ok_or(malformed)?,
        device,
        inode: decimal(inode).ok_or(malformed)?,
        name: without_escapes(name),
    }))
}

fn access(letters: &[u8]) -> Option<(Protection, Sharing)> {
    let &[r, w, x, s] = letters else { return None };
    let sharing = match s {
        b'p' => Sharing::Private,
        b's' => Sharing::Shared,
        _ => return None,
    };
    Some((Protection { read: r == b'r', write: w == b'w', execute: x == b'x' }, sharing))
}

/// Undoes the only escape that the kernel uses here: a newline is written as backslash 012.
pub(crate) fn without_escapes(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((byte, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            plain.push(b'\n');
            rest = tail;
        } else {
            plain.push(*byte);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &[u8] = b"\
560b0d536000-560b0d53b000 r-xp 00002000 fe:00 247030                     /usr/bin/cat
560b1b3b7000-560b1b3d8000 rw-p 00000000 00:00 0                          [heap]
7fa436580000-7fa4365a2000 rw-p 00000000 00:00 0 
7fa4365f0000-7fa4365f1000 rw-s 00000000 00:01 5120                       /memfd:a b (deleted) (deleted)
7ffc36b3c000-7ffc36b5d000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn a_real_file_gives_every_user_mapping() {
        let lines = REAL.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mappings: Vec<Mapping> =
            lines.filter_map(|line| parse_line(line).expect("what a kernel wrote")).collect();
        let names: Vec<&[u8]> = mappings.iter().map(|m| m.name.as_slice()).collect();
        assert_eq!(
            names,
            [b"/usr/bin/cat".as_slice(), b"[heap]", b"", b"/memfd:a b (deleted) (deleted)", b"[stack]"]
        );
        let text = mappings.first().expect("the first line");
        assert_eq!((text.offset, text.inode, text.device), (0x2000, 247_030, Device::new(0xfe, 0)));
        assert_eq!((text.protection.bits(), text.sharing), (5, Sharing::Private));
        let object = mappings.get(3).expect("the memfd");
        assert!(object.is_deleted());
        assert_eq!((object.path(), object.sharing), (b"/memfd:a b (deleted)".as_slice(), Sharing::Shared));
    }

    #[test]
    fn of_a_mapping_that_is_there_twice_the_later_one_counts() {
        let mut mappings = Vec::new();
        let lines: [&[u8]; 4] = [
            b"1000-2000 rw-p 00000000 00:00 0 ",
            b"3000-4000 rw-p 00000000 00:00 0 ",
            b"4000-5000 r--p 00000000 00:00 0 ",
            b"3000-6000 rw-p 00000000 00:00 0 ",
        ];
        for line in lines {
            append(&mut mappings, parse_line(line).expect("well formed").expect("in user space"));
        }
        let starts: Vec<u64> = mappings.iter().map(|mapping| mapping.range.start().0).collect();
        assert_eq!(starts, [0x1000, 0x3000]);
    }

    #[test]
    fn a_path_may_hold_spaces_and_newlines() {
        let line = b"1000-2000 r--p 00000000 00:00 1    /tmp/two  words\\012and a line\\01";
        let mapping = parse_line(line).expect("well formed").expect("in user space");
        assert_eq!(mapping.name, b"/tmp/two  words\nand a line\\01");
    }

    #[test]
    fn a_very_long_path_is_kept_whole() {
        let mut line = b"1000-2000 r--p 00000000 00:00 1 /".to_vec();
        line.resize(line.len() + 100_000, b'x');
        let mapping = parse_line(&line).expect("well formed").expect("in user space");
        assert_eq!(mapping.name.len(), 100_001);
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_mapping() {
        for line in [
            b"".as_slice(),
            b"1000-2000",
            b"1000-2000 r--p 0 00:00",
            b"1000 r--p 0 00:00 0",
            b"1000-2000 r-- 0 00:00 0",
            b"1000-2000 r--q 0 00:00 0",
            b"1000-2000 r--p zz 00:00 0",
            b"1000-2000 r--p 0 0000 0",
            b"1000-2000 r--p 0 00:00 x",
            b"10000000000000000-2 r--p 0 00:00 0",
        ] {
            assert!(parse_line(line).is_err(), "{line:?}");
        }
        assert_eq!(parse_line(b"1001-2000 r--p 0 00:00 0"), Ok(None), "not a range of pages");
    }

    #[test]
    fn this_process_has_a_stack() {
        let mappings = own_mappings().expect("readable");
        assert!(mappings.iter().any(|mapping| mapping.name == b"[stack]"));
    }
}
