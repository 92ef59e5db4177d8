//! One end of a relayed connection: a socket, and how far its two directions are.

use alloc::vec::Vec;

use sys::net::{self, Transfer};
use sys::poll::{Interest, poll};
use sys::{Errno, Fd};

/// How far the direction from the link into the socket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Inward {
    /// More may come.
    Open,
    /// Nothing more comes; once the socket has taken what waits, the other side is told.
    Ending,
    /// The other side was told.
    Ended,
    /// The other side broke the connection; once the socket has taken what was said before, it breaks too.
    Breaking,
    /// The socket takes nothing more.
    Broken,
}

/// What reading a socket has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// This many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The other side says nothing more.
    End,
    /// The connection is broken.
    Broken,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct End {
    /// What the connection is called on the link.
    pub(crate) name: u32,
    socket: Fd,
    /// What has come over the link; from `given` on it waits for the socket.
    waiting: Vec<u8>,
    given: usize,
    inward: Inward,
    /// The other side has not ended the direction out of the socket.
    reads: bool,
    /// Bytes that may be taken from the socket.
    credit: usize,
    /// Bytes that the socket has taken, or never will, since room was last told.
    taken: usize,
    is_ready: bool,
    has_begun: bool,
    shared_before: bool,
}

impl End {
    pub(crate) const fn new(name: u32, socket: Fd) -> Self {
        Self {
            name,
            socket,
            waiting: Vec::new(),
            given: 0,
            inward: Inward::Open,
            reads: true,
            credit: 0,
            taken: 0,
            is_ready: false,
            has_begun: false,
            shared_before: false,
        }
    }

    /// Lets others have its address too: the program, which wants to listen there on, or when it comes back.
    pub(crate) fn share_address(&mut self) {
        self.shared_before = net::shares_address(&self.socket);
        net::share_address(&self.socket, true);
    }

    /// Undoes [`Self::share_address`].
    pub(crate) fn give_back(&self) {
        net::share_address(&self.socket, self.shared_before);
    }

    /// The connection is the relay's: if that is killed, it breaks instead of ending.
    pub(crate) fn keep(&mut self) {
        if !self.has_begun {
            net::break_on_close(&self.socket, true);
        }
        self.has_begun = true;
    }

    /// Whether the connection is the relay's.
    pub(crate) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Lets more be taken from the socket. With the first of it the connection is the relay's.
    pub(crate) fn give_credit(&mut self, bytes: u32) {
        self.keep();
        self.credit = self.credit.saturating_add(bytes as usize);
    }

    /// What to wait for; `may_read` if the link takes anything.
    pub(crate) fn interest(&self, may_read: bool) -> Interest {
        let writes = self.given < self.waiting.len() || self.is_breaking();
        match (may_read && self.reads && self.credit > 0, writes) {
            // A broken one is looked at even when nothing is left to read.
            (true, write) => Interest::new(&self.socket, write || self.is_broken()),
            (false, true) => Interest::writable(&self.socket),
            (false, false) => Interest::nothing(),
        }
    }

    /// Takes note of what was waited for.
    pub(crate) fn note(&mut self, interest: &Interest) {
        self.is_ready = interest.is_readable() || interest.is_writable();
    }

    /// Whether the last wait has found anything to do; the answer is given once.
    pub(crate) fn is_ready(&mut self) -> bool {
        core::mem::take(&mut self.is_ready)
    }

