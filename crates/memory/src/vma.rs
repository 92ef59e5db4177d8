//! Mappings: what `/proc/PID/maps` and the `VmFlags` of `smaps` say of one of them.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::PageRange;

/// Access rights of a mapping, as in `mmap(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Protection {
    /// `PROT_READ`
    pub read: bool,
    /// `PROT_WRITE`
    pub write: bool,
    /// `PROT_EXEC`
    pub execute: bool,
}

impl Protection {
    /// The bits that `mmap(2)` and `mprotect(2)` take.
    #[must_use]
    pub const fn bits(self) -> u32 {
        (self.read as u32) | (self.write as u32) << 1 | (self.execute as u32) << 2
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |set: bool, c: char| if set { c } else { '-' };
        write!(f, "{}{}{}", letter(self.read, 'r'), letter(self.write, 'w'), letter(self.execute, 'x'))
    }
}

/// `MAP_PRIVATE` or `MAP_SHARED`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Sharing {
    /// Writes stay in this process.
    Private,
    /// Writes reach the mapped object.
    Shared,
}

/// Attributes of a mapping that `maps` does not show (`VmFlags` in `smaps`, proc(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "these are the kernel's independent flags")]
pub struct VmaFlags {
    /// `gd`: grows downwards, as a stack does.
    pub grows_down: bool,
    /// `nr`: no swap space is reserved (`MAP_NORESERVE`).
    pub no_reserve: bool,
    /// `hg`: `MADV_HUGEPAGE`.
    pub huge_page: bool,
    /// `nh`: `MADV_NOHUGEPAGE`.
    pub no_huge_page: bool,
    /// `dc`: `MADV_DONTFORK`.
    pub dont_fork: bool,
    /// `wf`: `MADV_WIPEONFORK`.
    pub wipe_on_fork: bool,
    /// `dd`: `MADV_DONTDUMP`.
    pub dont_dump: bool,
    /// `mg`: `MADV_MERGEABLE`.
    pub mergeable: bool,
    /// `lo`: locked in memory (`mlock(2)`).
    pub locked: bool,
    /// `sr`: `MADV_SEQUENTIAL`.
    pub sequential: bool,
    /// `rr`: `MADV_RANDOM`.
    pub random: bool,
    /// `dp`: the kernel may drop its pages (`MAP_DROPPABLE`).
    pub droppable: bool,
    /// No `mw`: it cannot be made writable.
    pub never_writable: bool,
    /// `KernelPageSize`, KiB, of a mapping of huge TLB pages (`ht`); else 0.
    pub huge_kib: u32,
}

/// Which part of the address space the kernel says that a mapping is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum VmaName {
    /// Nothing special.
    Plain,
    /// `[heap]`
    Heap,
    /// `[stack]`
    Stack,
}

/// What stands behind a mapping.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Backing {
    /// Private anonymous memory.
    Anonymous,
    /// A file; `file` is an index into the manifest's table of files, `offset` in bytes.
    File {
        /// Index into the manifest's `files`.
        file: u32,
        /// Offset of the first byte of the mapping in the file.
        offset: u64,
    },
    /// A shared-memory object without a name in the file system (shared anonymous memory, memfd).
    Object {
        /// Index into the manifest's `objects`.
        object: u32,
        /// Offset of the first byte of the mapping in the object.
        offset: u64,
    },
}

/// One mapping of a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Vma {
    /// Where it is.
    pub range: PageRange,
    /// What the program may do with it.
    pub protection: Protection,
    /// Who sees writes.
    pub sharing: Sharing,
    /// `madvise(2)`, `mlock(2)` and `mmap(2)` attributes.
    pub flags: VmaFlags,
    /// Its label.
    pub name: VmaName,
    /// Its content's origin.
    pub backing: Backing,
}

impl fmt::Display for Vma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sharing = if self.sharing == Sharing::Private { 'p' } else { 's' };
        write!(f, "{} {}{}", self.range, self.protection, sharing)?;
        match &self.backing {
            Backing::Anonymous => Ok(()),
            Backing::File { file, offset } => write!(f, " file {file} at {offset:#x}"),
            Backing::Object { object, offset } => write!(f, " object {object} at {offset:#x}"),
        }
    }
}
