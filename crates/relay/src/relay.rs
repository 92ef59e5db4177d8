//! Many connections over one link.

use alloc::vec::Vec;

use protocol::{Header, Kind, MAX_RELAYED_BYTES};
use sys::poll::{Interest, poll};
use sys::{Fd, net};
use transport::{Connection, ConnectionError, Expected};

use crate::Socket;
use crate::config::{FRAMES_PER_TURN, SILENCE_MS, window};
use crate::end::{End, Taken};

/// One side of a relay. Dropped early it breaks its connections, if it has begun to take from them.
#[derive(Debug)]
pub struct Relay {
    link: Connection<Socket>,
    /// Ascending by name.
    ends: Vec<End>,
    window: usize,
    buffer: Vec<u8>,
    /// Which end is looked at first, so that none is always the last.
    first: usize,
    /// The other side was told that nothing more comes from here.
    has_said_farewell: bool,
    /// Nothing more comes over the link.
    is_closed: bool,
    has_begun: bool,
}

impl Relay {
    /// A relay of connections, each with the name that it has on the link, ascending. The link is greeted.
    #[must_use]
    pub fn new(mut link: Connection<Socket>, connections: Vec<(u32, Fd)>) -> Self {
        link.expect(Expected::Relayed);
        // A machine that is gone says nothing, and this side may have nothing to say.
        net::keep_alive(link.stream().fd().raw());
        net::give_up_after(link.stream().fd(), SILENCE_MS);
        let mut ends = Vec::new();
        for (name, socket) in connections {
            ends.push(End::new(name, socket));
        }
        Self {
            window: window(ends.len()),
            link,
            ends,
            buffer: Vec::new(),
            first: 0,
            has_said_farewell: false,
            is_closed: false,
            has_begun: false,
        }
    }

    /// Tells the other side that it may send. The program must run at the destination, or never run anywhere but there.
    pub fn begin(&mut self) {
        self.ends.iter_mut().for_each(End::share_address);
        for index in 0..self.ends.len() {
            let told = self.tell_room(index, self.window);
            if told.is_err() {
                return self.lose_link();
            }
        }
    }

    /// The program goes on with its connections, after all: they are as they were before [`Self::begin`].
    pub fn give_back(&self) {
        if !self.has_begun {
            self.ends.iter().for_each(End::give_back);
        }
    }

    /// The program runs at the destination: whatever becomes of this process, its connections break from here on and do
    /// not end, even if it never takes a byte from them.
    pub fn keep(&mut self) {
        self.ends.iter_mut().for_each(End::keep);
        if self.is_closed {
            self.lose_link();
        }
    }

    /// Whether the link is gone: with it goes every connection that is the relay's.
    #[must_use]
    pub const fn has_lost_link(&self) -> bool {
        self.is_closed
    }

