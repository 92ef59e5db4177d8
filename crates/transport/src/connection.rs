//! One of a migration's three connections: frames in, frames out.

use memory::PageRange;
use protocol::{Frame, Header, Kind, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::FEW_BYTES;
use crate::inbox::Inbox;
use crate::link::Link;
use crate::outbox::Outbox;
use crate::sealing::Session;
use crate::{ConnectionError, Expected, IoOutcome, Stream};

/// A stream of frames in both directions. After an error it is of no use any more.
#[derive(Debug)]
pub struct Connection<S> {
    link: Link<S>,
    expected: Expected,
    inbox: Inbox,
    outbox: Outbox,
    drained: bool,
}

impl<S: Stream> Connection<S> {
    /// A connection over `stream` that takes what `expected` says.
    pub fn new(stream: S, expected: Expected) -> Self {
        Self {
            link: Link::new(stream),
            expected,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            drained: false,
        }
    }

    /// The next stage: what may come from here on.
    pub const fn expect(&mut self, expected: Expected) {
        self.expected = expected;
    }

    /// Seals everything that is sent from here on, and takes nothing that the other side has not sealed. Right only
    /// between two frames, when nothing waits in either direction.
    pub fn seal(&mut self, session: Session) {
        self.link.seal(session);
    }

    /// What may come.
    #[must_use]
    pub const fn expected(&self) -> Expected {
        self.expected
    }

    /// The socket, to wait for it.
    pub const fn stream(&self) -> &S {
        &self.link.socket
    }

    /// The socket, to register it.
    pub const fn stream_mut(&mut self) -> &mut S {
        &mut self.link.socket
    }

    /// Gives the socket back. Nothing that has been received is lost before the first
    /// [`Self::receive`] behind the handshake; what waits to be sent is.
    pub fn into_stream(self) -> S {
        self.link.socket
    }

    /// Drops the frame in hand and hands out the next one, or `None` when the socket has nothing more for now.
    /// Reads at most one frame and a few KiB.
    ///
    /// # Errors
    /// The link has ended, or what came is not what may come.
    pub fn receive(&mut self) -> Result<Option<Frame<'_>>, ConnectionError> {
        let found = self.inbox.collect(&mut self.link, self.expected)?;
        self.drained = !found;
        Ok(self.inbox.frame())
    }

    /// The frame that [`Self::receive`] has handed out last.
    #[must_use]
    pub fn frame(&self) -> Option<Frame<'_>> {
        self.inbox.frame()
    }

    /// Decodes the body of the frame in hand.
    ///
    /// # Errors
    /// The body is no encoding of a `T`.
    pub fn message<T: DeserializeOwned>(&self) -> Result<T, ConnectionError> {
        let frame = self.frame().ok_or(ConnectionError::Closed)?;
        decode(frame.body).map_err(|source| ConnectionError::Body { kind: frame.header.kind, source })
    }

    /// Whether the last [`Self::receive`] found nothing: only then is it right to wait for the socket.
    #[must_use]
    pub const fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether bytes wait for the socket to become writable.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.outbox.wants_write() || self.link.wants_write()
    }

    /// Writes what waits; true when nothing waits any more.
    ///
    /// # Errors
    /// The link has ended.
    pub fn flush(&mut self) -> Result<bool, ConnectionError> {
        if self.outbox.flush(&mut self.link)? {
            match self.link.flush() {
                None => return Ok(true),
                Some(IoOutcome::WouldBlock) => {}
                Some(other) => return Err(ConnectionError::of(other)),
            }
        }
        Ok(false)
    }

    /// Sends a frame; what the socket does not take waits for [`Self::flush`].
    ///
    /// # Errors
    /// The link has ended, the body is longer than its kind allows, or the queue is full.
    pub fn send(&mut self, header: Header, body: &[u8]) -> Result<(), ConnectionError> {
        let head = checked(header, body)?.to_bytes();
        self.outbox.send(&mut self.link, &head, body)
    }

    /// Adds a frame to those that wait; it leaves with the next [`Self::send`] or [`Self::flush`]. Makes many
    /// small frames one system call.
    ///
    /// # Errors
    /// The body is longer than its kind allows, or the queue is full.
    pub fn enqueue(&mut self, header: Header, body: &[u8]) -> Result<(), ConnectionError> {
        let head = checked(header, body)?.to_bytes();
        self.outbox.enqueue(&head, body)
    }

    /// Sends a frame that is only a kind and, where the kind has one, an argument (else 0).
    ///
    /// # Errors
    /// As for [`Self::send`].
    pub fn send_signal(&mut self, kind: Kind, argument: u64) -> Result<(), ConnectionError> {
        self.send(Header { argument, ..Header::plain(kind, 0) }, &[])
    }

    /// Encodes and sends a message.
    ///
    /// # Errors
    /// As for [`Self::send`].
    pub fn send_message<T: Serialize>(&mut self, kind: Kind, message: &T) -> Result<(), ConnectionError> {
        let body = encode(message).map_err(|source| ConnectionError::Body { kind, source })?;
        self.send(Header::plain(kind, 0), &body)
    }

    /// Sends `PageRequest`, for at most [`protocol::MAX_PAGES_PER_FRAME`] pages.
    ///
    /// # Errors
    /// As for [`Self::send`].
    pub fn send_page_request(&mut self, pages: PageRange) -> Result<(), ConnectionError> {
        self.send(pages_header(Kind::PageRequest, pages)?, &[])
    }

    /// Sends `Pages`, at most [`protocol::MAX_PAGES_PER_FRAME`] of them, `content` being their bytes. A few wait for the next
    /// [`Self::send`] or [`Self::flush`]: to copy them costs less than a system call.
    ///
    /// # Errors
    /// As for [`Self::send`].
    pub fn send_pages(&mut self, pages: PageRange, content: &[u8]) -> Result<(), ConnectionError> {
        if pages.len() != content.len() as u64 {
            return Err(ConnectionError::TooLong { kind: Kind::Pages, len: content.len() });
        }
        let header = pages_header(Kind::Pages, pages)?;
        if content.len() <= FEW_BYTES { self.enqueue(header, content) } else { self.send(header, content) }
    }

    /// Sends `PackedPages`, at most [`protocol::MAX_PAGES_PER_FRAME`] of them; `block` is shorter than their bytes are.
    ///
    /// # Errors
    /// As for [`Self::send`], and a block that is not shorter.
    pub fn send_packed_pages(&mut self, pages: PageRange, block: &[u8]) -> Result<(), ConnectionError> {
        if block.len() as u64 >= pages.len() {
            return Err(ConnectionError::TooLong { kind: Kind::PackedPages, len: block.len() });
        }
        self.send(pages_header(Kind::PackedPages, pages)?, block)
    }

    /// Enqueues (see [`Self::enqueue`]) `ZeroPages`, `LostPages` or `Pushed` for any number of pages.
    ///
    /// # Errors
    /// As for [`Self::enqueue`].
    pub fn enqueue_counted(&mut self, kind: Kind, pages: PageRange) -> Result<(), ConnectionError> {
        let header = Header { argument: pages.start().0, ..Header::plain(kind, 0) };
        self.enqueue(header, &pages.pages().to_le_bytes())
    }

    /// Bytes received so far, with everything that is around them.
    #[must_use]
    pub const fn bytes_received(&self) -> u64 {
        self.link.received()
    }

    /// Bytes that the socket has taken so far, with everything that is around them.
    #[must_use]
    pub const fn bytes_sent(&self) -> u64 {
        self.link.sent()
    }

    #[cfg(test)]
    pub(crate) fn inbox_capacity(&self) -> usize {
        self.inbox.capacity()
    }

    /// Sends `Unscanned` for any number of pages.
    ///
    /// # Errors
    /// As for [`Self::send`].
    pub fn send_unscanned(&mut self, pages: PageRange) -> Result<(), ConnectionError> {
        let header = Header { argument: pages.start().0, ..Header::plain(Kind::Unscanned, 0) };
        self.send(header, &pages.pages().to_le_bytes())
    }
}

/// The header with the length of `body`, if its kind allows that much.
fn checked(header: Header, body: &[u8]) -> Result<Header, ConnectionError> {
    u32::try_from(body.len())
        .ok()
        .filter(|len| *len <= header.kind.body_limit())
        .map(|body_len| Header { body_len, ..header })
        .ok_or(ConnectionError::TooLong { kind: header.kind, len: body.len() })
}

fn pages_header(kind: Kind, pages: PageRange) -> Result<Header, ConnectionError> {
    match u16::try_from(pages.pages()) {
        Ok(count @ 1..) if u64::from(count) <= protocol::MAX_PAGES_PER_FRAME => {
            Ok(Header { count, argument: pages.start().0, ..Header::plain(kind, 0) })
        }
        _ => Err(ConnectionError::TooLong { kind, len: usize::try_from(pages.len()).unwrap_or(usize::MAX) }),
    }
}