    /// Takes as many bytes from the socket as there is credit for and room in `buffer`. A broken one says so behind the
    /// last of them; without credit only once the other side, which reads nothing, has no room either to send more.
    pub(crate) fn take(&mut self, buffer: &mut [u8], window: usize) -> Taken {
        let most = buffer.len().min(self.credit);
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let received =
            if self.reads && most > 0 { net::receive_now(&self.socket, buffer) } else { Err(Errno::EAGAIN) };
        match received {
            Ok(count @ 1..) => {
                self.credit -= count;
                Taken::Bytes(count)
            }
            _ if self.is_broken() && self.reads && most == 0 && self.taken < window => Taken::Nothing,
            _ if self.is_broken() => Taken::Broken,
            Ok(_) => {
                self.reads = false;
                Taken::End
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Taken::Nothing,
            Err(_) => Taken::Broken,
        }
    }

    /// Takes what has come over the link; false if that is more than there was room for, or comes behind the end.
    pub(crate) fn put(&mut self, bytes: &[u8], window: usize) -> bool {
        match self.inward {
            // The other side is told, behind what is still to be read.
            Inward::Broken => {
                self.taken += bytes.len();
                return true;
            }
            Inward::Ending | Inward::Ended | Inward::Breaking => return false,
            Inward::Open if bytes.is_empty() => self.inward = Inward::Ending,
            Inward::Open => {
                self.waiting.drain(..self.given);
                self.given = 0;
                self.waiting.extend_from_slice(bytes);
            }
        }
        if self.waiting.len() > window {
            return false;
        }
        self.give();
        true
    }

    /// Gives the socket what waits, as far as it takes it.
    pub(crate) fn give(&mut self) {
        while let Some(rest) = self.waiting.get(self.given..).filter(|rest| !rest.is_empty()) {
            match net::send(&self.socket, [rest, &[]]) {
                Ok(Transfer::Done(count)) => {
                    self.given += count;
                    self.taken += count;
                }
                Ok(Transfer::WouldBlock) => return,
                Ok(Transfer::Closed) | Err(_) => {
                    self.inward = Inward::Broken;
                    break;
                }
            }
        }
        self.taken += self.waiting.len() - self.given;
        self.waiting = Vec::new();
        self.given = 0;
        if self.inward == Inward::Ending {
            net::end(&self.socket);
            self.inward = Inward::Ended;
        }
    }

    /// Room that has come free and is worth telling.
    pub(crate) fn room(&mut self, window: usize) -> Option<usize> {
        let is_worth_telling = self.taken >= window / 2 && self.inward == Inward::Open;
        is_worth_telling.then(|| core::mem::take(&mut self.taken))
    }

    /// Whether the socket takes nothing more.
    pub(crate) fn is_broken(&self) -> bool {
        self.inward == Inward::Broken
    }

    /// Whether both directions have ended in order as far as the link goes: at most the socket has to take the rest.
    pub(crate) fn has_heard_all(&self) -> bool {
        !self.reads && matches!(self.inward, Inward::Ending | Inward::Ended)
    }

    /// Whether both directions have ended in order. What the kernel still has to send it goes on sending.
    pub(crate) fn is_over(&self) -> bool {
        let is_over = self.inward == Inward::Ended && !self.reads;
        if is_over {
            net::break_on_close(&self.socket, false);
        }
        is_over
    }

    /// The other side broke the connection: so does this one behind what waits. What the socket still says goes nowhere,
    /// so that one who only writes comes to read; up to a bound, because he may never do so.
    pub(crate) fn break_behind_the_rest(&mut self, window: usize) {
        self.inward = Inward::Breaking;
        self.credit = window;
        // A break would destroy what the kernel has not sent: with nothing of that kind left it takes more.
        net::take_at_most(&self.socket, 1);
        self.give();
    }

    /// Whether what the socket says goes nowhere.
    pub(crate) fn is_breaking(&self) -> bool {
        self.inward == Inward::Breaking
    }

    /// Gives what waits to one that breaks, or has only to be given the rest, without a link.
    pub(crate) fn give_last(&mut self) {
        self.give();
        let mut nowhere = [0; 4096];
        if self.is_breaking() && self.take(&mut nowhere, usize::MAX) == Taken::Broken {
            self.inward = Inward::Broken;
        }
    }

    /// Whether there is nothing more to wait for before the connection breaks.
    pub(crate) fn is_to_break(&self) -> bool {
        let has_sent_all = || matches!(poll(&mut [Interest::writable(&self.socket)], Some(0)), Ok(1));
        self.is_breaking() && (self.credit == 0 || self.waiting.is_empty() && has_sent_all())
    }

    /// Breaks the connection, if it is the relay's already.
    pub(crate) fn shatter(&mut self) {
        if self.has_begun {
            self.give();
            net::break_on_close(&self.socket, true);
        }
    }
}
