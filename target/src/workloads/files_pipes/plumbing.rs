//! A pipe that is never empty, an event counter that is never zero, and an epoll set that watches both.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::random::mix;

/// Bytes in flight between two rounds.
const IN_FLIGHT: u64 = 5_000;
const BYTES_PER_ROUND: u64 = 1_000;
const PIPE_TOKEN: u64 = 0x1111_2222_3333_4444;
const EVENT_TOKEN: u64 = 0x5555_6666_7777_8888;

/// The descriptors, and how much has gone through them.
pub(super) struct Plumbing {
    reader: PipeReader,
    writer: PipeWriter,
    written: u64,
    read: u64,
    event: EventFd,
    epoll: Epoll,
    idle: (PipeReader, PipeWriter),
}

impl Plumbing {
    /// Opens everything, fills the pipe, and puts three descriptors into the interest list.
    pub(super) fn create() -> Result<Self> {
        let (reader, writer) = std::io::pipe().context("making a pipe")?;
        let event = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC).context("making an eventfd")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("making an epoll set")?;
        let idle = std::io::pipe().context("making a pipe")?;
        epoll.add(reader.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, PIPE_TOKEN))?;
        epoll.add(event.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, EVENT_TOKEN))?;
        epoll.add(idle.0.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX))?;
        let mut plumbing = Self { reader, writer, written: 0, read: 0, event, epoll, idle };
        plumbing.write(IN_FLIGHT)?;
        Ok(plumbing)
    }

    /// Moves bytes through the pipe, the counter from one value to the next, and asks who is ready.
    pub(super) fn round(&mut self, round: u64) -> Result<()> {
        self.ready()?;
        self.write(BYTES_PER_ROUND)?;
        self.read(BYTES_PER_ROUND)?;
        let (found, expected) = (self.event.read().context("reading the eventfd")?, 1 + round % 1000);
        ensure!(found == expected, "the eventfd counted {found}, not {expected}");
        self.event.write(1 + (round + 1) % 1000).context("writing the eventfd")?;
        Ok(())
    }

    fn ready(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 4];
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).context("waiting on the epoll set")?;
        let mut tokens: Vec<u64> = events[..ready].iter().map(EpollEvent::data).collect();
        tokens.sort_unstable();
        ensure!(tokens == [PIPE_TOKEN, EVENT_TOKEN], "ready are {tokens:#x?}");
        // The idle pipe is watched too: it is ready as soon as it holds a byte.
        self.idle.1.write_all(b"!")?;
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).context("waiting on the epoll set")?;
        ensure!(ready == 3, "{ready} of 3 are ready");
        self.idle.0.read_exact(&mut [0])?;
        Ok(())
    }

    fn write(&mut self, bytes: u64) -> Result<()> {
        let chunk: Vec<u8> = (self.written..self.written + bytes).map(byte).collect();
        self.writer.write_all(&chunk).context("writing to the pipe")?;
        self.written += bytes;
        Ok(())
    }

    fn read(&mut self, bytes: u64) -> Result<()> {
        for at in self.read..self.read + bytes {
            let mut found = [0];
            self.reader.read_exact(&mut found).context("reading from the pipe")?;
            ensure!(found == [byte(at)], "byte {at} of the pipe is {found:02x?}");
        }
        self.read += bytes;
        Ok(())
    }
}

fn byte(at: u64) -> u8 {
    mix(at).to_le_bytes()[0]
}
