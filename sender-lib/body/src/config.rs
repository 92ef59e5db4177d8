//! Every bound of the parasite's body, with its unit.

use core::time::Duration;

/// Threads that one process may have.
pub(crate) const MAX_THREADS: usize = 8192;
/// Up to so many threads, one after the other is asked; more, all at once.
pub(crate) const FEW_THREADS: usize = 8;
/// TCP connections that move with one process.
pub(crate) const MAX_CONNECTIONS: usize = 8192;
/// From the first park signal until the last thread stands still.
pub(crate) const PARK_DEADLINE: Duration = Duration::from_secs(5);
/// From the release until the last thread has left the park handler.
pub(crate) const RELEASE_DEADLINE: Duration = Duration::from_secs(2);
/// How long the coordinator sleeps at most before it looks whether a thread has gone.
pub(crate) const PARK_POLL: Duration = Duration::from_millis(1);
/// Signals that may wait for the threads of a process.
pub(crate) const MAX_QUEUED_SIGNALS: usize = 256;
/// How often a waiting signal is queued again at most.
pub(crate) const PUT_BACK_ATTEMPTS: usize = 1000;
/// Opening one channel and having it accepted.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Lowest number of the parasite's own connections, out of the way of programs that count on low ones, and within the 64
/// that every table of descriptors has room for: to make a longer one the kernel waits some 10 ms for all processors, as
/// threads share it.
pub(crate) const LOWEST_DESCRIPTOR: u32 = 56;
/// A look at the running process is made again for the stop if it is older, in nanoseconds.
pub(crate) const FRESH_NS: u64 = 50_000_000;
/// Runs of pages that were sent ahead and still hold: 18 bytes each at most in the manifest.
pub(crate) const MAX_KEPT: usize = 100_000;
/// Such a run is passed over where the others are looked through for data: a call costs as much as so many pages.
pub(crate) const LONG_KEPT: u64 = 64;
/// Bytes of `receiver_info.txt` that are looked at.
pub(crate) const RECEIVER_INFO_BYTES: usize = 256;
/// All mappings of the library lie within so many bytes of its state page, a multiple of the page size.
pub(crate) const LIBRARY_BYTES: u64 = 1 << 20;
