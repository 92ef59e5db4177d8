//! A non-blocking socket of `sys` as a stream of `transport`.

use sys::net::{Transfer, receive, send};
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
