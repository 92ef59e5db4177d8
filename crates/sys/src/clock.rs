//! Reading clocks.

use crate::raw::{nr, syscall3};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    let mut time = [0_u64; 2];
    // SAFETY: the kernel writes one timespec (two words) through the pointer, which is valid for it.
    let done =
        unsafe { syscall3(nr::CLOCK_GETTIME, CLOCK_MONOTONIC, time.as_mut_ptr().expose_provenance(), 0) };
    debug_assert!(done.is_ok(), "CLOCK_MONOTONIC always exists");
    let [seconds, nanoseconds] = time;
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