    /// How many connections there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no connections any more.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether the other side has let bytes be taken from the connections: from here on they are the relay's alone.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether there is nothing more to do.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_closed && self.ends.is_empty()
    }

    /// What to wait for: the link, then each end.
    #[must_use]
    pub fn interests(&self) -> Vec<Interest> {
        let mut interests = Vec::new();
        let is_full = self.link.wants_write();
        interests.push(if self.is_closed {
            Interest::nothing()
        } else {
            Interest::new(self.link.stream().fd(), is_full)
        });
        for end in &self.ends {
            interests.push(end.interest(!is_full));
        }
        interests
    }

    /// Does a bounded piece of work without waiting; false when there was none.
    pub fn turn(&mut self) -> bool {
        if self.is_over() {
            return false;
        }
        let mut interests = self.interests();
        let may_have_more = !self.is_closed && !self.link.is_drained();
        if !matches!(poll(&mut interests, Some(0)), Ok(1..)) && !may_have_more {
            return false;
        }
        for (end, interest) in self.ends.iter_mut().zip(interests.iter().skip(1)) {
            end.note(interest);
        }
        if self.is_closed {
            self.give_last();
        } else if self.exchange().is_err() {
            self.lose_link();
        }
        true
    }

    fn exchange(&mut self) -> Result<(), ConnectionError> {
        self.buffer.resize(MAX_RELAYED_BYTES as usize, 0);
        self.link.flush()?;
        self.hear()?;
        self.serve_ends()?;
        self.buffer = Vec::new();
        if self.ends.is_empty() && !self.link.wants_write() && !self.has_said_farewell {
            self.has_said_farewell = true;
            net::end(self.link.stream().fd());
        }
        Ok(())
    }

    /// Takes what has come over the link.
    fn hear(&mut self) -> Result<(), ConnectionError> {
        for _ in 0..FRAMES_PER_TURN {
            let Some(frame) = self.link.receive()? else { return Ok(()) };
            let Header { kind, argument, .. } = frame.header;
            let name = u32::try_from(argument).unwrap_or(u32::MAX);
            // Of one that has gone meanwhile the other side hears in time.
            let Ok(index) = self.ends.binary_search_by_key(&name, |end| end.name) else { continue };
            let Some(end) = self.ends.get_mut(index) else { continue };
            match kind {
                Kind::RelayReset => {
                    end.break_behind_the_rest(self.window);
                    self.settle(index)?;
                }
                Kind::RelayCredit => {
                    let bytes = frame.body.first_chunk().ok_or(ConnectionError::Unexpected(kind))?;
                    end.give_credit(u32::from_le_bytes(*bytes));
                    self.has_begun = true;
                }
                _ if !end.put(frame.body, self.window) => return Err(ConnectionError::Unexpected(kind)),
                _ => self.settle(index)?,
            }
        }
        Ok(())
    }

    /// Moves bytes between the link and the ends that are ready.
    fn serve_ends(&mut self) -> Result<(), ConnectionError> {
        let count = self.ends.len();
        self.first = self.first.wrapping_add(1);
        // From the last to the first, because those that are over are removed.
        for step in (0..count).rev() {
            let index = (step + self.first) % count;
            let Some(end) = self.ends.get_mut(index) else { continue };
            if !end.is_ready() {
                continue;
            }
            end.give();
            if !self.link.wants_write() {
                self.take_from(index)?;
            }
            self.settle(index)?;
        }
        Ok(())
    }

    /// Passes on what the other side of an end has said.
    fn take_from(&mut self, index: usize) -> Result<(), ConnectionError> {
        let Some(end) = self.ends.get_mut(index) else { return Ok(()) };
        let header = Header { argument: end.name.into(), ..Header::plain(Kind::Relayed, 0) };
        match end.take(&mut self.buffer, self.window) {
            Taken::Nothing => Ok(()),
            Taken::Bytes(_) | Taken::End if end.is_breaking() => Ok(()),
            Taken::Bytes(count) => self.link.send(header, self.buffer.get(..count).unwrap_or_default()),
            Taken::End => self.link.send(header, &[]),
            Taken::Broken => {
                end.shatter();
                let end = self.ends.remove(index);
                self.link.send_signal(Kind::RelayReset, end.name.into())
            }
        }
    }

    /// Tells of room that has come free, and lets go of an end that is broken or over.
    fn settle(&mut self, index: usize) -> Result<(), ConnectionError> {
        let Some(end) = self.ends.get_mut(index) else { return Ok(()) };
        if end.is_over() {
            drop(self.ends.remove(index));
        } else if end.is_to_break() {
            end.shatter();
            drop(self.ends.remove(index));
        } else if end.is_broken() {
            // What was said before it broke can still be read: this is the first of it.
            self.take_from(index)?;
        } else if let Some(bytes) = end.room(self.window) {
            self.tell_room(index, bytes)?;
        }
        Ok(())
    }

    fn tell_room(&mut self, index: usize, bytes: usize) -> Result<(), ConnectionError> {
        let Some(end) = self.ends.get(index) else { return Ok(()) };
        let header = Header { argument: end.name.into(), ..Header::plain(Kind::RelayCredit, 0) };
        self.link.send(header, &u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes())
    }

    /// Nothing more comes over the link, by whatever cause. Breaks every connection but those of which both sides have
    /// said all, or one side has broken: these only have to be given the rest of it. What is not the relay's yet stays
    /// as it is, until [`Self::keep`].
    fn lose_link(&mut self) {
        self.is_closed = true;
        self.buffer = Vec::new();
        self.ends.retain_mut(|end| {
            let is_given_the_rest = !end.has_begun() || end.has_heard_all() || end.is_breaking();
            if !is_given_the_rest {
                end.shatter();
            }
            is_given_the_rest
        });
    }

    /// Gives the ends that are ready what came before the link was closed.
    fn give_last(&mut self) {
        self.ends.retain_mut(|end| {
            if end.is_ready() {
                end.give_last();
            }
            if end.is_to_break() {
                end.shatter();
                return false;
            }
            !end.is_over() && !end.is_broken()
        });
    }
}
