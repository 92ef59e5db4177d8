//! From a linked shared object to a packed image: what of it is in memory, and nothing that only a loader wants.

use std::io::Write as _;

use lzma_rust2::{EncodeMode, LzmaOptions, LzmaWriter, MfType};

use crate::{PAGE_BYTES, branches, lzma, relocations};

/// Why a file cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum NotPackable {
    /// It is not what a linker makes.
    #[error("this is no shared object for x86_64 with sections: {0}")]
    Malformed(&'static str),
    /// It needs what nobody gives it where it is unpacked.
    #[error("it needs a loader: {0}")]
    NeedsLoader(&'static str),
    /// Its parts lie as the format cannot say.
    #[error("its memory cannot be laid out: {0}")]
    Layout(&'static str),
    /// The encoder does not work.
    #[error("compressing: {0}")]
    Compressing(#[from] std::io::Error),
}

use NotPackable::{Layout, Malformed, NeedsLoader};

/// Packs the shared object `elf`.
///
/// # Errors
/// It is none, imports something, has thread-local variables or constructors, or mixes code with data in one page.
pub fn pack(elf: &[u8]) -> Result<Vec<u8>, NotPackable> {
    let elf = Elf(elf);
    let sections = elf.sections()?;
    let mut image = elf.image(&sections)?;
    let (start, end) = code(&sections)?;
    let variables = elf.end_of_relocated()?.max(end);
    let entry = elf.number::<8>(24)?;
    let relocations = image.len().max(variables);
    image.resize(relocations, 0);
    let words = elf.relocate(&sections, &mut image)?;
    if words.iter().any(|word| (start..end).contains(word)) {
        return Err(Layout("its code has to be relocated"));
    }
    image.extend(relocations::list(&words).ok_or(Layout("an address is not at a whole word"))?);
    image.resize(image.len().next_multiple_of(PAGE_BYTES), 0);
    let len = image.len();
    branches::filter(image.get_mut(start..end).ok_or(Malformed("its code is outside"))?, start, len);
    let mut packed = Vec::new();
    for number in [len, start, end, variables, entry, relocations] {
        let number = u32::try_from(number).map_err(|_| Layout("it is larger than 4 GiB"))?;
        packed.extend(number.to_le_bytes());
    }
    compress(&image, packed)
}

/// At least as large as any image that is worth packing.
const DICTIONARY_BYTES: u32 = 1 << 20;

/// Adds the compressed `image` to `packed`.
pub(crate) fn compress(image: &[u8], packed: Vec<u8>) -> Result<Vec<u8>, NotPackable> {
    let options = LzmaOptions {
        dict_size: DICTIONARY_BYTES,
        lc: lzma::LITERAL_CONTEXT,
        lp: 0,
        pb: 0,
        mode: EncodeMode::Normal,
        nice_len: LzmaOptions::NICE_LEN_MAX,
        mf: MfType::Bt4,
        depth_limit: 1000,
        preset_dict: None,
    };
    let mut writer = LzmaWriter::new_no_header(packed, &options, false)?;
    writer.write_all(image)?;
    Ok(writer.finish()?)
}

/// The pages of code.
fn code(sections: &[Section]) -> Result<(usize, usize), NotPackable> {
    let pages =
        |section: &Section| (section.at & !(PAGE_BYTES - 1), section.end().next_multiple_of(PAGE_BYTES));
    let executable = || sections.iter().filter(|section| section.flags & Section::EXECUTABLE != 0).map(pages);
    let start = executable().map(|(start, _)| start).min().ok_or(Malformed("no code"))?;
    let end = executable().map(|(_, end)| end).max().ok_or(Malformed("no code"))?;
    let data = sections.iter().filter(|section| section.flags & Section::EXECUTABLE == 0 && section.len != 0);
    if data.map(pages).any(|(from, to)| from < end && start < to) {
        return Err(Layout("code and data share a page"));
    }
    Ok((start, end))
}

/// A section that is in memory (`Elf64_Shdr`).
struct Section {
    kind: usize,
    flags: usize,
    at: usize,
    in_file: usize,
    len: usize,
}

impl Section {
    const BYTES: usize = 64;
    // sh_flags
    const IN_MEMORY: usize = 2;
    const EXECUTABLE: usize = 4;
    const THREAD_LOCAL: usize = 0x400;
    // sh_type
    const CONTENT: usize = 1;
    const RELOCATIONS: usize = 4;
    const NO_BITS: usize = 8;
    const CONSTRUCTORS: std::ops::RangeInclusive<usize> = 14..=16;

    const fn end(&self) -> usize {
        self.at + self.len
    }
}

/// A file of the class ELF64.
struct Elf<'a>(&'a [u8]);

impl Elf<'_> {
    fn bytes(&self, at: usize, len: usize) -> Result<&[u8], NotPackable> {
        at.checked_add(len).and_then(|end| self.0.get(at..end)).ok_or(Malformed("it is cut off"))
    }

    fn number<const BYTES: usize>(&self, at: usize) -> Result<usize, NotPackable> {
        Ok(self.bytes(at, BYTES)?.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    /// What is in memory.
    fn sections(&self) -> Result<Vec<Section>, NotPackable> {
        const SHARED_OBJECT: usize = 3;
        const X86_64: usize = 62;
        if self.bytes(0, 6)? != b"\x7fELF\x02\x01" || self.number::<2>(18)? != X86_64 {
            return Err(Malformed("another magic number or machine"));
        }
        if self.number::<2>(16)? != SHARED_OBJECT {
            return Err(Malformed("another type of file"));
        }
        let (table, count) = (self.number::<8>(40)?, self.number::<2>(60)?);
        let mut sections = Vec::new();
        for at in (0..count).map(|index| table + index * Section::BYTES) {
            self.bytes(at, Section::BYTES)?;
            let section = Section {
                kind: self.number::<4>(at + 4)?,
                flags: self.number::<8>(at + 8)?,
                at: self.number::<8>(at + 16)?,
                in_file: self.number::<8>(at + 24)?,
                len: self.number::<8>(at + 32)?,
            };
            if section.flags & Section::IN_MEMORY == 0 {
                continue;
            }
            if section.flags & Section::THREAD_LOCAL != 0 {
                return Err(NeedsLoader("it has thread-local variables"));
            }
            if Section::CONSTRUCTORS.contains(&section.kind) {
                return Err(NeedsLoader("it has constructors"));
            }
            sections.push(section);
        }
        Ok(sections)
    }

    /// Its memory from address 0 on. What is there only for a loader (symbols, the dynamic section) is zero.
    fn image(&self, sections: &[Section]) -> Result<Vec<u8>, NotPackable> {
        let mut image = Vec::new();
        for section in sections {
            if !matches!(section.kind, Section::CONTENT | Section::NO_BITS) {
                continue;
            }
            image.resize(image.len().max(section.end()), 0);
            if section.kind == Section::CONTENT {
                let place =
                    image.get_mut(section.at..section.end()).ok_or(Malformed("a section of no place"))?;
                place.copy_from_slice(self.bytes(section.in_file, section.len)?);
            }
        }
        Ok(image)
    }

    /// Behind what is written by a loader only (`PT_GNU_RELRO`).
    fn end_of_relocated(&self) -> Result<usize, NotPackable> {
        const SEGMENT_BYTES: usize = 56;
        const RELOCATED: usize = 0x6474_e552;
        let (table, count) = (self.number::<8>(32)?, self.number::<2>(56)?);
        let mut end = 0;
        for at in (0..count).map(|index| table + index * SEGMENT_BYTES) {
            if self.number::<4>(at)? == RELOCATED {
                end = (self.number::<8>(at + 16)? + self.number::<8>(at + 40)?).next_multiple_of(PAGE_BYTES);
            }
        }
        Ok(end)
    }

    /// Writes the offsets that addresses point to into the image; returns where, ascending.
    fn relocate(&self, sections: &[Section], image: &mut [u8]) -> Result<Vec<usize>, NotPackable> {
        const ENTRY_BYTES: usize = 24;
        const RELATIVE: usize = 8;
        let mut words = Vec::new();
        for section in sections.iter().filter(|section| section.kind == Section::RELOCATIONS) {
            for at in (0..section.len / ENTRY_BYTES).map(|index| section.in_file + index * ENTRY_BYTES) {
                if self.number::<8>(at + 8)? != RELATIVE {
                    return Err(NeedsLoader("it imports something"));
                }
                let word = self.number::<8>(at)?;
                let place = image.get_mut(word..word + 8).ok_or(Malformed("an address of no place"))?;
                place.copy_from_slice(self.bytes(at + 16, 8)?);
                words.push(word);
            }
        }
        words.sort_unstable();
        Ok(words)
    }
}
