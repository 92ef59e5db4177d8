//! Reading clocks.

use crate::raw::{nr, syscall3};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    now(CLOCK_MONOTONIC)
}

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[must_use]
pub fn boottime_ns() -> u64 {
    const CLOCK_BOOTTIME: usize = 7;
    now(CLOCK_BOOTTIME)
}

fn now(clock: usize) -> u64 {
    let mut time = [0_u64; 2];
    // SAFETY: the kernel writes one timespec (two words) through the pointer, which is valid for it.
    let done = unsafe { syscall3(nr::CLOCK_GETTIME, clock, time.as_mut_ptr().expose_provenance(), 0) };
    debug_assert!(done.is_ok(), "both clocks always exist");
    let [seconds, nanoseconds] = time;
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
