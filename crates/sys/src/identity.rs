//! Whether a file, a processor and a kernel are the same on two machines.
//!
//! Both sides call the same functions; the source sends what it found, the destination compares.

use alloc::vec::Vec;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use core::ffi::CStr;

use memory::{Addr, PageRange};
use protocol::{FileProof, FileRecord, VdsoRecord, XsaveLayout};

use crate::number::index_of;
use crate::path::KernelPath;
use crate::proc::maps::Mapping;
use crate::status::{self, FileStatus};
use crate::xxh64::Xxh64;
use crate::{Errno, Fd, elf, file, own_memory};

/// Bytes hashed at a time, whole stripes.
const HASH_STEP: usize = 256 << 10;

/// The record of the file at `path`; with `mapped`, its proof is its build id or a hash of its content,
/// otherwise [`FileProof::None`].
///
/// # Errors
/// `ENOENT` for a path with a NUL byte, otherwise those of open(2), statx(2) and read(2).
pub fn file_record(path: &[u8], mapped: bool) -> Result<FileRecord, Errno> {
    let name = KernelPath::new(path)?;
    let (status, proof) = if mapped {
        let fd = file::open(name.as_c_str(), file::READ_ONLY)?;
        (status::of_fd(&fd)?, file_proof(&fd)?)
    } else {
        (status::of_path(name.as_c_str())?, FileProof::None)
    };
    Ok(record(path, &status, proof))
}

/// The record of a file whose status is known.
#[must_use]
pub fn record(path: &[u8], status: &FileStatus, proof: FileProof) -> FileRecord {
    FileRecord {
        path: path.to_vec(),
        size: status.size,
        identity: (status.device.number(), status.inode),
        proof,
    }
}

/// What proves that another machine's file is the one that `fd` is open on: its build id if it is an ELF
/// file that has one, otherwise a hash of its whole content.
///
/// # Errors
/// Those of pread(2).
pub fn file_proof(fd: &Fd) -> Result<FileProof, Errno> {
    match elf::build_id(&mut |offset, buffer| file::read_exact_at(fd, buffer, offset).ok()) {
        Some(id) => Ok(FileProof::BuildId(id)),
        None => content_hash(fd).map(FileProof::Content),
    }
}

/// XXH64 of the whole content with the seeds 0 and 1, each big endian as `xxh64sum` prints it. (XXH3 with 128 bits is
/// faster, and 3 KiB larger in the parasite; a file is hashed once, before anything stops.)
///
/// # Errors
/// Those of pread(2).
pub fn content_hash(fd: &Fd) -> Result<[u8; 16], Errno> {
    let mut hashes = [Xxh64::new(0), Xxh64::new(1)];
    let mut buffer = alloc::vec![0; HASH_STEP];
    let (mut offset, mut filled) = (0_u64, 0);
    loop {
        let got = match file::read_at(fd, buffer.get_mut(filled..).unwrap_or_default(), offset) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        filled += got;
        offset = offset.saturating_add(got as u64);
        let piece = buffer.get(..filled).unwrap_or_default();
        if got == 0 {
            let [first, second] = hashes.each_mut().map(|hash| u128::from(hash.finish(piece)));
            return Ok((first << 64 | second).to_be_bytes());
        }
        if filled == HASH_STEP {
            for hash in &mut hashes {
                hash.take(piece);
            }
            filled = 0;
        }
    }
}

/// The identity of the running kernel: `/proc/sys/kernel/random/boot_id`.
///
/// # Errors
/// Those of open(2) and read(2); `EINVAL` if the file does not hold a UUID.
pub fn boot_id() -> Result<[u8; 16], Errno> {
    const PATH: &CStr = c"/proc/sys/kernel/random/boot_id";
    uuid(&file::read_file(PATH, 64)?).ok_or(Errno::EINVAL)
}

/// A UUID in its usual spelling.
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut digits =
        text.trim_ascii().iter().filter(|byte| **byte != b'-').map(|byte| char::from(*byte).to_digit(16));
    let mut id = [0; 16];
    for byte in &mut id {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    digits.next().is_none().then_some(id)
}

