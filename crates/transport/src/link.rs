//! A socket's bytes as they are, or as sealed records: the one place where a connection's bytes are encrypted.
//!
//! ```text
//! record:  sealed length of what follows (2 + 16 bytes)  ·  sealed bytes (1 to 32,768, + 16)
//! ```
//!
//! The length is sealed by itself, so that a changed one is noticed at once instead of being waited for. Records count:
//! none can be left out, repeated, exchanged or sent back. The link's end can be forged by anybody on the way, as it
//! can without a key; what it must not be taken for is the migration's end, which has a frame.

use alloc::vec::Vec;

use crate::config::RECORD_BYTES;
use crate::sealing::{Refuted, Session, TAG_BYTES};
use crate::{IoOutcome, Stream};

const LENGTH_BYTES: usize = 2;
const HEAD_BYTES: usize = LENGTH_BYTES + TAG_BYTES;
const LONGEST_BODY: usize = RECORD_BYTES + TAG_BYTES;

/// A socket, and what has to be done to its bytes.
#[derive(Debug)]
pub(crate) struct Link<S> {
    pub(crate) socket: S,
    /// Apart from its buffers, so that none is known for sure where there are no sessions.
    session: Option<Session>,
    records: Records,
    received: u64,
    sent: u64,
}

/// What is on its way between a session and its socket.
#[derive(Debug)]
struct Records {
    /// What the record in the making holds.
    plain: Vec<u8>,
    /// A sealed record; from `taken` on it waits for the socket.
    sealed: Vec<u8>,
    taken: usize,
    /// Bytes `start..end` have arrived and have not been opened.
    arrived: Vec<u8>,
    start: usize,
    end: usize,
    /// Length of the body that comes next, once its head has been opened.
    body: Option<usize>,
    /// An opened body; from `given` on it waits for the reader.
    opened: Vec<u8>,
    given: usize,
}

impl<S> Link<S> {
    /// A link that leaves bytes as they are.
    pub(crate) const fn new(socket: S) -> Self {
        let records = Records {
            plain: Vec::new(),
            sealed: Vec::new(),
            taken: 0,
            arrived: Vec::new(),
            start: 0,
            end: 0,
            body: None,
            opened: Vec::new(),
            given: 0,
        };
        Self { socket, session: None, records, received: 0, sent: 0 }
    }

    /// Seals what is sent from here on, and opens what is received.
    pub(crate) fn seal(&mut self, session: Session) {
        self.session = Some(session);
    }

    /// Bytes received from the socket so far.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that the socket has taken so far.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether a sealed record waits for the socket.
    pub(crate) fn wants_write(&self) -> bool {
        self.session.is_some() && self.records.taken < self.records.sealed.len()
    }
}

impl<S: Stream> Link<S> {
    /// Writes what is left of a sealed record; `None` once nothing is left.
    pub(crate) fn flush(&mut self) -> Option<IoOutcome> {
        self.session.as_ref()?;
        let records = &mut self.records;
        while let Some(rest) = records.sealed.get(records.taken..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest, &[]) {
                IoOutcome::Done(count) => {
                    records.taken += count;
                    self.sent += count as u64;
                }
                other => return Some(other),
            }
        }
        None
    }

    fn read_sealed(&mut self, buffer: &mut [u8]) -> IoOutcome {
        loop {
            let Some(session) = &mut self.session else { return IoOutcome::Altered };
            let records = &mut self.records;
            match records.take_out(session, buffer) {
                Ok(0) => {}
                Ok(count) => return IoOutcome::Done(count),
                Err(Refuted) => return IoOutcome::Altered,
            }
            match self.socket.read(records.room()) {
                IoOutcome::Done(count) => {
                    records.end += count;
                    self.received += count as u64;
                }
                other => return other,
            }
        }
    }

    fn write_sealed(&mut self, head: &[u8], body: &[u8]) -> IoOutcome {
        if let Some(outcome) = self.flush() {
            return outcome;
        }
        let Some(session) = &mut self.session else { return IoOutcome::Altered };
        let Ok(count) = self.records.put_in(session, head, body) else { return IoOutcome::Altered };
        match self.flush() {
            None | Some(IoOutcome::WouldBlock) => IoOutcome::Done(count),
            Some(other) => other,
        }
    }
}

