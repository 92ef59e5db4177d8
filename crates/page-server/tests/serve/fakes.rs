//! A process made of a map of pages, and a destination that does what a test tells it to.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::{Config, Failure};
use memory::{Addr, PAGE_SIZE, PageRange, PageSet};
use page_server::{Channels, Outcome, ReadRun, Serving, SourceProcess, serve};
use protocol::{Channel, FileVerdict, Header, Hello, Kind, Manifest, MigrationId, Reserved, SourceReport};
use relay::Socket;
use sys::Fd;
use sys::poll::{Interest, poll};
use transport::{Connection, ConnectionError, Expected, poll_hello, welcome};

/// No wait of a test is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// `pages` pages from page number `first`.
pub(crate) fn range(first: u64, pages: u64) -> PageRange {
    PageRange::from_pages(Addr(first * PAGE_SIZE), pages).expect("a small range")
}

/// The content that a test gives page number `page`: never zero, different for each.
pub(crate) fn content_of(page: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..8].copy_from_slice(&page.to_le_bytes());
    bytes[4095] = 1;
    bytes
}

/// A process whose pages are those of a map.
#[derive(Debug, Default)]
pub(crate) struct FakeProcess {
    /// Pages that exist.
    pub(crate) pages: PageSet,
    /// Existing pages that are all zero; the others hold [`content_of`] their number.
    pub(crate) zero: PageSet,
    /// Pages that nobody can read, whether or not a scan says that they exist.
    pub(crate) unreadable: PageSet,
    /// Of the final manifest.
    pub(crate) eager: Vec<PageRange>,
    /// Of the final manifest.
    pub(crate) lazy: Vec<PageRange>,
    /// What parking says.
    pub(crate) park_failure: Option<Failure>,
    /// What is in the way when the destination is ready.
    pub(crate) obstacle: Option<Failure>,
    /// What has been called, in order.
    pub(crate) calls: Arc<Mutex<Vec<&'static str>>>,
}

impl FakeProcess {
    fn called(&self, name: &'static str) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }

    fn manifest(&self) -> Manifest {
        Manifest { eager: self.eager.clone(), lazy: self.lazy.clone(), ..protocol::sample::manifest() }
    }
}

impl SourceProcess for FakeProcess {
    fn accept(&mut self, answer: Reserved) -> Result<(), Failure> {
        assert_eq!(answer.files, [FileVerdict::Same]);
        self.called("accept");
        Ok(())
    }

    fn park(&mut self) -> Result<(), Failure> {
        self.called("park");
        self.park_failure.take().map_or(Ok(()), Err)
    }

    fn capture(&mut self) -> Result<Arc<Manifest>, Failure> {
        self.called("capture");
        Ok(Arc::new(self.manifest()))
    }

    fn obstacle(&mut self) -> Option<Failure> {
        self.obstacle.take()
    }

    fn commit(&mut self) {
        self.called("commit");
    }

    fn confirmed(&mut self) {
        self.called("confirmed");
    }

    fn reconnect(&mut self, _attempt: u32) -> Result<Channels, Failure> {
        self.called("reconnect");
        Err(Failure::Peer(String::from("the destination is gone")))
    }

    fn read<'a>(&'a mut self, pages: PageRange, buffer: &'a mut [u8]) -> ReadRun<'a> {
        let first = pages.start();
        let readable = !self.unreadable.contains(first);
        let mut run = 0;
        for (page, bytes) in (first.0 / PAGE_SIZE..pages.end().0 / PAGE_SIZE).zip(buffer.chunks_mut(4096)) {
            let at = Addr(page * PAGE_SIZE);
            if self.unreadable.contains(at) == readable {
                break;
            }
            bytes.fill(0);
            if self.pages.contains(at) && !self.zero.contains(at) {
                bytes.copy_from_slice(&content_of(page));
            }
            run += 1;
        }
        ReadRun { pages: run, content: readable.then_some(buffer) }
    }

    fn scan(&mut self, range: PageRange) -> Vec<PageRange> {
        self.pages.runs_in(range).collect()
    }

    fn release(&mut self) {
        self.called("release");
    }

    fn work(&mut self) -> bool {
        false
    }

