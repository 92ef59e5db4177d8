//! `/proc/PID/smaps`, of which only the line `VmFlags` of each mapping matters here.
//!
//! Reading it makes the kernel walk all page tables: a matter of milliseconds per GiB, so not for the time in
//! which the process stands still.

use alloc::vec::Vec;
use core::ffi::CStr;

use memory::VmaFlags;

use super::maps::{self, Mapping};
use super::{ProcError, ProcFile};
use crate::number::{decimal, words};
use crate::path::KernelPath;

const FILE: ProcFile = ProcFile::Smaps;

/// What only `smaps` says of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "these are the kernel's independent flags")]
pub struct Attributes {
    /// Those that can be given to a new mapping.
    pub flags: VmaFlags,
    /// `io`, `pf`: a device's memory.
    pub device_memory: bool,
    /// `um`, `ui`: registered with a userfaultfd, for pages that are missing.
    pub registered: bool,
    /// `uw`: registered with a userfaultfd, for pages that are written.
    pub watched: bool,
    /// `ss`: a shadow stack.
    pub shadow_stack: bool,
    /// `sl`: sealed (mseal(2)).
    pub sealed: bool,
}

/// The user mappings of the calling process, ascending, and the attributes of each: as one mapping was at one moment,
/// while the process goes on and changes the next.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn own_mappings() -> Result<(Vec<Mapping>, Vec<Attributes>), ProcError> {
    mappings_in(c"/proc/thread-self/smaps")
}

/// The user mappings of process `pid` and the attributes of each, ascending.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn mappings_of(pid: u32) -> Result<(Vec<Mapping>, Vec<Attributes>), ProcError> {
    mappings_in(KernelPath::numbered("/proc/", pid, "/smaps").as_c_str())
}

fn mappings_in(path: &CStr) -> Result<(Vec<Mapping>, Vec<Attributes>), ProcError> {
    let mut parser = Parser::default();
    super::for_each_line(path, FILE, &mut |line| parser.line(line))?;
    parser.finish()
}

/// Takes a `smaps` file line by line.
#[derive(Default)]
struct Parser {
    mappings: Vec<Mapping>,
    attributes: Vec<Attributes>,
    /// Between the first and the last line of a mapping: what it is, unless it lies beyond user space.
    current: Option<Option<Mapping>>,
    /// Its `KernelPageSize`, KiB.
    page_kib: u64,
}

impl Parser {
    fn line(&mut self, line: &[u8]) -> Result<(), ProcError> {
        if self.current.is_none() {
            self.current = Some(maps::parse_line(line)?);
        } else if let Some(size) = line.strip_prefix(b"KernelPageSize:") {
            self.page_kib = words(size).next().and_then(decimal).unwrap_or(0);
        } else if let Some(codes) = line.strip_prefix(b"VmFlags:")
            && let Some(mapping) = self.current.take().flatten()
        {
            maps::append(&mut self.mappings, mapping);
            self.attributes.truncate(self.mappings.len() - 1);
            self.attributes.push(attributes(codes, u32::try_from(self.page_kib).unwrap_or(0)));
        }
        Ok(())
    }

    fn finish(self) -> Result<(Vec<Mapping>, Vec<Attributes>), ProcError> {
        match self.current {
            None => Ok((self.mappings, self.attributes)),
            Some(_) => Err(ProcError::Malformed { file: FILE }),
        }
    }
}

/// The two-letter words of a `VmFlags` line (proc(5)).
fn attributes(codes: &[u8], page_kib: u32) -> Attributes {
    let mut found = Attributes::default();
    found.flags.never_writable = true;
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
            b"ht" => flags.huge_kib = page_kib,
            b"um" | b"ui" => found.registered = true,
            b"uw" => found.watched = true,
            b"ss" => found.shadow_stack = true,
            b"sl" => found.sealed = true,
            b"dp" => flags.droppable = true,
            b"mw" => flags.never_writable = false,
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
KernelPageSize:        4 kB
THPeligible:           0
VmFlags: rd wr mr mw me gd ac 
7ffc36b5d000-7ffc36b5e000 rw-s 00000000 00:01 7       /tmp/VmFlags: io (deleted)
Size:                  4 kB
KernelPageSize:     2048 kB
VmFlags: rd wr sh mr mw me ms dc dd lo zz ht \n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
VmFlags: ex \n";

    fn parse(bytes: &[u8]) -> Result<(Vec<Mapping>, Vec<Attributes>), ProcError> {
        let mut parser = Parser::default();
        let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.try_for_each(|line| parser.line(line))?;
        parser.finish()
    }

    #[test]
    fn every_user_mapping_has_its_flags() {
        let (mappings, found) = parse(REAL).expect("what a kernel wrote");
        assert_eq!(mappings.len(), found.len());
        let stack = VmaFlags { grows_down: true, ..VmaFlags::default() };
        let shared = VmaFlags {
            dont_fork: true,
            dont_dump: true,
            locked: true,
            huge_kib: 2048,
            ..VmaFlags::default()
        };
        let plain = |flags| Attributes { flags, ..Attributes::default() };
        assert_eq!(found, [plain(stack), plain(shared)]);
    }

    #[test]
    fn a_mapping_that_has_grown_meanwhile_replaces_what_it_was() {
        let grown = b"1000-2000 rw-p 0 00:00 0\nVmFlags: dc\n1000-3000 rw-p 0 00:00 0\nVmFlags: wf\n";
        let (mappings, found) = parse(grown).expect("what a kernel wrote");
        assert_eq!((mappings.len(), found.len()), (1, 1));
        assert!(found.iter().all(|attributes| attributes.flags.wipe_on_fork && !attributes.flags.dont_fork));
    }

    #[test]
    fn a_mapping_without_flags_is_an_error() {
        assert!(parse(b"1000-2000 rw-p 0 00:00 0\nSize: 4 kB\n").is_err());
        assert!(parse(b"Size: 4 kB\n").is_err());
    }

    #[test]
    fn this_process_has_a_stack_that_grows_down() {
        let (_, all) = own_mappings().expect("readable");
        assert!(all.iter().any(|attributes| attributes.flags.grows_down));
    }
}