impl Records {
    /// Seals as much of `head` and `body` as one record holds; returns how much that is.
    fn put_in(&mut self, session: &mut Session, head: &[u8], body: &[u8]) -> Result<usize, Refuted> {
        self.plain.clear();
        for part in [head, body] {
            let room = RECORD_BYTES - self.plain.len();
            self.plain.extend_from_slice(part.get(..room).unwrap_or(part));
        }
        let count = self.plain.len();
        let length = u16::try_from(count).map_err(|_| Refuted)?.to_le_bytes();
        self.taken = 0;
        self.sealed.resize(HEAD_BYTES + count + TAG_BYTES, 0);
        let (sealed_head, sealed_body) = self.sealed.split_at_mut_checked(HEAD_BYTES).ok_or(Refuted)?;
        session.seal(&length, sealed_head)?;
        session.seal(&self.plain, sealed_body)?;
        Ok(count)
    }

    /// Puts opened bytes into `buffer`; 0 if more must arrive first.
    fn take_out(&mut self, session: &mut Session, buffer: &mut [u8]) -> Result<usize, Refuted> {
        if self.given == self.opened.len() && !self.open_body(session)? {
            return Ok(0);
        }
        let ready = self.opened.get(self.given..).unwrap_or_default();
        let count = ready.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), ready.get(..count)) {
            to.copy_from_slice(from);
        }
        self.given += count;
        Ok(count)
    }

    /// Opens the next record, if all of it has arrived.
    fn open_body(&mut self, session: &mut Session) -> Result<bool, Refuted> {
        let body = match self.body {
            Some(body) => body,
            None => {
                let mut length = [0; LENGTH_BYTES];
                let Some(head) = next(&self.arrived, self.start, self.end, HEAD_BYTES) else {
                    return Ok(false);
                };
                session.open(head, &mut length)?;
                self.start += HEAD_BYTES;
                usize::from(u16::from_le_bytes(length)) + TAG_BYTES
            }
        };
        if body == TAG_BYTES || body > LONGEST_BODY {
            return Err(Refuted);
        }
        self.body = Some(body);
        let Some(sealed) = next(&self.arrived, self.start, self.end, body) else { return Ok(false) };
        self.opened.resize(body - TAG_BYTES, 0);
        self.given = 0;
        session.open(sealed, &mut self.opened)?;
        self.start += body;
        self.body = None;
        Ok(true)
    }

    /// Where bytes go that arrive; room at least for what is waited for.
    fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.arrived.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.arrived.resize(HEAD_BYTES + LONGEST_BODY, 0);
        self.arrived.get_mut(self.end..).unwrap_or_default()
    }
}

/// The first `len` of the bytes `start..end`.
fn next(bytes: &[u8], start: usize, end: usize, len: usize) -> Option<&[u8]> {
    bytes.get(start..end)?.get(..len)
}

impl<S: Stream> Stream for Link<S> {
    fn read(&mut self, buffer: &mut [u8]) -> IoOutcome {
        if self.session.is_some() {
            return self.read_sealed(buffer);
        }
        let outcome = self.socket.read(buffer);
        if let IoOutcome::Done(count) = outcome {
            self.received += count as u64;
        }
        outcome
    }

    fn write(&mut self, head: &[u8], body: &[u8]) -> IoOutcome {
        if self.session.is_some() {
            return self.write_sealed(head, body);
        }
        let outcome = self.socket.write(head, body);
        if let IoOutcome::Done(count) = outcome {
            self.sent += count as u64;
        }
        outcome
    }
}
