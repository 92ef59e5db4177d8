//! How large the files were that a tree writes: CRIU restores nothing if one of them has another size, which every log
//! has after a while.
//!
//! The image is taken apart as far as that needs and put together again; everything else in it stays as it is.

use std::collections::BTreeSet;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_varint, skip_field};

/// `file_entry.reg`
const REGULAR: u32 = 3;
/// `reg_file_entry.flags`
const FLAGS: u32 = 2;
/// `reg_file_entry.name`
const NAME: u32 = 6;
/// `reg_file_entry.size`
const SIZE: u32 = 8;
/// `O_ACCMODE`, of which 0 is to read only.
const ACCESS: u64 = 3;
/// Bytes of the magic words.
const MAGIC_BYTES: usize = 8;

/// `files.img` without the sizes of files that somebody has open for writing; `None` if it is malformed.
#[must_use]
pub fn forget(image: &[u8]) -> Option<Vec<u8>> {
    let (magic, mut rest) = image.split_at_checked(MAGIC_BYTES)?;
    let (mut entries, mut written) = (Vec::new(), BTreeSet::new());
    while !rest.is_empty() {
        let (len, behind) = rest.split_first_chunk().map(|(len, rest)| (u32::from_le_bytes(*len), rest))?;
        let (entry, behind) = behind.split_at_checked(usize::try_from(len).ok()?)?;
        written.extend(written_name(entry)?);
        entries.push(entry);
        rest = behind;
    }
    let mut out = magic.to_vec();
    for entry in entries {
        let entry = without_size(entry, &written)?;
        out.extend(u32::try_from(entry.len()).ok()?.to_le_bytes());
        out.extend(entry);
    }
    Some(out)
}

/// The name of the file of a `file_entry` that is written; nothing for others.
fn written_name(entry: &[u8]) -> Option<Option<&[u8]>> {
    let Some(field) = fields(entry)?.into_iter().find(Field::is_regular) else { return Some(None) };
    let inner = fields(field.value)?;
    let flags = inner.iter().find(|inner| inner.tag == FLAGS && inner.wire == WireType::Varint);
    let flags = flags.and_then(|flags| decode_varint(&mut { flags.value }).ok());
    let name = inner.iter().find(|inner| inner.tag == NAME).map(|name| name.value);
    Some(name.filter(|_| flags.is_some_and(|flags| flags & ACCESS != 0)))
}

/// A field of a message, with its key and its length.
struct Field<'bytes> {
    tag: u32,
    wire: WireType,
    whole: &'bytes [u8],
    /// Without key and length.
    value: &'bytes [u8],
}

fn fields(mut rest: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let (tag, wire) = decode_key(&mut rest).ok()?;
        let mut value = rest;
        skip_field(wire, tag, &mut rest, DecodeContext::default()).ok()?;
        if wire == WireType::LengthDelimited {
            decode_varint(&mut value).ok()?;
        }
        let whole = start.get(..start.len() - rest.len())?;
        all.push(Field { tag, wire, whole, value: value.get(..value.len() - rest.len())? });
    }
    Some(all)
}

impl Field<'_> {
    fn is_regular(&self) -> bool {
        self.tag == REGULAR && self.wire == WireType::LengthDelimited
    }
}

/// A `file_entry`, without the size of a file that is among those which are `written`.
fn without_size(entry: &[u8], written: &BTreeSet<&[u8]>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for field in fields(entry)? {
        if !field.is_regular() {
            out.extend(field.whole);
            continue;
        }
        let inner = fields(field.value)?;
        let is_written = inner.iter().any(|inner| inner.tag == NAME && written.contains(inner.value));
        let kept = inner.iter().filter(|inner| !(is_written && inner.tag == SIZE));
        let kept: Vec<u8> = kept.flat_map(|inner| inner.whole).copied().collect();
        encode_varint(u64::from(REGULAR << 3 | 2), &mut out);
        encode_varint(kept.len() as u64, &mut out);
        out.extend(kept);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with one file of 300 bytes.
    fn image(flags: u8) -> Vec<u8> {
        let regular = [0x08, 5, 0x10, flags, 0x32, 1, b'f', 0x40, 0xac, 0x02, 0x50, 7];
        let mut entry = vec![0x08, 1, 0x10, 5, 0x1a, 12];
        entry.extend(regular);
        let mut image = vec![9; MAGIC_BYTES];
        image.extend(u32::try_from(entry.len()).expect("short").to_le_bytes());
        image.extend(entry);
        image
    }

    #[test]
    fn only_what_is_written_has_no_size_any_more() {
        assert_eq!(forget(&image(0)), Some(image(0)));
        let (mut both, behind) = (image(0), image(1));
        both.extend(&behind[MAGIC_BYTES..]);
        assert_eq!(
            forget(&both).map(|both| both.len()),
            Some(image(0).len() + behind.len() - MAGIC_BYTES - 6)
        );
        let forgotten = forget(&image(1)).expect("well formed");
        assert_eq!(forgotten.len(), image(1).len() - 3);
        assert_eq!(
            forgotten.get(12..),
            Some(&[0x08, 1, 0x10, 5, 0x1a, 9, 0x08, 5, 0x10, 1, 0x32, 1, b'f', 0x50, 7][..])
        );
    }

    #[test]
    fn what_is_cut_short_is_malformed() {
        let whole = image(1);
        for len in [3, 10, 15, whole.len() - 1] {
            assert_eq!(forget(&whole[..len]), None, "{len}");
        }
    }
}
