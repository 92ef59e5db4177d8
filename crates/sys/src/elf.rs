//! The GNU build id of an ELF image, found by its program headers: section headers may be stripped, and the
//! vDSO has none in memory.

pub mod functions;

use alloc::vec::Vec;

/// Program headers that are looked at; the kernel itself takes no more than a page of them.
const MAX_HEADERS: u16 = 128;
/// Bytes of one note segment that are read.
const MAX_NOTES: u64 = 64 << 10;
/// Bytes of a build id: SHA-1 has 20, what `--build-id=0x…` gives may be longer.
const MAX_BUILD_ID: usize = 64;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

/// The build id of the image that `read_at(offset, buffer)` reads; `None` if it is no 64-bit little-endian
/// ELF image, or has none. `read_at` fills the whole buffer and returns `Some`, or returns `None`.
pub fn build_id(read_at: &mut dyn FnMut(u64, &mut [u8]) -> Option<()>) -> Option<Vec<u8>> {
    let mut header = [0; 64];
    read_at(0, &mut header)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, entry_size, count) = (u64_at(&header, 32)?, u16_at(&header, 54)?, u16_at(&header, 56)?);
    for index in 0..count.min(MAX_HEADERS) {
        let mut entry = [0; 56];
        read_at(table.checked_add(u64::from(index) * u64::from(entry_size))?, &mut entry)?;
        if u32_at(&entry, 0)? != PT_NOTE {
            continue;
        }
        let (offset, size, align) = (u64_at(&entry, 8)?, u64_at(&entry, 32)?, u64_at(&entry, 48)?);
        let mut notes = alloc::vec![0; usize::try_from(size.min(MAX_NOTES)).ok()?];
        read_at(offset, &mut notes)?;
        if let Some(id) = build_id_note(&notes, if align == 8 { 8 } else { 4 }) {
            return Some(id);
        }
    }
    None
}

/// The build id among `notes`, whose parts are padded to `align` bytes.
fn build_id_note(mut notes: &[u8], align: usize) -> Option<Vec<u8>> {
    loop {
        let (name_size, size, kind) = (u32_at(notes, 0)?, u32_at(notes, 4)?, u32_at(notes, 8)?);
        let (name_size, size) = (usize::try_from(name_size).ok()?, usize::try_from(size).ok()?);
        let body = notes.get(12..)?;
        let at = name_size.checked_next_multiple_of(align)?;
        let content = body.get(at..at.checked_add(size)?)?;
        if kind == NT_GNU_BUILD_ID && body.get(..name_size)? == b"GNU\0" {
            return (1..=MAX_BUILD_ID).contains(&size).then(|| content.to_vec());
        }
        notes = body.get(at.checked_add(size.checked_next_multiple_of(align)?)?..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF image with one note segment of `notes`.
    fn image(notes: &[u8]) -> Vec<u8> {
        let mut bytes = alloc::vec![0; 120];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"\x7fELF\x02\x01");
        put(32, &64_u64.to_le_bytes());
        put(54, &56_u16.to_le_bytes());
        put(56, &1_u16.to_le_bytes());
        put(64, &PT_NOTE.to_le_bytes());
        put(72, &120_u64.to_le_bytes());
        put(96, &(notes.len() as u64).to_le_bytes());
        put(112, &4_u64.to_le_bytes());
        bytes.extend_from_slice(notes);
        bytes
    }

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [u32::try_from(name.len()), u32::try_from(content.len()), Ok(kind)] {
            bytes.extend_from_slice(&number.expect("small").to_le_bytes());
        }
        for part in [name, content] {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn find(image: &[u8]) -> Option<Vec<u8>> {
        build_id(&mut |offset, buffer| {
            let from = usize::try_from(offset).ok()?;
            buffer.copy_from_slice(image.get(from..from.checked_add(buffer.len())?)?);
            Some(())
        })
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let notes = [note(b"GNU\0", 5, b"property"), note(b"Go\0\0", 3, b"no"), note(b"GNU\0", 3, b"odd")];
        assert_eq!(find(&image(&notes.concat())), Some(b"odd".to_vec()));
    }

    #[test]
    fn an_image_without_a_build_id_has_none() {
        assert_eq!(find(&image(&note(b"GNU\0", 1, b"abi"))), None);
        assert_eq!(find(b"#!/bin/sh"), None);
    }

    #[test]
    fn hostile_sizes_end_the_search() {
        for size in [0_u32, 65, 0x7fff_ffff, u32::MAX] {
            let mut notes = note(b"GNU\0", 3, b"id__");
            notes[4..8].copy_from_slice(&size.to_le_bytes());
            assert_eq!(find(&image(&notes)), None, "{size}");
            notes[0..4].copy_from_slice(&size.to_le_bytes());
            assert_eq!(find(&image(&notes)), None, "{size}");
        }
        let mut far = image(&[]);
        far[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(find(&far), None);
    }
}
