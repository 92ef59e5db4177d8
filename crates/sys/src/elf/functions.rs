//! The functions that an ELF image in memory exports, found by its dynamic section: the vDSO's, whose image is laid out in
//! memory as in its file.

use alloc::vec::Vec;

use super::{MAX_HEADERS, u16_at, u32_at, u64_at};

/// Symbols and entries of the dynamic section that are looked at; a vDSO has some twenty.
const MAX_ENTRIES: u64 = 1024;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
/// Bytes of a symbol, and of an entry of the dynamic section.
const SYMBOL_BYTES: u64 = 24;
const ENTRY_BYTES: u64 = 16;

/// A function that others may call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function<'a> {
    /// Its name, without the version.
    pub name: &'a [u8],
    /// Where in the image it begins.
    pub at: usize,
}

/// The functions that `image` exports, in the order of its symbols. The linker puts their names right behind them, which is
/// how their number is known. `None` if it is no 64-bit little-endian ELF image, or has no symbols.
#[must_use]
pub fn functions(image: &[u8]) -> Option<Vec<Function<'_>>> {
    if !image.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (mut bias, mut dynamic) = (None, None);
    let (table, entry_size, count) =
        (u64_at(image, 32)?, u64::from(u16_at(image, 54)?), u16_at(image, 56)?.min(MAX_HEADERS));
    for index in 0..u64::from(count) {
        let header = tail(image, table.checked_add(index * entry_size)?)?;
        let (kind, offset, address) = (u32_at(header, 0)?, u64_at(header, 8)?, u64_at(header, 16)?);
        match kind {
            PT_LOAD if bias.is_none() => bias = Some(address.wrapping_sub(offset)),
            PT_DYNAMIC => dynamic = Some((offset, u64_at(header, 32)?)),
            _ => {}
        }
    }
    let (bias, (dynamic, dynamic_bytes)) = (bias?, dynamic?);
    let entry = |wanted: u64| {
        (0..(dynamic_bytes / ENTRY_BYTES).min(MAX_ENTRIES)).find_map(|index| {
            let entry = tail(image, dynamic.checked_add(index * ENTRY_BYTES)?)?;
            (u64_at(entry, 0)? == wanted).then_some(u64_at(entry, 8)?.wrapping_sub(bias))
        })
    };
    let (symbols, names) = (entry(DT_SYMTAB)?, entry(DT_STRTAB)?);
    let count = names.checked_sub(symbols)? / SYMBOL_BYTES;
    let symbol = |index: u64| function(image, tail(image, symbols + index * SYMBOL_BYTES)?, names, bias);
    Some((0..count.min(MAX_ENTRIES)).filter_map(symbol).collect())
}

/// The function that `symbol` stands for, if it is one that is here.
fn function<'a>(image: &'a [u8], symbol: &[u8], names: u64, bias: u64) -> Option<Function<'a>> {
    const FUNCTION: u8 = 2;
    let (name, info, section) = (u32_at(symbol, 0)?, *symbol.get(4)?, u16_at(symbol, 6)?);
    let at = usize::try_from(u64_at(symbol, 8)?.wrapping_sub(bias)).ok()?;
    let name = tail(image, names.checked_add(u64::from(name))?)?;
    let name = name.get(..name.iter().position(|byte| *byte == 0)?)?;
    let is_here = info & 0xf == FUNCTION && section != 0 && at < image.len() && !name.is_empty();
    is_here.then_some(Function { name, at })
}

fn tail(image: &[u8], from: u64) -> Option<&[u8]> {
    image.get(usize::try_from(from).ok()?..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::vdso_record;
    use crate::proc::maps;

    fn image() -> Vec<u8> {
        vdso_record(&maps::own_mappings().expect("readable")).expect("in one row").image
    }

    #[test]
    fn the_vdso_exports_what_a_libc_calls() {
        let image = image();
        let found = functions(&image).expect("an image");
        for name in [&b"__vdso_clock_gettime"[..], b"__vdso_gettimeofday", b"__vdso_time", b"__vdso_getcpu"] {
            assert!(found.iter().any(|function| function.name == name && function.at >= 64), "{found:?}");
        }
    }

    #[test]
    fn what_is_cut_short_or_changed_anywhere_ends_the_search() {
        let image = image();
        assert_eq!(functions(b"#!/bin/sh"), None);
        for len in (0..image.len()).step_by(7) {
            let _ = functions(&image[..len]);
        }
        for at in (0..image.len().min(2048)).step_by(3) {
            let mut changed = image.clone();
            for byte in [0, 0x7f, 0xff] {
                changed[at] = byte;
                for function in functions(&changed).unwrap_or_default() {
                    assert!(function.at < image.len());
                }
            }
        }
    }
}
