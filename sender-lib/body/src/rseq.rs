//! Which restartable sequences a thread has registered, which no kernel interface tells the thread itself.
//!
//! glibc 2.35 and newer exports `__rseq_offset` from ld.so: every thread's area lies that far from its thread
//! pointer. musl registers none.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;

use sys::auxv::entry;
use sys::file;
use sys::own_memory::read_own;
use sys::thread::{self, RseqAnswer};

use crate::arena::Header;

/// The signature before every abort handler that glibc and the kernel's own tests agree on.
pub(crate) const SIGNATURE: u32 = 0x5305_3053;
/// What glibc registered before areas could grow.
const USUAL_LEN: u32 = 32;

/// `AT_BASE`: where ld.so is loaded.
const AT_BASE: u64 = 7;
/// `AT_RSEQ_FEATURE_SIZE` and `AT_RSEQ_ALIGN`.
const AT_FEATURE_SIZE: u64 = 27;
const AT_ALIGN: u64 = 28;

/// What one has to know to ask.
pub(crate) struct Facts {
    /// From the thread pointer to the area, if the libc uses rseq.
    offset: Option<u64>,
    /// A length that a newer libc may have registered.
    long_len: u32,
}

impl Facts {
    /// Keeps the facts where parking threads find them.
    pub(crate) fn store(&self, header: &Header) {
        header.rseq_len.store(self.long_len, SeqCst);
        header.rseq_offset.store(self.offset.unwrap_or(0), SeqCst);
        header.rseq_known.store(u32::from(self.offset.is_some()), SeqCst);
    }

    /// What [`Self::store`] kept.
    pub(crate) fn load(header: &Header) -> Self {
        let known = header.rseq_known.load(SeqCst) != 0;
        Self {
            offset: known.then(|| header.rseq_offset.load(SeqCst)),
            long_len: header.rseq_len.load(SeqCst),
        }
    }

    /// Address and length that the calling thread has registered: where its libc has them, or near its thread pointer
    /// where its own thread-local variables are; a length of 0 if it has an area that was not found.
    pub(crate) fn of_calling_thread(&self, fs_base: u64) -> Option<(u64, u32)> {
        self.of_libc(fs_base).or_else(|| thread::has_rseq().then(|| searched(fs_base)))
    }

    /// Address and length that the calling thread's libc has registered.
    ///
    /// The area's CPU number is negative while nothing is registered; only otherwise is the kernel asked, so that
    /// asking never writes where nobody expects it.
    fn of_libc(&self, fs_base: u64) -> Option<(u64, u32)> {
        const CPU_ID: u64 = 4;
        let at = fs_base.checked_add_signed(self.offset?.cast_signed()).filter(|_| fs_base != 0)?;
        let mut cpu = [0; 4];
        let read = read_own(at.checked_add(CPU_ID)?, &mut cpu).ok()?;
        if read < cpu.len() || i32::from_le_bytes(cpu) < 0 {
            return None;
        }
        let lengths = [USUAL_LEN, self.long_len];
        let registered =
            |len: &u32| *len != 0 && thread::ask_rseq(at, *len, SIGNATURE) == RseqAnswer::Registered;
        lengths.into_iter().find(registered).map(|len| (at, len))
    }
}

/// Asks for every place around the thread pointer. Nothing can be registered by asking: the thread has an area.
fn searched(fs_base: u64) -> (u64, u32) {
    const ALIGNMENT: u64 = 32;
    const BEHIND: u64 = 4096;
    const PLACES: u64 = 1024;
    let mut at = (fs_base & !(ALIGNMENT - 1)).wrapping_add(BEHIND);
    for _ in 0..PLACES {
        if thread::ask_rseq(at, USUAL_LEN, SIGNATURE) == RseqAnswer::Registered {
            return (at, USUAL_LEN);
        }
        at = at.wrapping_sub(ALIGNMENT);
    }
    (1, 0)
}

