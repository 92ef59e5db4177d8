//! `/proc/PID/smaps`, of which only the line `VmFlags` of each mapping matters here.
//!
//! Reading it makes the kernel walk all page tables: a matter of milliseconds per GiB, so not for the time in
//! which the process stands still.

use alloc::vec::Vec;

use memory::{PageRange, VmaFlags};

use super::{ProcError, ProcFile, maps};
use crate::number::words;

const FILE: ProcFile = ProcFile::Smaps;

/// What only `smaps` says of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "these are the kernel's independent flags")]
pub struct Attributes {
    /// Those that can be given to a new mapping.
    pub flags: VmaFlags,
    /// `io`, `pf`: a device's memory.
    pub device_memory: bool,
    /// `ht`: huge TLB pages.
    pub huge_tlb: bool,
    /// `um`, `uw`, `ui`: registered with a userfaultfd.
    pub registered: bool,
    /// `ss`: a shadow stack.
    pub shadow_stack: bool,
    /// `sl`: sealed (mseal(2)).
    pub sealed: bool,
}

/// The attributes of every user mapping of the calling process, ascending.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn own_attributes() -> Result<Vec<(PageRange, Attributes)>, ProcError> {
    let mut parser = Parser::default();
    super::for_each_line(c"/proc/thread-self/smaps", FILE, &mut |line| parser.line(line))?;
    parser.finish()
}

/// Takes a `smaps` file line by line.
#[derive(Default)]
struct Parser {
    done: Vec<(PageRange, Attributes)>,
    /// Between the first and the last line of a mapping: its range, unless it lies beyond user space.
    current: Option<Option<PageRange>>,
}

impl Parser {
    fn line(&mut self, line: &[u8]) -> Result<(), ProcError> {
        let Some(range) = self.current else {
            self.current = Some(maps::parse_line(line)?.map(|mapping| mapping.range));
            return Ok(());
        };
        if let Some(codes) = line.strip_prefix(b"VmFlags:") {
            if let Some(range) = range {
                self.done.push((range, attributes(codes)));
            }
            self.current = None;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<(PageRange, Attributes)>, ProcError> {
        match self.current {
            None => Ok(self.done),
            Some(_) => Err(ProcError::Malformed { file: FILE }),
        }
    }
}

/// The two-letter words of a `VmFlags` line (proc(5)).
fn attributes(codes: &[u8]) -> Attributes {
    let mut found = Attributes::default();
    for code in words(codes) {
        let flags = &mut found.flags;
        match code {
            b"gd" => flags.grows_down = true,
            b"nr" => flags.no_reserve = true,
            b"hg" => flags.huge_page = true,
            b"nh" => flags.no_huge_page = true,
            b"dc" => flags.dont_fork = true,
            b"wf" => flags.wipe_on_fork = true,
            b"dd" => flags.dont_dump = true,
            b"mg" => flags.mergeable = true,
            b"lo" => flags.locked = true,
            b"sr" => flags.sequential = true,
            b"rr" => flags.random = true,
            b"io" | b"pf" => found.device_memory = true,
            b"ht" => found.huge_tlb = true,
            b"um" | b"uw" | b"ui" => found.registered = true,
            b"ss" => found.shadow_stack = true,
            b"sl" => found.sealed = true,
            b"dp" => flags.droppable = true,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &[u8] = b"\
7ffc36b3c000-7ffc36b5d000 rw-p 00000000 00:00 0                          [stack]
Size:                132 kB
THPeligible:           0
VmFlags: rd wr mr mw me gd ac 
7ffc36b5d000-7ffc36b5e000 rw-s 00000000 00:01 7       /tmp/VmFlags: io (deleted)
Size:                  4 kB
VmFlags: rd wr sh mr mw me ms dc dd lo zz \n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
VmFlags: ex \n";

    fn parse(bytes: &[u8]) -> Result<Vec<(PageRange, Attributes)>, ProcError> {
        let mut parser = Parser::default();
        let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.try_for_each(|line| parser.line(line))?;
        parser.finish()
    }

    #[test]
    fn every_user_mapping_has_its_flags() {
        let all = parse(REAL).expect("what a kernel wrote");
        let stack = VmaFlags { grows_down: true, ..VmaFlags::default() };
        let shared = VmaFlags { dont_fork: true, dont_dump: true, locked: true, ..VmaFlags::default() };
        let flags: Vec<Attributes> = all.iter().map(|(_, attributes)| *attributes).collect();
        let plain = |flags| Attributes { flags, ..Attributes::default() };
        assert_eq!(flags, [plain(stack), plain(shared)]);
    }

    #[test]
    fn a_mapping_without_flags_is_an_error() {
        assert!(parse(b"1000-2000 rw-p 0 00:00 0\nSize: 4 kB\n").is_err());
        assert!(parse(b"Size: 4 kB\n").is_err());
    }

    #[test]
    fn this_process_has_a_stack_that_grows_down() {
        let all = own_attributes().expect("readable");
        assert!(all.iter().any(|(_, attributes)| attributes.flags.grows_down));
    }
}
