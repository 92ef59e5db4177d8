//! The three connections of a migration, and which of them may have a frame.

use std::io;
use std::os::fd::AsRawFd;

use memory::PageRange;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use protocol::{Channel, FrameError, Header, Kind};
use sys::net;
use transport::{Connection, ConnectionError, Expected};

use crate::fill::part;
use crate::receive::unpack;

/// A connection and what is known of it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) connection: Connection<TcpStream>,
    channel: Channel,
    /// The pages of the frame that is in hand, and their bytes if they came packed.
    pages: Option<PageRange>,
    unpacked: Vec<u8>,
    /// Reading might yield a frame.
    readable: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// What came made no sense: nothing more is read, but the other side can be told.
    Deaf,
    /// The link is gone.
    Ended,
}

/// The three connections of a migration, greeted and non-blocking.
#[derive(Debug)]
pub struct Channels {
    control: Line,
    fault: Line,
    push: Line,
}

impl Channels {
    /// Takes three sockets on which `Welcome` was the last frame.
    #[must_use]
    pub fn new(control: TcpStream, fault: TcpStream, push: TcpStream) -> Self {
        let plain = |stream, channel| Connection::new(stream, Expected::FromSource(channel));
        Self::over(plain(control, Channel::Control), plain(fault, Channel::Fault), plain(push, Channel::Push))
    }

    /// Takes three connections that expect what the source sends on their channel.
    #[must_use]
    pub const fn over(
        control: Connection<TcpStream>,
        fault: Connection<TcpStream>,
        push: Connection<TcpStream>,
    ) -> Self {
        Self {
            control: Line::new(control, Channel::Control),
            fault: Line::new(fault, Channel::Fault),
            push: Line::new(push, Channel::Push),
        }
    }

    pub(crate) const fn get(&self, channel: Channel) -> &Line {
        match channel {
            Channel::Control => &self.control,
            Channel::Fault => &self.fault,
            Channel::Push => &self.push,
        }
    }

    pub(crate) const fn get_mut(&mut self, channel: Channel) -> &mut Line {
        match channel {
            Channel::Control => &mut self.control,
            Channel::Fault => &mut self.fault,
            Channel::Push => &mut self.push,
        }
    }

    /// Has readiness of all three reported under [`token`].
    pub(crate) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        for channel in Channel::ALL {
            let stream = self.get_mut(channel).connection.stream_mut();
            net::keep_alive(stream.as_raw_fd());
            registry.register(stream, token(channel), Interest::READABLE | Interest::WRITABLE)?;
        }
        Ok(())
    }

    /// For how many milliseconds nothing has come over any of them that stands; 0 if none does.
    pub(crate) fn silent_for(&self) -> u32 {
        let standing =
            Channel::ALL.map(|channel| self.get(channel)).into_iter().filter(|line| !line.has_ended());
        standing.map(|line| net::silent_for(line.connection.stream().as_raw_fd())).min().unwrap_or(0)
    }

    /// Hangs up on all three: the other side learns that they are of no use any more.
    pub(crate) fn hang_up(&mut self, registry: &Registry) {
        for channel in Channel::ALL {
            let line = self.get_mut(channel);
            let stream = line.connection.stream_mut();
            // What cannot be done to a connection that is gone need not be done.
            let _ = registry.deregister(stream);
            let _ = stream.shutdown(std::net::Shutdown::Both);
            line.end();
        }
    }

    /// Bytes received on all three, headers included.
    pub(crate) fn bytes_received(&self) -> u64 {
        Channel::ALL.map(|channel| self.get(channel).connection.bytes_received()).iter().sum()
    }
}

impl Line {
    const fn new(connection: Connection<TcpStream>, channel: Channel) -> Self {
        Self { connection, channel, pages: None, unpacked: Vec::new(), readable: true, state: State::Open }
    }

    /// The kernel says that the socket is ready.
    pub(crate) fn became_ready(&mut self, event: &mio::event::Event) -> Result<(), ConnectionError> {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        if event.is_writable() && self.has_unsent() {
            self.connection.flush()?;
        }
        Ok(())
    }

    /// Whether asking for a frame makes sense.
    pub(crate) const fn may_have_frame(&self) -> bool {
        self.readable && matches!(self.state, State::Open)
    }

    /// Collects the next frame; true when there is one in hand.
    pub(crate) fn receive(&mut self) -> Result<bool, ConnectionError> {
        self.pages = None;
        self.readable = self.connection.receive()?.is_some();
        Ok(self.readable)
    }

    /// Unpacks the packed pages in hand, whose header this is, and returns which they are.
    pub(crate) fn unpack(&mut self, header: Header) -> Result<PageRange, FrameError> {
        let body = self.connection.frame().map(|frame| frame.body).unwrap_or_default();
        unpack(header, body, &mut self.unpacked)
    }

    /// The body of the frame in hand, as it came.
    pub(crate) fn body(&self) -> &[u8] {
        self.connection.frame().map(|frame| frame.body).unwrap_or_default()
    }

    /// The frame in hand holds the bytes of these pages.
    pub(crate) const fn holds(&mut self, pages: PageRange) {
        self.pages = Some(pages);
    }

    /// How many pages the frame in hand holds, if it holds the bytes of any.
    pub(crate) fn pages_in_hand(&self) -> u64 {
        self.pages.map_or(0, PageRange::pages)
    }

    /// The bytes of `source`, which lies within the frame in hand: the engine was told of no other.
    pub(crate) fn page_bytes(&self, source: PageRange) -> &[u8] {
        let pages = self.pages.expect("page bytes are asked for only while their frame is in hand");
        assert!(pages.covers(source), "{source} is not in the frame in hand, {pages}");
        self.connection.frame().map_or(&[], |frame| {
            let is_packed = frame.header.kind == Kind::PackedPages;
            part(if is_packed { &self.unpacked } else { frame.body }, pages, source)
        })
    }

    /// The link is gone.
    pub(crate) const fn end(&mut self) {
        self.state = State::Ended;
    }

    /// Nothing more is read.
    pub(crate) const fn deafen(&mut self) {
        if matches!(self.state, State::Open) {
            self.state = State::Deaf;
        }
    }

    /// Whether the link is gone.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the other side's end of the connection is not waited for: it is gone, or not listened to.
    pub(crate) fn is_over(&self) -> bool {
        match self.state {
            State::Open => false,
            State::Deaf => !self.connection.wants_write(),
            State::Ended => true,
        }
    }

    fn has_unsent(&self) -> bool {
        !self.has_ended() && self.connection.wants_write()
    }

    pub(crate) const fn channel(&self) -> Channel {
        self.channel
    }
}

/// Under which a channel's readiness is reported.
pub(crate) const fn token(channel: Channel) -> Token {
    Token(match channel {
        Channel::Control => 0,
        Channel::Fault => 1,
        Channel::Push => 2,
    })
}
