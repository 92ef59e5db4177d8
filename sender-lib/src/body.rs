//! The body: carried packed in this library, unpacked into the arena when a migration begins and gone with it.
//!
//! The helper unpacks it while the program runs, anew for each migration.

use packed::Packed;
use protocol::{Piece, Text, put};
use sys::Errno;
use sys::process::{self, Flag};

use crate::ffi::Memory;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/body.packed"));

/// Why there is no body.
pub(crate) enum NoBody {
    /// The helper runs under seccomp.
    Seccomp,
    /// This library was built without one, or its file has changed.
    Damaged,
    /// The host may not have memory that was written and is executable.
    NotExecutable(Errno),
}

impl Piece for NoBody {
    fn put_into(&self, text: &mut impl Text) {
        match self {
            Self::Seccomp => {
                put!(text, "the process runs under seccomp: start it without a filter");
            }
            Self::Damaged => text.push_text("this libsender.so is damaged"),
            Self::NotExecutable(errno) => put!(text, "no executable memory for a migration: ", *errno),
        }
    }
}

/// A body that can be called.
pub(crate) struct Unpacked {
    /// Where it is entered.
    pub(crate) entry: u64,
    /// The first address behind it.
    pub(crate) end: u64,
}

/// Unpacks the body at `at`, in an arena that nobody else uses yet.
pub(crate) fn unpack(at: u64) -> Result<Unpacked, NoBody> {
    // A filter may kill whoever makes memory executable.
    if process::flag(Flag::Seccomp) != Ok(0) {
        return Err(NoBody::Seccomp);
    }
    let packed = Packed::parse(PACKED).map_err(|_| NoBody::Damaged)?;
    let mut memory = Memory::of_arena(at, packed.len);
    packed.unpack(memory.bytes(), at).map_err(|_| NoBody::Damaged)?;
    memory.seal(packed.variables, packed.code).map_err(NoBody::NotExecutable)?;
    Ok(Unpacked { entry: at + packed.entry as u64, end: at + packed.len as u64 })
}
