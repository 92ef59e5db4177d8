//! The send queue: what the socket has not taken yet, in order, up to a bound.

use alloc::vec::Vec;

use crate::config::{KEPT_BUFFER_BYTES, SEND_QUEUE_BYTES};
use crate::{ConnectionError, IoOutcome, Stream};

/// Bytes of `queue` from `taken` on wait for the socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Vec<u8>,
    taken: usize,
    /// The socket has refused bytes since the last flush.
    blocked: bool,
}

impl Outbox {
    /// Whether bytes wait for the socket.
    pub(crate) const fn wants_write(&self) -> bool {
        self.taken < self.queue.len()
    }

    /// Adds bytes behind all others without a system call.
    pub(crate) fn enqueue(&mut self, head: &[u8], body: &[u8]) -> Result<(), ConnectionError> {
        let queued = self.queue.len() - self.taken;
        if queued + head.len() + body.len() > SEND_QUEUE_BYTES {
            return Err(ConnectionError::QueueFull { queued });
        }
        self.append(head);
        self.append(body);
        Ok(())
    }

    /// Sends `head` and `body` behind all others; `body` is copied only as far as the socket does not take it.
    pub(crate) fn send(
        &mut self,
        stream: &mut impl Stream,
        head: &[u8],
        body: &[u8],
    ) -> Result<(), ConnectionError> {
        if self.blocked {
            return self.enqueue(head, body);
        }
        self.enqueue(head, &[])?;
        let rest = self.write(stream, body)?;
        self.enqueue(&[], rest)
    }

    /// Writes until the queue is empty (true) or the socket takes no more.
    pub(crate) fn flush(&mut self, stream: &mut impl Stream) -> Result<bool, ConnectionError> {
        self.blocked = false;
        self.write(stream, &[])?;
        Ok(!self.wants_write())
    }

    /// Writes the queue, then `body`; returns what is left of `body`.
    fn write<'body>(
        &mut self,
        stream: &mut impl Stream,
        mut body: &'body [u8],
    ) -> Result<&'body [u8], ConnectionError> {
        while self.wants_write() || !body.is_empty() {
            match stream.write(self.queue.get(self.taken..).unwrap_or_default(), body) {
                IoOutcome::Done(count) => {
                    let of_body = self.take(count);
                    body = body.get(of_body..).unwrap_or_default();
                }
                IoOutcome::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                other => return Err(ConnectionError::of(other)),
            }
        }
        Ok(body)
    }

    /// Drops `count` written bytes from the queue; returns how many of them were not from the queue.
    fn take(&mut self, count: usize) -> usize {
        let of_queue = count.min(self.queue.len() - self.taken);
        self.taken += of_queue;
        if self.taken == self.queue.len() {
            self.taken = 0;
            self.queue.clear();
            self.queue.shrink_to(KEPT_BUFFER_BYTES);
        }
        count - of_queue
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.taken > 0 && self.queue.len() + bytes.len() > self.queue.capacity() {
            self.queue.drain(..self.taken);
            self.taken = 0;
        }
        self.queue.extend_from_slice(bytes);
    }
}