/// Looks at the auxiliary vector and at ld.so's symbols.
pub(crate) fn discover() -> Facts {
    const LIMIT: usize = 4096;
    let auxv = file::read_file(c"/proc/self/auxv", LIMIT).unwrap_or_default();
    let size = entry(&auxv, AT_FEATURE_SIZE).unwrap_or(0);
    let align = entry(&auxv, AT_ALIGN).unwrap_or(0).max(1);
    let long_len = size.div_ceil(align).saturating_mul(align);
    let offset = entry(&auxv, AT_BASE).filter(|base| *base != 0).and_then(|base| {
        let symbol = Image { base }.symbol(b"__rseq_offset\0")?;
        word(symbol)
    });
    Facts { offset, long_len: u32::try_from(long_len).unwrap_or(0) }
}

fn bytes(at: u64, len: usize) -> Option<Vec<u8>> {
    let mut buffer = alloc::vec![0; len];
    (read_own(at, &mut buffer).ok()? == len).then_some(buffer)
}

fn word(at: u64) -> Option<u64> {
    bytes(at, 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn half(at: u64) -> Option<u16> {
    bytes(at, 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn field(entry: &[u8], at: usize) -> Option<u64> {
    entry.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// A loaded ELF image, read through the kernel so that a strange one is an error and no fault.
struct Image {
    base: u64,
}

impl Image {
    /// The address of the dynamic symbol `name` (with its final zero).
    fn symbol(&self, name: &[u8]) -> Option<u64> {
        const SYMBOL_BYTES: usize = 24;
        const MOST_SYMBOLS: u64 = 4096;
        const DT_STRTAB: u64 = 5;
        const DT_SYMTAB: u64 = 6;
        const DT_STRSZ: u64 = 10;
        const MOST_STRINGS: u64 = 1 << 20;
        let dynamic = self.dynamic()?;
        let strings_at = self.relocated(entry(&dynamic, DT_STRTAB)?);
        let symbols_at = self.relocated(entry(&dynamic, DT_SYMTAB)?);
        let strings_len = entry(&dynamic, DT_STRSZ).filter(|len| *len <= MOST_STRINGS)?;
        // Every linker puts the strings right behind the symbols; nothing else says how many symbols there are
        // but a walk through a hash table.
        let count = (strings_at.checked_sub(symbols_at)? / SYMBOL_BYTES as u64).min(MOST_SYMBOLS);
        let strings = bytes(strings_at, usize::try_from(strings_len).ok()?)?;
        let symbols = bytes(symbols_at, usize::try_from(count).ok()? * SYMBOL_BYTES)?;
        symbols.chunks_exact(SYMBOL_BYTES).find_map(|symbol| {
            let name_at = u32::from_le_bytes(symbol.get(..4)?.try_into().ok()?);
            let found = strings.get(usize::try_from(name_at).ok()?..)?.starts_with(name);
            found.then(|| field(symbol, 8).map(|value| self.base.wrapping_add(value))).flatten()
        })
    }

    /// The dynamic section.
    fn dynamic(&self) -> Option<Vec<u8>> {
        const PROGRAM_HEADERS: u64 = 32;
        const HEADER_BYTES: u64 = 54;
        const HEADER_COUNT: u64 = 56;
        const PT_DYNAMIC: u32 = 2;
        const MOST_BYTES: u64 = 4096;
        let table = self.base + word(self.base + PROGRAM_HEADERS)?;
        let size = half(self.base + HEADER_BYTES)?;
        let count = half(self.base + HEADER_COUNT)?;
        (0..u64::from(count)).find_map(|index| {
            let header = bytes(table + index * u64::from(size), 56)?;
            let kind = u32::from_le_bytes(header.get(..4)?.try_into().ok()?);
            let (at, len) = (field(&header, 16)?, field(&header, 40)?);
            (kind == PT_DYNAMIC)
                .then(|| bytes(self.base + at, usize::try_from(len.min(MOST_BYTES)).ok()?))
                .flatten()
        })
    }

    /// ld.so may or may not have added its base to the addresses in its dynamic section.
    const fn relocated(&self, address: u64) -> u64 {
        if address < self.base { self.base.wrapping_add(address) } else { address }
    }
}
