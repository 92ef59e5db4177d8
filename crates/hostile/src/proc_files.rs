//! What the source reads under `/proc`: names there are other people's, and must not pass for anything else.

use memory::USER_END;
use sys::elf::{self, functions::functions};
use sys::proc::{fdinfo, maps, stat, status, timers};
use sys::{number, signal_name};

/// The first byte chooses the file, the others are its text.
pub fn proc_files(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first() else { return };
    match choice % 7 {
        0 => text.split(|byte| *byte == b'\n').for_each(mapping),
        1 => drop(stat::parse(text)),
        2 => drop(status::parse(text)),
        3 => drop(fdinfo::parse(text)),
        4 => drop(timers::parse(text)),
        5 => words(text),
        _ => elf_image(text),
    }
}

fn mapping(line: &[u8]) {
    if let Ok(Some(mapping)) = maps::parse_line(line) {
        assert!(!mapping.range.is_empty() && mapping.range.end().0 <= USER_END);
        assert!(mapping.path().len() <= line.len());
    }
}

fn words(text: &[u8]) {
    if let Ok(number) = signal_name::number(text) {
        assert!(
            (1..=64).contains(&number) && ![9, 19].contains(&number),
            "no handler can be set for {number}"
        );
    }
    if let Some(found) = number::decimal(text) {
        assert!(text.iter().all(u8::is_ascii_digit), "{found} is not a number");
    }
    if let Some(found) = number::hexadecimal(text) {
        assert!(text.iter().all(u8::is_ascii_hexdigit), "{found} is not a number");
    }
    let _found = (number::field(text, b"Name"), number::number_of(text, b"Pid", 10));
    assert!(number::words(text).all(|word| !word.is_empty()));
}

/// An ELF file of which nothing is true.
fn elf_image(file: &[u8]) {
    let found = elf::build_id(&mut |offset, room| {
        let from = usize::try_from(offset).ok()?;
        let part = file.get(from..from.checked_add(room.len())?)?;
        room.copy_from_slice(part);
        Some(())
    });
    assert!(found.is_none_or(|id| id.len() <= file.len()));
    for function in functions(file).unwrap_or_default() {
        assert!(function.at < file.len() && function.name.len() <= file.len());
    }
}
