//! The clock and the one place that waits.

use engine::Instant;
use sys::Errno;
use sys::poll::{Interest, poll};

/// The monotonic clock, as the engine takes it.
pub(crate) fn now() -> Instant {
    Instant(sys::clock::monotonic_ns())
}

/// Waits until one of `interests` is ready or `until` has come.
pub(crate) fn wait(interests: &mut [Interest], until: Instant) -> Result<(), Errno> {
    // Rounded up, so that the deadline has passed when the wait is over.
    let left_ms = until.0.saturating_sub(now().0).div_ceil(1_000_000);
    poll(interests, Some(u32::try_from(left_ms).unwrap_or(u32::MAX))).map(|_| ())
}
