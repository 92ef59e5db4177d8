//! A source that the test plays frame by frame, and a process whose address space is a forked child's.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::{Config, Failure};
use fault_handler::{
    Channels, DestinationProcess, Ended, FaultHandler, HandlerError, Mapped, Measurement, Notification,
    Resumption,
};
use memory::{Addr, Backing, PAGE_SIZE, PageRange, Protection, Sharing, Vma, VmaFlags, VmaName};
use protocol::{
    Channel, FRAME_HEADER_LEN, Header, Kind, Manifest, PageMap, Reason, Reserved, SourceReport, decode,
    encode,
};
use sys::test_child::{Command, TestChild};
use sys::uffd::{Uffd, check_permission};

/// Where the child's pages are.
pub(crate) const BASE: u64 = 0x2000_0000_0000;
/// How many there are.
pub(crate) const PAGES: u64 = 64;
/// Where nothing is.
pub(crate) const ELSEWHERE: u64 = 0x2100_0000_0000;

/// `count` pages from the `first` one.
pub(crate) fn pages(first: u64, count: u64) -> PageRange {
    PageRange::from_pages(at(first), count).expect("user space")
}

/// The address of a page.
pub(crate) fn at(page: u64) -> Addr {
    Addr(BASE + page * PAGE_SIZE)
}

/// The byte that fills a page at the source.
pub(crate) fn byte_of(addr: Addr) -> u8 {
    u8::try_from((addr.0 - BASE) / PAGE_SIZE % 251 + 1).expect("below 252")
}

/// What the source holds.
pub(crate) fn content(range: PageRange) -> Vec<u8> {
    let page = |index: u64| vec![byte_of(Addr(range.start().0 + index * PAGE_SIZE)); 4096];
    (0..range.pages()).flat_map(page).collect()
}

/// The process, as the loop sees it.
pub(crate) struct Process {
    uffd: Option<Uffd>,
    pid: u32,
    /// Children's userfaultfds that it was shown.
    pub(crate) forks: usize,
    pub(crate) finished: bool,
    pub(crate) discarded: Option<Failure>,
    pub(crate) written: Vec<(PageRange, Vec<u8>)>,
    pub(crate) source: Option<SourceReport>,
    pub(crate) refusal: Option<Failure>,
    /// Hangs up when the receiver has ended.
    pub(crate) receiver: Option<UnixStream>,
}

impl DestinationProcess for Process {
    fn reserve(&mut self, _manifest: &Manifest) -> Result<Reserved, Failure> {
        self.refusal.take().map_or(
            Ok(Reserved {
                files: Vec::new(),
                all_pages_first: false,
                same_kernel: false,
                other_vdso: false,
                connections: protocol::Connections::Reset,
                travel: protocol::Travel::default(),
            }),
            Err,
        )
    }

    fn map(&mut self, manifest: &Manifest) -> Result<Mapped, Failure> {
        let uffd = self.uffd.take().ok_or_else(|| Failure::Local("mapped twice".into()))?;
        let registered = manifest.lazy.iter().try_for_each(|range| uffd.register(*range));
        registered.map_err(|error| Failure::Local(error.to_string())).map(|()| Mapped::One(uffd))
    }

    fn write(&mut self, at: PageRange, bytes: &[u8]) -> Result<(), Failure> {
        self.written.push((at, bytes.to_vec()));
        Ok(())
    }

    fn resume(&mut self) -> Result<Resumption, Failure> {
        Ok(Resumption::Done(self.pid))
    }

    fn forked(&mut self, _child: &Uffd) -> Result<(), Failure> {
        self.forks += 1;
        Ok(())
    }

    fn finished(&mut self) {
        self.finished = true;
    }

    fn discard(&mut self, reason: &Failure) {
        self.discarded = Some(reason.clone());
    }

    fn watched(&mut self) -> Vec<BorrowedFd<'_>> {
        self.receiver.iter().map(AsFd::as_fd).collect()
    }

    fn notification(&mut self) -> Option<Notification> {
        let has_ended = self.receiver.as_mut().is_some_and(|line| line.read(&mut [0]).is_ok());
        has_ended.then(|| Notification::Abandoned(Failure::Local("the receiver has ended".into())))
    }

    fn measured(&mut self, measurement: Measurement) {
        if let Measurement::Source(report) = measurement {
            self.source = Some(report);
        }
    }
}