/// How this processor and kernel lay out the extended registers in a signal frame, and what programs may
/// have found that the processor can do.
#[must_use]
pub fn xsave_layout() -> XsaveLayout {
    const OSXSAVE: u32 = 1 << 27;
    let (basic, extended) = (__cpuid_count(1, 0), __cpuid_count(7, 0));
    let features = [basic.ecx, basic.edx, extended.ebx, extended.ecx, extended.edx];
    if basic.ecx & OSXSAVE == 0 {
        return XsaveLayout { components: 0b11, size: 512, features };
    }
    XsaveLayout { components: xcr0(), size: __cpuid_count(0xd, 0).ebx, features }
}

/// The extended control register 0; only with `OSXSAVE`.
fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the only caller has checked OSXSAVE, without which the instruction faults; it reads a register
    // and touches no memory and no flags.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Where among `mappings`, those of this process, the vDSO and its data pages are, and which build it is.
/// `None` when the pieces do not lie in one row, vDSO last, as the kernel puts them.
#[must_use]
pub fn vdso_record(mappings: &[Mapping]) -> Option<VdsoRecord> {
    let mut pieces = mappings.iter().filter(|mapping| is_vdso(mapping)).peekable();
    let Some(first) = pieces.peek() else {
        return Some(VdsoRecord {
            range: PageRange::new(Addr(0), Addr(0))?,
            code: Addr(0),
            image: Vec::new(),
        });
    };
    let start = first.range.start();
    let mut end = start;
    let mut code = None;
    for piece in pieces {
        if piece.range.start() != end || code.is_some() {
            return None;
        }
        end = piece.range.end();
        code = (piece.name == b"[vdso]").then_some(end).map(|_| piece.range.start());
    }
    let code = code?;
    let mut image = alloc::vec![0; usize::try_from(end.0 - code.0).ok()?];
    let is_read = own_memory::read_own(code.0, &mut image) == Ok(image.len());
    Some(VdsoRecord { range: PageRange::new(start, end)?, code, image }).filter(|_| is_read)
}

/// Whether the kernel made this mapping for the vDSO.
#[must_use]
pub fn is_vdso(mapping: &Mapping) -> bool {
    index_of(b"[vdso] [vvar] [vvar_vclock]", &mapping.name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::maps;

    #[test]
    fn the_vdso_is_found_with_its_image() {
        let mappings = maps::own_mappings().expect("readable");
        let vdso = vdso_record(&mappings).expect("in one row");
        assert!(vdso.range.contains(vdso.code));
        assert!(vdso.image.starts_with(b"\x7fELF"));
        assert_eq!(vdso.code.0 + vdso.image.len() as u64, vdso.range.end().0);
    }

    #[test]
    fn pieces_apart_are_not_a_vdso() {
        let mut mappings = maps::own_mappings().expect("readable");
        let first = mappings.iter_mut().find(|mapping| is_vdso(mapping)).expect("there is one");
        first.range = PageRange::from_pages(Addr(0x1000), 1).expect("a page");
        mappings.sort_by_key(|mapping| mapping.range);
        assert_eq!(vdso_record(&mappings), None);
    }

    #[test]
    fn the_layout_holds_at_least_the_legacy_area_and_sse() {
        let layout = xsave_layout();
        assert_eq!(layout.components & 0b11, 0b11);
        assert!(layout.size >= 512);
    }

    #[test]
    fn a_boot_id_is_sixteen_bytes() {
        assert_eq!(boot_id(), boot_id());
        assert_eq!(uuid(b"00112233-4455-6677-8899-aabbccddeeff\n").map(|id| id[1]), Some(0x11));
        assert_eq!(uuid(b"0011"), None);
        assert_eq!(uuid(b"00112233-4455-6677-8899-aabbccddeefg"), None);
    }

    #[test]
    fn a_script_is_proven_by_its_content() {
        let path = alloc::format!("/tmp/posthaste-identity-{}", std::process::id());
        std::fs::write(&path, b"abc").expect("writable");
        let record = file_record(path.as_bytes(), true).expect("readable");
        std::fs::remove_file(&path).expect("ours");
        assert_eq!(record.size, 3);
        // The first half is `printf abc | xxh64sum`.
        let expected = 0x44bc_2cf5_ad77_0999_bea9_ca81_9932_8908_u128.to_be_bytes();
        assert_eq!(record.proof, FileProof::Content(expected));
    }
}
