//! The kernel's code page. That of the same build is mapped where the program's was. Of another build, the program keeps
//! its own as ordinary memory, because it has called into it by address since it began, and each function there goes on in the
//! same function of the vDSO here, which is mapped elsewhere, or is a system call.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use memory::{Addr, PAGE_SIZE, PageRange};
use nix::libc;
use protocol::VdsoRecord;
use sys::elf::functions::{Function, functions};
use sys::proc::maps;

use super::{BlankChild, RestoreError, Step};

/// Bytes of the largest vDSO that is taken.
const MOST_BYTES: u64 = 1 << 20;

/// What becomes of the program's vDSO.
#[derive(Debug)]
pub(super) enum Vdso {
    /// It has none.
    None,
    /// The same is here.
    Same(VdsoRecord),
    /// Its own becomes ordinary memory.
    Other {
        /// Where it is and what is in it.
        theirs: VdsoRecord,
        /// What its functions become, by their places.
        detours: BTreeMap<usize, Detour>,
        /// Whether the one that is here is needed.
        needs_ours: bool,
    },
}

/// Where a function goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Detour {
    /// At this place of the vDSO that is here.
    Ours(usize),
    /// As this system call.
    Call(u32),
    /// As getrandom(2), which has more to say.
    Random,
    /// Nowhere: it returns `-ENOSYS`.
    Nowhere,
}

impl Vdso {
    /// What becomes of `theirs`, where `ours` is here.
    ///
    /// # Errors
    /// [`RestoreError::Vdso`]: it is not what a vDSO looks like.
    pub(super) fn of(theirs: &VdsoRecord, ours: Option<&VdsoRecord>) -> Result<Self, RestoreError> {
        if theirs.range.is_empty() {
            return Ok(Self::None);
        }
        let code = PageRange::new(theirs.code, theirs.range.end()).filter(|code| {
            theirs.range.contains(code.start())
                && code.len() <= MOST_BYTES
                && code.len() == theirs.image.len() as u64
        });
        code.ok_or(RestoreError::Vdso)?;
        let offset = |vdso: &VdsoRecord| vdso.code.0 - vdso.range.start().0;
        let ours = ours.filter(|ours| !ours.range.is_empty());
        if ours.is_some_and(|ours| ours.image == theirs.image && offset(ours) == offset(theirs)) {
            return Ok(Self::Same(theirs.clone()));
        }
        let here = ours.and_then(|ours| functions(&ours.image)).unwrap_or_default();
        let detours = detours(&theirs.image, &here)?;
        let needs_ours = detours.values().any(|detour| matches!(detour, Detour::Ours(_)));
        Ok(Self::Other { theirs: theirs.clone(), detours, needs_ours })
    }

    /// Whether the program's own becomes ordinary memory, so that no thread may be in the middle of it.
    pub(super) const fn is_other(&self) -> bool {
        matches!(self, Self::Other { .. })
    }

    /// Maps it into the child, whose memory is `memory`; one that is needed besides, from `free` on.
    ///
    /// # Errors
    /// What did not work.
    pub(super) fn map(&self, child: &BlankChild, memory: &File, free: Addr) -> Result<(), RestoreError> {
        match self {
            Self::None => Ok(()),
            Self::Same(theirs) => {
                let place = theirs.range.start();
                let code = map_ours(child, place)?;
                if code == Some(theirs.code) { Ok(()) } else { Err(RestoreError::VdsoPlace(place)) }
            }
            Self::Other { theirs, detours, needs_ours } => {
                let place = Addr(free.0 + PAGE_SIZE);
                let ours = if *needs_ours {
                    map_ours(child, place)?.ok_or(RestoreError::VdsoPlace(place))?
                } else {
                    place
                };
                keep_theirs(child, theirs)?;
                let image = changed(&theirs.image, detours, ours);
                let range = PageRange::new(theirs.code, theirs.range.end()).ok_or(RestoreError::Vdso)?;
                let written = memory.write_all_at(&image, theirs.code.0);
                written.map_err(|source| RestoreError::Write { range, source })
            }
        }
    }
}

