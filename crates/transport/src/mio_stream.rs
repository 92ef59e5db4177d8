//! mio's TCP socket as a [`Stream`].

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use mio::net::TcpStream;

use crate::{IoOutcome, Stream};

impl Stream for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> IoOutcome {
        outcome(|| Read::read(self, buffer))
    }

    fn write(&mut self, head: &[u8], body: &[u8]) -> IoOutcome {
        outcome(|| Write::write_vectored(self, &[IoSlice::new(head), IoSlice::new(body)]))
    }
}

/// Sets what a migration's socket needs: requests and their answers leave at once (`TCP_NODELAY`). Buffer sizes are
/// left to the kernel, which adapts them to the link.
///
/// # Errors
/// What the kernel says.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

fn outcome(mut call: impl FnMut() -> io::Result<usize>) -> IoOutcome {
    loop {
        return match call() {
            Ok(0) => IoOutcome::Closed,
            Ok(count) => IoOutcome::Done(count),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock => IoOutcome::WouldBlock,
                _ => IoOutcome::Failed { os_error: error.raw_os_error().unwrap_or(0) },
            },
        };
    }
}