    fn interests(&self) -> Vec<Interest> {
        Vec::new()
    }

    fn note(&mut self, _line: &'static str) {}
}

/// Where a channel is among the three.
fn at(channel: Channel) -> usize {
    Channel::ALL.iter().position(|other| *other == channel).expect("one of three")
}

/// A received frame.
#[derive(Debug)]
pub(crate) struct Received {
    /// Its head.
    pub(crate) header: Header,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

/// What page frames have said of each page: its content, zero as `Some(empty)`, lost as `None`.
pub(crate) type Pages = BTreeMap<u64, Option<Vec<u8>>>;

/// The other end of the three channels.
#[derive(Debug)]
pub(crate) struct FakeDestination {
    channels: Vec<Connection<Socket>>,
}

impl FakeDestination {
    /// The connection of a channel.
    pub(crate) fn channel(&mut self, channel: Channel) -> &mut Connection<Socket> {
        &mut self.channels[at(channel)]
    }

    /// The next frame on any of `channels`, the first of them preferred.
    pub(crate) fn next(&mut self, channels: &[Channel]) -> Received {
        self.next_or_end(channels).unwrap_or_else(|| panic!("the source has closed one of {channels:?}"))
    }

    /// The next frame on any of `channels`, or `None` when one of them has been closed.
    fn next_or_end(&mut self, channels: &[Channel]) -> Option<Received> {
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            for &channel in channels {
                match self.channel(channel).receive() {
                    Ok(None) => {}
                    Ok(Some(frame)) => {
                        return Some(Received { header: frame.header, body: frame.body.to_vec() });
                    }
                    Err(ConnectionError::Closed) => return None,
                    Err(error) => panic!("{channel}: {error}"),
                }
            }
            let interest =
                |channel: &Channel| Interest::new(self.channels[at(*channel)].stream().fd(), false);
            let mut interests: Vec<_> = channels.iter().map(interest).collect();
            poll(&mut interests, Some(1000)).expect("poll");
            assert!(Instant::now() < deadline, "nothing came on {channels:?} in time");
        }
    }

    /// The next control frame, which is of this kind.
    pub(crate) fn control(&mut self, kind: Kind) -> Received {
        let received = self.next(&[Channel::Control]);
        assert_eq!(received.header.kind, kind);
        received
    }

    /// Sends a control frame without a body.
    pub(crate) fn send(&mut self, kind: Kind) {
        self.channel(Channel::Control).send_signal(kind, 0).expect("the source keeps the link");
    }

    /// Takes the reservation.
    pub(crate) fn reserve(&mut self) {
        self.control(Kind::Reserve);
        let reserved = Reserved {
            files: vec![FileVerdict::Same],
            all_pages_first: false,
            same_kernel: false,
            other_vdso: false,
            connections: protocol::Connections::Reset,
            travel: protocol::Travel { packed: true, ..protocol::Travel::default() },
        };
        self.channel(Channel::Control).send_message(Kind::Reserved, &reserved).expect("an open link");
    }

    /// Takes everything up to `Run`; returns the eager pages.
    pub(crate) fn accept(&mut self, eager: u64) -> Pages {
        self.reserve();
        self.control(Kind::Switchover);
        let mut pages = Pages::new();
        while (pages.len() as u64) < eager {
            let received = self.next(&[Channel::Fault, Channel::Push]);
            note_pages(&received, &mut pages);
        }
        self.send(Kind::Ready);
        self.control(Kind::Run);
        pages
    }

    /// Takes pages until the source has pushed everything and all `count` pages are known.
    pub(crate) fn collect(&mut self, pages: &mut Pages, count: u64) {
        let mut pushed = false;
        while !pushed || (pages.len() as u64) < count {
            let received = self.next(&[Channel::Control, Channel::Fault, Channel::Push]);
            match received.header.kind {
                Kind::PushDone => pushed = true,
                Kind::PageMap | Kind::PageMapDone | Kind::SourceReport => {}
                _ => note_pages(&received, pages),
            }
        }
    }

