//! The kernel ABI: small typed functions over system calls, and nothing that decides.
//!
//! Without the feature `std` this crate is `no_std + alloc` and needs no libc: the parasite lives in
//! programs whose libc it must not touch. The feature adds what only the receiver needs.
//!
//! Unsafe code of the workspace lives here (and in the parasite's `ffi` and the restorer's trampoline).
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod auxv;
#[cfg(feature = "std")]
pub mod birth;
#[cfg(feature = "std")]
pub mod capability;
pub mod clock;
pub mod descriptor;
pub mod elf;
pub mod errno;
pub mod fd;
pub mod file;
#[cfg(feature = "std")]
pub mod handle;
pub mod identity;
#[cfg(feature = "std")]
pub mod inherited;
#[cfg(feature = "std")]
pub mod namespace;
pub mod net;
pub mod number;
pub mod own_memory;
pub mod pagemap;
pub mod path;
#[cfg(feature = "std")]
pub mod pidfd;
pub mod poll;
pub mod proc;
pub mod process;
pub mod random;
pub mod raw;
pub mod secret;
#[cfg(feature = "std")]
pub mod served_memory;
pub mod signal;
pub mod signal_frame;
pub mod signal_name;
#[cfg(feature = "std")]
pub mod socket;
pub mod status;
pub mod system_v;
#[cfg(feature = "std")]
pub mod test_child;
pub mod thread;
pub mod tracee;
pub mod tracking;
#[cfg(feature = "std")]
pub mod uffd;
mod xxh64;

pub use errno::Errno;
pub use fd::Fd;