/// Which of the functions of the image `theirs` goes where, if those of `here` are here.
fn detours(theirs: &[u8], here: &[Function<'_>]) -> Result<BTreeMap<usize, Detour>, RestoreError> {
    let mut detours = BTreeMap::new();
    for Function { name, at } in functions(theirs).ok_or(RestoreError::Vdso)? {
        // Some functions have two names.
        let detour = detour(name, here);
        let known = detours.entry(at).or_insert(detour);
        if *known == Detour::Nowhere {
            *known = detour;
        }
    }
    let ends = detours.keys().skip(1).copied().chain([theirs.len()]);
    let has_room =
        detours.iter().zip(ends).all(|((at, detour), end)| code_of(*detour, Addr(0)).len() <= end - at);
    if has_room && !detours.is_empty() { Ok(detours) } else { Err(RestoreError::Vdso) }
}

fn detour(name: &[u8], here: &[Function<'_>]) -> Detour {
    let plain = name.strip_prefix(b"__vdso_").unwrap_or(name);
    // The memory that it works on is laid out as its build has it, and a libc keeps the size of that for ever.
    if plain == b"getrandom" {
        return Detour::Random;
    }
    if let Some(ours) = here.iter().find(|function| function.name == name) {
        return Detour::Ours(ours.at);
    }
    match plain {
        b"clock_gettime" => Detour::Call(228),
        b"clock_getres" => Detour::Call(229),
        b"gettimeofday" => Detour::Call(96),
        b"time" => Detour::Call(201),
        b"getcpu" => Detour::Call(309),
        _ => Detour::Nowhere,
    }
}

/// The instructions of a detour, where the vDSO that is here begins at `ours`.
fn code_of(detour: Detour, ours: Addr) -> Vec<u8> {
    /// `mov rax, -38; ret`: `-ENOSYS`.
    const NOWHERE: [u8; 8] = [0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, 0xc3];
    match detour {
        // mov rax, imm64; jmp rax
        Detour::Ours(at) => [&[0x48, 0xb8], &(ours.0 + at as u64).to_le_bytes()[..], &[0xff, 0xe0]].concat(),
        // mov eax, imm32; syscall; ret
        Detour::Call(number) => [&[0xb8], &number.to_le_bytes()[..], &[0x0f, 0x05, 0xc3]].concat(),
        // Whoever asks with a length of -1 wants to know the layout of the memory: cmp r8, -1; je over the call.
        Detour::Random => {
            let call = code_of(Detour::Call(318), ours);
            [&[0x49, 0x83, 0xf8, 0xff, 0x74, 0x08], call.as_slice(), &NOWHERE].concat()
        }
        Detour::Nowhere => NOWHERE.to_vec(),
    }
}

/// `image` with its functions turned into detours.
fn changed(image: &[u8], detours: &BTreeMap<usize, Detour>, ours: Addr) -> Vec<u8> {
    let mut image = image.to_vec();
    for (at, detour) in detours {
        let code = code_of(*detour, ours);
        if let Some(room) = image.get_mut(*at..at.saturating_add(code.len())) {
            room.copy_from_slice(&code);
        }
    }
    image
}

/// `ARCH_MAP_VDSO_64` (arch_prctl(2), Linux 4.9): the kernel takes the address as a hint, so look where its code is.
fn map_ours(child: &BlankChild, place: Addr) -> Result<Option<Addr>, RestoreError> {
    const ARCH_MAP_VDSO_64: u64 = 0x2003;
    let mut program = child.program();
    program.step(Step::MapVdso(place));
    program.call(libc::SYS_arch_prctl, [ARCH_MAP_VDSO_64, place.0]);
    child.run(program, &[])?;
    let host = |source| RestoreError::Host { what: "the new process's mappings", source };
    let text = std::fs::read(format!("/proc/{}/maps", child.pid())).map_err(host)?;
    let mut mappings =
        text.split(|byte| *byte == b'\n').filter_map(|line| maps::parse_line(line).ok().flatten());
    Ok(mappings.find(|mapping| mapping.name == b"[vdso]").map(|mapping| mapping.range.start()))
}

/// Makes room for the program's own vDSO at its place.
fn keep_theirs(child: &BlankChild, theirs: &VdsoRecord) -> Result<(), RestoreError> {
    const READ_EXECUTE: u64 = 5;
    const PRIVATE_ANONYMOUS_FIXED_NOREPLACE: u64 = 0x2 | 0x20 | 0x10_0000;
    let mut program = child.program();
    program.step(Step::MapVdso(theirs.code));
    let len = theirs.range.end().0 - theirs.code.0;
    let flags = PRIVATE_ANONYMOUS_FIXED_NOREPLACE;
    program.call(libc::SYS_mmap, [theirs.code.0, len, READ_EXECUTE, flags, u64::MAX, 0]);
    child.run(program, &[])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::identity;

    fn own() -> VdsoRecord {
        identity::vdso_record(&maps::own_mappings().expect("readable")).expect("in one row")
    }

    fn other() -> VdsoRecord {
        let mut other = own();
        *other.image.last_mut().expect("not empty") ^= 1;
        other
    }

    #[test]
    fn the_same_image_is_the_same_vdso_wherever_it_is() {
        let ours = own();
        assert!(matches!(Vdso::of(&own(), Some(&ours)), Ok(Vdso::Same(_))));
        assert!(Vdso::of(&other(), Some(&ours)).is_ok_and(|vdso| vdso.is_other()));
        let nothing = PageRange::new(Addr(0), Addr(0)).expect("an empty range");
        let none = VdsoRecord { range: nothing, code: Addr(0), image: Vec::new() };
        assert!(matches!(Vdso::of(&none, Some(&ours)), Ok(Vdso::None)));
    }

    #[test]
    fn functions_that_are_here_are_jumped_to_and_others_are_system_calls() {
        let (theirs, ours) = (other(), own());
        let found = functions(&ours.image).expect("an image");
        let at = |name: &[u8]| found.iter().find(|function| function.name == name).expect("exported").at;
        let Ok(Vdso::Other { detours, needs_ours: true, .. }) = Vdso::of(&theirs, Some(&ours)) else {
            panic!("it is another one");
        };
        for name in [&b"__vdso_clock_gettime"[..], b"__vdso_time", b"__vdso_getcpu", b"__vdso_clock_getres"] {
            assert_eq!(detours.get(&at(name)), Some(&Detour::Ours(at(name))));
        }
        let image = changed(&theirs.image, &detours, Addr(0x7000_1234_5000));
        let jump = &image[at(b"__vdso_time")..][..12];
        let target = 0x7000_1234_5000 + at(b"__vdso_time") as u64;
        assert_eq!(
            (&jump[..2], &jump[2..10], &jump[10..]),
            (&[0x48, 0xb8][..], &target.to_le_bytes()[..], &[0xff, 0xe0][..])
        );
        let Ok(Vdso::Other { detours, needs_ours: false, .. }) = Vdso::of(&theirs, None) else {
            panic!("there is none here");
        };
        assert_eq!(detours.get(&at(b"__vdso_gettimeofday")), Some(&Detour::Call(96)));
        assert_eq!(code_of(Detour::Call(96), Addr(0)), [0xb8, 96, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    }

    #[test]
    fn an_image_that_is_none_or_has_no_room_is_refused() {
        let ours = own();
        let refused = |theirs: &VdsoRecord| matches!(Vdso::of(theirs, Some(&ours)), Err(RestoreError::Vdso));
        let mut short = other();
        short.image.pop();
        assert!(refused(&short));
        let zeros = VdsoRecord { image: vec![0; ours.image.len()], ..own() };
        assert!(refused(&zeros));
        assert!(refused(&VdsoRecord { code: ours.range.end(), ..own() }));
        let mut crowded = other();
        let at = functions(&crowded.image).expect("an image")[0].at as u64;
        // Every symbol's value becomes that of the first or one more.
        let places: Vec<usize> = functions(&ours.image).expect("an image").iter().map(|it| it.at).collect();
        for (index, place) in places.iter().enumerate() {
            let value = (at + (index as u64 & 1)).to_le_bytes();
            let old = (*place as u64).to_le_bytes();
            let found = crowded.image.windows(8).position(|bytes| bytes == old);
            if let Some(found) = found {
                crowded.image[found..found + 8].copy_from_slice(&value);
            }
        }
        assert!(refused(&crowded));
    }
}
