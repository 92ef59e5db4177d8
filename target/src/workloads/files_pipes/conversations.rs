//! Sockets that talk to each other with something always in flight, a FIFO that is never empty, a timer that has gone
//! off, and an epoll set within another.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::OFlag;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::Mode;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::mkfifo;

/// Messages in flight between two rounds.
const IN_FLIGHT: u64 = 3;
const TOKEN: u64 = 0x7777_0000_1111_2222;

/// The sockets and what else there is.
pub(super) struct Conversations {
    directory: PathBuf,
    pair: (UnixDatagram, UnixDatagram),
    stream: (UnixStream, UnixStream),
    listener: UnixListener,
    /// Waits to be accepted.
    caller: UnixStream,
    datagrams: (UdpSocket, UdpSocket),
    fifo: File,
    timer: TimerFd,
    outer: Epoll,
    _inner: Epoll,
    sent: u64,
    received: u64,
}

impl Conversations {
    /// Opens everything, and says the first words.
    pub(super) fn create() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("target-talk-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let fifo = directory.join("fifo");
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).context("making a FIFO")?;
        let mut options = OpenOptions::new();
        let fifo = options.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(fifo);
        let listener = UnixListener::bind(directory.join("socket")).context("listening")?;
        let caller = UnixStream::connect(directory.join("socket")).context("calling")?;
        let stream = UnixStream::pair().context("a pair of streams")?;
        let (outer, inner) = (epoll()?, epoll()?);
        inner.add(stream.1.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TOKEN))?;
        outer.add(inner.0.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TOKEN + 1))?;
        let mut conversations = Self {
            directory,
            pair: UnixDatagram::pair().context("a pair of sockets")?,
            stream,
            listener,
            caller,
            datagrams: connected()?,
            fifo: fifo.context("opening a FIFO")?,
            timer: timer()?,
            outer,
            _inner: inner,
            sent: 0,
            received: 0,
        };
        for _ in 0..IN_FLIGHT {
            conversations.say()?;
        }
        Ok(conversations)
    }

    /// One message more everywhere, and the oldest one read.
    pub(super) fn round(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 2];
        let ready = self.outer.wait(&mut events, EpollTimeout::ZERO).context("the outer epoll set")?;
        ensure!(ready == 1 && events[0].data() == TOKEN + 1, "{ready} are ready, {:#x}", events[0].data());
        self.say()?;
        self.hear()?;
        self.accept().context("a connection that waited")?;
        let left = self.timer.get().context("asking the timer")?;
        ensure!(matches!(left, Some(Expiration::IntervalDelayed(..))), "the timer says {left:?}");
        self.datagrams.0.send(b"over UDP").context("sending a datagram")?;
        let mut heard = [0; 16];
        let length = self.datagrams.1.recv(&mut heard).context("receiving a datagram")?;
        ensure!(&heard[..length] == b"over UDP", "heard {heard:?}");
        Ok(())
    }

    /// Removes what was created.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.directory).with_context(|| format!("removing {}", self.directory.display()))
    }

    fn say(&mut self) -> Result<()> {
        let word = self.sent.to_le_bytes();
        let one = self.pair.0.send(&word).context("sending a message")?;
        let two = self.stream.0.write(&word).context("writing to a stream")?;
        let three = self.fifo.write(&word).context("writing to a FIFO")?;
        ensure!([one, two, three] == [8; 3], "only {one}, {two} and {three} bytes were taken");
        self.sent += 1;
        Ok(())
    }

    fn hear(&mut self) -> Result<()> {
        let expected = self.received.to_le_bytes();
        let mut word = [0; 16];
        let length = self.pair.1.recv(&mut word).context("receiving a message")?;
        ensure!(word[..length] == expected, "the message is {word:?}");
        let mut word = [0; 8];
        self.stream.1.read_exact(&mut word).context("reading from a stream")?;
        ensure!(word == expected, "the stream says {word:?}");
        self.fifo.read_exact(&mut word).context("reading from a FIFO")?;
        ensure!(word == expected, "the FIFO says {word:?}");
        self.received += 1;
        Ok(())
    }

    /// Accepts the call that waits, is heard, and calls again.
    fn accept(&mut self) -> Result<()> {
        let (mut accepted, _) = self.listener.accept()?;
        self.caller.write_all(b"!")?;
        accepted.read_exact(&mut [0])?;
        self.caller = UnixStream::connect(self.directory.join("socket"))?;
        Ok(())
    }
}

fn epoll() -> Result<Epoll> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("making an epoll set")
}

/// A timer that goes off every hour.
fn timer() -> Result<TimerFd> {
    const HOUR: Duration = Duration::from_secs(3600);
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).context("making a timer")?;
    let when = Expiration::IntervalDelayed(HOUR.into(), HOUR.into());
    timer.set(when, TimerSetTimeFlags::empty()).context("setting a timer")?;
    Ok(timer)
}

/// Two UDP sockets that hear each other only.
fn connected() -> Result<(UdpSocket, UdpSocket)> {
    let make = || UdpSocket::bind("127.0.0.1:0").context("making a UDP socket");
    let (one, two) = (make()?, make()?);
    one.connect(two.local_addr()?).context("connecting")?;
    two.connect(one.local_addr()?).context("connecting")?;
    Ok((one, two))
}
