//! What a connection needs of a socket.

/// How a read or a write ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoOutcome {
    /// This many bytes were read or taken, at least one.
    Done(usize),
    /// Nothing can be done before the socket is ready again.
    WouldBlock,
    /// The other side has ended the stream.
    Closed,
    /// The system call failed; the stream is of no use any more.
    Failed {
        /// The operating system's error number, 0 if there is none.
        os_error: i32,
    },
    /// What came is not what the other side has sealed. Only a [`crate::Connection`]'s own records tell.
    Altered,
}

/// A connected, non-blocking, ordered byte stream. Interrupted calls are repeated inside.
pub trait Stream {
    /// Reads at most `buffer.len()` bytes, `buffer` not being empty.
    fn read(&mut self, buffer: &mut [u8]) -> IoOutcome;

    /// Writes from `head`, then from `body`, in one gathering call; one of them may be empty.
    fn write(&mut self, head: &[u8], body: &[u8]) -> IoOutcome;
}
