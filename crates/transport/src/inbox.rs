//! The receive buffer: collects one frame at a time, and grows only by bytes that have arrived.

use alloc::vec::Vec;

use protocol::{FRAME_HEADER_LEN, Frame, FrameError, Header};

use crate::config::{
    FIRST_BUFFER_BYTES, KEPT_BUFFER_BYTES, READ_AHEAD_BYTES, READ_AHEAD_SHORT_BYTES, SHORT_FRAME_BYTES,
};
use crate::{ConnectionError, Expected, IoOutcome, Stream};

/// Bytes `start..end` of `buffer` have been received and not yet been dropped; the frame in hand is first.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    in_hand: Option<Header>,
}

impl Inbox {
    /// Drops the frame in hand and collects the next one; false when the stream has nothing more for now.
    pub(crate) fn collect(
        &mut self,
        stream: &mut impl Stream,
        expected: Expected,
    ) -> Result<bool, ConnectionError> {
        self.drop_frame();
        loop {
            let needed = match self.next_header()? {
                None => FRAME_HEADER_LEN,
                Some(header) if !expected.allows(header.kind) => {
                    return Err(ConnectionError::Unexpected(header.kind));
                }
                Some(header) if self.held() >= frame_len(header) => {
                    self.in_hand = Some(header);
                    return Ok(true);
                }
                Some(header) => frame_len(header),
            };
            let read_ahead = match needed {
                _ if expected.is_handshake() => 0,
                ..=SHORT_FRAME_BYTES => READ_AHEAD_SHORT_BYTES,
                _ => READ_AHEAD_BYTES,
            };
            match stream.read(self.room(needed, read_ahead)) {
                IoOutcome::Done(count) => {
                    self.end = self.end.saturating_add(count).min(self.buffer.len());
                }
                IoOutcome::WouldBlock => return Ok(false),
                IoOutcome::Closed if self.held() > 0 => return Err(ConnectionError::ClosedInFrame),
                other => return Err(ConnectionError::of(other)),
            }
        }
    }

    /// The frame that [`Self::collect`] found, until it is called again.
    pub(crate) fn frame(&self) -> Option<Frame<'_>> {
        let header = self.in_hand?;
        let body = self.start + FRAME_HEADER_LEN..self.start + frame_len(header);
        Some(Frame { header, body: self.buffer.get(body)? })
    }

    const fn held(&self) -> usize {
        self.end - self.start
    }

    /// The header at the front, once all of it is here.
    fn next_header(&self) -> Result<Option<Header>, FrameError> {
        self.buffer
            .get(self.start..self.end)
            .and_then(|held| held.first_chunk::<FRAME_HEADER_LEN>())
            .map(|bytes| Header::from_bytes(*bytes))
            .transpose()
    }

    fn drop_frame(&mut self) {
        let Some(header) = self.in_hand.take() else { return };
        self.start += frame_len(header);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() > KEPT_BUFFER_BYTES && self.held() <= KEPT_BUFFER_BYTES {
            self.move_to_front();
            self.buffer.truncate(KEPT_BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
    }

    fn move_to_front(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Where the next bytes of a frame of `needed` bytes go. The buffer is never more than twice as long as what
    /// has arrived, whatever a header announces.
    fn room(&mut self, needed: usize, read_ahead: usize) -> &mut [u8] {
        self.move_to_front();
        let most = needed + read_ahead;
        let wanted = most.min((2 * self.end).max(FIRST_BUFFER_BYTES));
        if let Some(more) = wanted.checked_sub(self.buffer.len()) {
            self.buffer.reserve_exact(more);
            self.buffer.resize(wanted, 0);
        }
        let limit = most.min(self.buffer.len());
        self.buffer.get_mut(self.end..limit).unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Bytes of the whole frame; at most 16 more than [`protocol::Kind::body_limit`].
const fn frame_len(header: Header) -> usize {
    FRAME_HEADER_LEN + header.body_len as usize
}