/// What the loop leaves behind.
pub(crate) type Left = (Process, Result<Ended, HandlerError>);

/// A loop at work in a thread of its own, the child that it serves, and the source's end of the channels.
pub(crate) struct Stage {
    pub(crate) child: TestChild,
    control: Option<TcpStream>,
    fault: Option<TcpStream>,
    push: Option<TcpStream>,
    destination: Option<JoinHandle<Left>>,
}

impl Stage {
    /// Starts the loop; `None` without permission.
    pub(crate) fn new() -> Option<Self> {
        Self::with(|_| {})
    }

    /// Starts the loop over a process that `prepare` has changed.
    #[allow(clippy::print_stdout, reason = "a test that is skipped says why")]
    pub(crate) fn with(prepare: impl FnOnce(&mut Process)) -> Option<Self> {
        if let Err(why) = check_permission() {
            println!("skipped: {why}");
            return None;
        }
        let mut child = TestChild::spawn().expect("a child");
        child.ask(Command::Map(pages(0, PAGES))).expect("maps");
        let mut process = Process {
            uffd: Some(child.uffd().expect("the child's userfaultfd")),
            pid: u32::try_from(child.pid()).expect("a process id"),
            forks: 0,
            finished: false,
            discarded: None,
            written: Vec::new(),
            source: None,
            refusal: None,
            receiver: None,
        };
        prepare(&mut process);
        let [control, fault, push] = [pair(), pair(), pair()];
        let channels = Channels::new(control.1, fault.1, push.1);
        let destination = thread::Builder::new().name("destination".into()).spawn(move || {
            let config = Config { recovery_deadline: Duration::from_millis(100), ..Config::default() };
            let handler = FaultHandler::new(&mut process, channels, config).expect("a loop");
            let ended = handler.run();
            (process, ended)
        });
        Some(Self {
            child,
            control: Some(control.0),
            fault: Some(fault.0),
            push: Some(push.0),
            destination: Some(destination.expect("a thread")),
        })
    }

    /// Everything up to the process at work here; `eager` pages are sent in time.
    pub(crate) fn run_process(&mut self, eager: &[PageRange]) {
        let manifest = manifest(eager);
        self.message(Kind::Reserve, &manifest);
        self.expect(Kind::Reserved);
        self.message(Kind::Switchover, &manifest);
        for range in eager {
            self.send_pages(Channel::Push, *range);
        }
        self.expect(Kind::Ready);
        self.send(Channel::Control, Header { argument: 1, ..Header::plain(Kind::Run, 0) }, &[]);
        self.expect(Kind::Running);
    }

    /// Sends a whole frame.
    pub(crate) fn send(&mut self, channel: Channel, header: Header, body: &[u8]) {
        let body_len = u32::try_from(body.len()).expect("short");
        let mut bytes = Header { body_len, ..header }.to_bytes().to_vec();
        bytes.extend(body);
        self.stream(channel).write_all(&bytes).expect("the loop reads");
    }

    /// Sends a control message.
    pub(crate) fn message<T: serde::Serialize>(&mut self, kind: Kind, message: &T) {
        self.send(Channel::Control, Header::plain(kind, 0), &encode(message).expect("encodes"));
    }

    /// Sends a control frame without a body.
    pub(crate) fn signal(&mut self, kind: Kind) {
        self.send(Channel::Control, Header::plain(kind, 0), &[]);
    }

    /// Sends the source's pages.
    pub(crate) fn send_pages(&mut self, channel: Channel, range: PageRange) {
        let count = u16::try_from(range.pages()).expect("few");
        let header = Header { count, argument: range.start().0, ..Header::plain(Kind::Pages, 0) };
        self.send(channel, header, &content(range));
    }

    /// Sends the source's pages, packed.
    pub(crate) fn send_packed(&mut self, channel: Channel, range: PageRange) {
        let count = u16::try_from(range.pages()).expect("few");
        let header = Header { count, argument: range.start().0, ..Header::plain(Kind::PackedPages, 0) };
        let mut block = vec![0; 4096];
        let len = lz4::Packer::default()
            .pack(&content(range), &mut block)
            .expect("each page is one byte many times");
        self.send(channel, header, &block[..len]);
    }

