//! The clock and the one place that waits.

use core::time::Duration;

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
    let left = until.since(now()) + Duration::from_nanos(999_999);
    let timeout_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
    poll(interests, Some(timeout_ms)).map(|_| ())
}
