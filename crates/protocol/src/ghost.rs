//! What has no name in any file system any more, and what is held on files: both are lost with the last descriptor.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// A file, directory or symbolic link that was deleted while the process had it open.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GhostRecord {
    /// Where it was, as the kernel shows it, without ` (deleted)`.
    pub path: Vec<u8>,
    /// Device and inode at the source.
    pub identity: (u64, u64),
    /// `st_mode`: kind and permissions.
    pub mode: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Time of the last access, nanoseconds since 1970.
    pub accessed_ns: i64,
    /// Time of the last change, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Where a symbolic link leads to.
    pub target: Vec<u8>,
}

/// A lock on a file, taken again when the source has let go of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LockRecord {
    /// The descriptor by which it was taken.
    pub fd: u32,
    /// What the kernel says of it behind `lock:` in `fdinfo` (proc(5)).
    pub line: Vec<u8>,
}

/// What a file below `/proc/self` says of the process, to be written there again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcValue {
    /// The file's name, one of [`PROC_VALUES`].
    pub name: Vec<u8>,
    /// Its content.
    pub value: Vec<u8>,
}

/// The files below `/proc/self` whose content moves.
pub const PROC_VALUES: [&core::ffi::CStr; 3] = [c"oom_score_adj", c"loginuid", c"coredump_filter"];