    /// Sends `ZeroPages` or `LostPages`.
    pub(crate) fn send_counted(&mut self, kind: Kind, channel: Channel, range: PageRange) {
        let header = Header { argument: range.start().0, ..Header::plain(kind, 0) };
        self.send(channel, header, &range.pages().to_le_bytes());
    }

    /// Tells that every page of `data` is all there is.
    pub(crate) fn send_page_map(&mut self, data: &[PageRange]) {
        self.message(Kind::PageMap, &PageMap { scanned: pages(0, PAGES), data: data.to_vec() });
        self.signal(Kind::PageMapDone);
    }

    /// The next control frame, which is of this kind.
    pub(crate) fn expect(&mut self, kind: Kind) -> (Header, Vec<u8>) {
        let (header, body) = self.next(Channel::Control);
        assert_eq!(header.kind, kind, "{}", String::from_utf8_lossy(&body));
        (header, body)
    }

    /// The next page request.
    pub(crate) fn request(&mut self) -> PageRange {
        let (header, _) = self.next(Channel::Fault);
        header.pages().expect("a page request")
    }

    /// Answers page requests until the child has answered its command.
    pub(crate) fn serve_until_answer(&mut self) -> u64 {
        loop {
            if let Some(answer) = self.child.try_answer().expect("the child lives") {
                return answer;
            }
            if let Some(range) = self.poll_request() {
                self.send_pages(Channel::Fault, range);
            }
        }
    }

    /// Hangs up, without a word.
    pub(crate) fn vanish(&mut self) {
        self.control = None;
        self.fault = None;
        self.push = None;
    }

    /// Waits for the loop's end; the source hangs up when it has been told that it may.
    pub(crate) fn end(mut self) -> (TestChild, Left) {
        self.vanish();
        let result = self.destination.take().map(|thread| thread.join().expect("no panic"));
        (self.child, result.expect("joined once"))
    }

    fn poll_request(&mut self) -> Option<PageRange> {
        let stream = self.stream(Channel::Fault);
        stream.set_read_timeout(Some(Duration::from_millis(5))).expect("a socket");
        let mut peeked = [0; FRAME_HEADER_LEN];
        let there = stream.peek(&mut peeked).is_ok_and(|count| count == FRAME_HEADER_LEN);
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        there.then(|| self.request())
    }

    fn next(&mut self, channel: Channel) -> (Header, Vec<u8>) {
        let stream = self.stream(channel);
        let mut bytes = [0; FRAME_HEADER_LEN];
        stream.read_exact(&mut bytes).expect("a frame within twenty seconds");
        let header = Header::from_bytes(bytes).expect("a header");
        let mut body = vec![0; header.body_len as usize];
        stream.read_exact(&mut body).expect("a body");
        (header, body)
    }

    fn stream(&mut self, channel: Channel) -> &mut TcpStream {
        let stream = match channel {
            Channel::Control => &mut self.control,
            Channel::Fault => &mut self.fault,
            Channel::Push => &mut self.push,
        };
        stream.as_mut().expect("the source has not hung up")
    }
}

/// Both ends of a connection: blocking with a time limit, and mio's.
fn pair() -> (TcpStream, mio::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    ours.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    ours.set_nodelay(true).expect("a socket");
    let (theirs, _) = listener.accept().expect("accepts");
    theirs.set_nonblocking(true).expect("a socket");
    (ours, mio::net::TcpStream::from_std(theirs))
}

/// The reason in a frame.
pub(crate) fn reason(body: &[u8]) -> String {
    decode::<Reason>(body).expect("a reason").text
}

/// A process with one mapping of [`PAGES`] pages.
pub(crate) fn manifest(eager: &[PageRange]) -> Manifest {
    let vma = Vma {
        range: pages(0, PAGES),
        protection: Protection { read: true, write: true, execute: false },
        sharing: Sharing::Private,
        flags: VmaFlags::default(),
        name: VmaName::Plain,
        backing: Backing::Anonymous,
    };
    Manifest {
        vmas: vec![vma],
        eager: eager.to_vec(),
        lazy: vec![pages(0, PAGES)],
        ..protocol::sample::manifest()
    }
}