    /// Says that nothing more is needed; returns the last report of the source, with which it ends.
    pub(crate) fn drain(&mut self) -> SourceReport {
        self.send(Kind::Drained);
        let mut report = None;
        while let Some(received) = self.next_or_end(&[Channel::Control]) {
            if received.header.kind == Kind::SourceReport {
                report = protocol::decode(&received.body).ok();
            }
        }
        report.expect("the source ends with its report")
    }
}

/// Notes what a page frame says.
pub(crate) fn note_pages(received: &Received, pages: &mut Pages) {
    let header = received.header;
    let (range, known): (PageRange, Option<Vec<u8>>) = match header.kind {
        Kind::Pages | Kind::PackedPages => (header.pages().expect("a sound frame"), None),
        Kind::ZeroPages => (header.counted_pages(&received.body).expect("a sound frame"), Some(Vec::new())),
        Kind::LostPages => (header.counted_pages(&received.body).expect("a sound frame"), None),
        other => panic!("a {other:?} frame where pages were expected"),
    };
    let mut plain = received.body.clone();
    if header.kind == Kind::PackedPages {
        plain = vec![0; usize::try_from(range.len()).expect("few")];
        assert!(lz4::unpack(&received.body, &mut plain), "a block of another length");
    }
    let first = range.start().0 / PAGE_SIZE;
    for (index, page) in (0_usize..).zip(first..first + range.pages()) {
        let content = if matches!(header.kind, Kind::Pages | Kind::PackedPages) {
            Some(plain[index * 4096..(index + 1) * 4096].to_vec())
        } else {
            known.clone()
        };
        pages.insert(page, content);
    }
}

/// Serves `process` in a thread of its own, to the destination that is returned.
pub(crate) fn start(process: FakeProcess) -> (JoinHandle<Outcome>, FakeDestination) {
    let (ours, theirs) = socket_pairs();
    let source = std::thread::Builder::new().name(String::from("source"));
    let running = Arc::new(process.manifest());
    let handle = source
        .spawn(move || {
            let mut process = process;
            let started = engine::Instant(sys::clock::monotonic_ns());
            match Channels::open(
                ours.into(),
                &Hello::new(MigrationId([3; 16]), Channel::Control),
                None,
                LONGEST_WAIT,
            ) {
                Ok(channels) => {
                    let config = Config::default();
                    serve(&mut process, Serving { channels, running, config, started })
                }
                Err(failure) => Outcome::Released(failure),
            }
        })
        .expect("a thread");
    let connection = |fd| Connection::new(Socket::new(fd), Expected::Greeting);
    (handle, FakeDestination { channels: theirs.into_iter().map(connection).collect() })
}

/// As [`start`], with every channel welcomed.
pub(crate) fn start_welcomed(process: FakeProcess) -> (JoinHandle<Outcome>, FakeDestination) {
    let (handle, mut destination) = start(process);
    for channel in Channel::ALL {
        let hello = destination.hello(channel);
        assert_eq!(hello.channel, channel);
        welcome(destination.channel(channel), &hello, 0).expect("an open link");
    }
    (handle, destination)
}

impl FakeDestination {
    /// Closes one channel; it is not used after that.
    pub(crate) fn cut(&mut self, channel: Channel) {
        let (near, _far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let fd = Fd::from(OwnedFd::from(near));
        *self.channel(channel) = Connection::new(Socket::new(fd), Expected::Greeting);
    }

    /// The greeting on a channel.
    pub(crate) fn hello(&mut self, channel: Channel) -> Hello {
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            let connection = self.channel(channel);
            if let Some(hello) = poll_hello(connection).expect("an open link") {
                return hello;
            }
            poll(&mut [Interest::new(connection.stream().fd(), false)], Some(1000)).expect("poll");
            assert!(Instant::now() < deadline, "no greeting in time");
        }
    }
}

fn socket_pairs() -> ([Fd; 3], Vec<Fd>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("its address");
    let mut theirs = Vec::new();
    let ours = Channel::ALL.map(|_| {
        let near = TcpStream::connect(address).expect("a connection");
        let (far, _) = listener.accept().expect("its other end");
        theirs.push(descriptor(far));
        descriptor(near)
    });
    (ours, theirs)
}

fn descriptor(stream: TcpStream) -> Fd {
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_nonblocking(true).expect("a socket");
    Fd::from(OwnedFd::from(stream))
}
