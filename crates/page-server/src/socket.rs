//! A non-blocking socket of `sys` as a stream of `transport`, and the one place that waits.

use core::time::Duration;

use engine::Instant;
use sys::net::{Transfer, receive, send};
use sys::poll::{Interest, poll};
use sys::{Errno, Fd};
use transport::{IoOutcome, Stream};

/// A connected, non-blocking stream socket.
#[derive(Debug)]
pub struct Socket(Fd);

impl Socket {
    /// Takes a connected socket that has been made non-blocking.
    #[must_use]
    pub const fn new(fd: Fd) -> Self {
        Self(fd)
    }

    /// The descriptor.
    #[must_use]
    pub const fn fd(&self) -> &Fd {
        &self.0
    }
}

impl Stream for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> IoOutcome {
        outcome(receive(&self.0, buffer))
    }

    fn write(&mut self, head: &[u8], body: &[u8]) -> IoOutcome {
        outcome(send(&self.0, [head, body]))
    }
}

const fn outcome(result: Result<Transfer, Errno>) -> IoOutcome {
    match result {
        Ok(Transfer::Done(count)) => IoOutcome::Done(count),
        Ok(Transfer::WouldBlock) => IoOutcome::WouldBlock,
        Ok(Transfer::Closed) => IoOutcome::Closed,
        Err(Errno(os_error)) => IoOutcome::Failed { os_error },
    }
}

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
