//! Every bound of the parasite's resident half, with its unit.

/// Addresses that the arena takes if the host's limits allow it, in bytes. Only what is touched costs memory.
pub(crate) const ARENA_BYTES: usize = 128 << 20;
/// The smallest arena that a migration is tried with, in bytes.
pub(crate) const SMALLEST_ARENA_BYTES: usize = 16 << 20;
/// Stack of the helper thread, in bytes, with a guard page below.
pub(crate) const STACK_BYTES: usize = 512 << 10;
