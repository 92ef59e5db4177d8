//! A source with made-up memory, a destination with a real child, and the link between them.

use std::fs::File;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::{Config, Failure};
use fault_handler::{
    DestinationProcess, FaultHandler, Mapped, Measurement, Notification, Outcome, Resumption,
};
use memory::{Addr, PAGE_SIZE, PageRange, PageSet};
use page_server::{ReadRun, Serving, SourceProcess};
use protocol::{Channel, FileVerdict, Hello, Manifest, MigrationId, Reserved, SourceReport};
use sys::Fd;
use sys::poll::{Interest, poll};
use sys::test_child::{Command, TestChild};
use sys::uffd::{Uffd, check_permission};
use transport::{Connection, Expected, poll_hello, welcome};

/// Where the made-up memory is; page numbers of tests count from here.
const BASE: u64 = 0x2000_0000_0000;
/// No wait of a test is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a destination here waits for a lost link: longer than a source needs to connect again.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(2);
const HELLO: Hello = Hello::new(MigrationId([9; 16]), Channel::Control);

/// Pages of the made-up memory.
pub(crate) fn range(first: u64, pages: u64) -> PageRange {
    PageRange::from_pages(addr(first, 0), pages).expect("user space")
}

/// A byte of the made-up memory.
pub(crate) fn addr(page: u64, offset: u64) -> Addr {
    Addr(BASE + page * PAGE_SIZE + offset)
}

/// What a page with data holds: never zero, and different for neighbours in both directions.
pub(crate) fn byte_of(page: u64, offset: u64) -> u8 {
    u8::try_from(1 + (page * 7 + offset * 13 + offset / 256) % 250).expect("at most 250")
}

#[allow(clippy::print_stdout, reason = "a test that is skipped says why")]
pub(crate) fn permitted() -> bool {
    let permission = check_permission();
    if let Err(why) = &permission {
        println!("skipped: {why}");
    }
    permission.is_ok()
}

/// The process at the source: one lazy range.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    range: PageRange,
    /// Pages that a scan finds.
    pub(crate) pages: PageSet,
    /// Those of them that are all zero.
    pub(crate) zero: PageSet,
    /// Those of them that nobody can read.
    pub(crate) unreadable: PageSet,
    /// Pages to be in place before `Run`.
    pub(crate) eager: Vec<PageRange>,
    /// After this many reads, the link is cut.
    pub(crate) reads_before_cut: Option<u32>,
    /// Which channels are cut then.
    pub(crate) cuts: Vec<Channel>,
    /// It dies when the link is cut, instead of connecting again.
    pub(crate) dies: bool,
    destination: Option<SocketAddr>,
    sockets: Vec<Arc<TcpStream>>,
    released: Arc<AtomicU32>,
}

impl Source {
    pub(crate) fn new(range: PageRange) -> Self {
        Self {
            range,
            pages: PageSet::new(),
            zero: PageSet::new(),
            unreadable: PageSet::new(),
            eager: Vec::new(),
            reads_before_cut: None,
            cuts: Channel::ALL.to_vec(),
            dies: false,
            destination: None,
            sockets: Vec::new(),
            released: Arc::default(),
        }
    }

    /// What the program would read at the source.
    pub(crate) fn byte(&self, page: u64, offset: u64) -> u8 {
        let at = addr(page, 0);
        if self.pages.contains(at) && !self.zero.contains(at) { byte_of(page, offset) } else { 0 }
    }

    fn manifest(&self) -> Manifest {
        Manifest { eager: self.eager.clone(), lazy: vec![self.range], ..protocol::sample::manifest() }
    }

    fn cut_link_when_due(&mut self) {
        match self.reads_before_cut.as_mut() {
            Some(0) => {
                for (channel, socket) in Channel::ALL.iter().zip(&self.sockets) {
                    if self.cuts.contains(channel) {
                        // It may have been shut down by an earlier read.
                        let _ = socket.shutdown(Shutdown::Both);
                    }
                }
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }
}

impl SourceProcess for Source {
    fn accept(&mut self, _answer: Reserved) -> Result<(), Failure> {
        Ok(())
    }

    fn park(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn capture(&mut self) -> Result<Arc<Manifest>, Failure> {
        Ok(Arc::new(self.manifest()))
    }

    fn commit(&mut self) {}

    fn reconnect(&mut self, attempt: u32) -> Result<page_server::Channels, Failure> {
        assert!(!self.dies, "the source dies, as the test wants it");
        self.reads_before_cut = None;
        let address = self.destination.expect("it has connected before");
        let sockets = Channel::ALL.map(|_| descriptor(TcpStream::connect(address).expect("a connection")));
        page_server::Channels::open(sockets.into(), &Hello { attempt, ..HELLO }, None, LONGEST_WAIT)
    }

    fn read<'a>(&'a mut self, pages: PageRange, buffer: &'a mut [u8]) -> ReadRun<'a> {
        self.cut_link_when_due();
        let readable = !self.unreadable.contains(pages.start());
        let first = (pages.start().0 - BASE) / PAGE_SIZE;
        let mut run = 0;
        for (page, bytes) in (first..first + pages.pages()).zip(buffer.chunks_mut(4096)) {
            if self.unreadable.contains(addr(page, 0)) == readable {
                break;
            }
            for (offset, byte) in (0..).zip(bytes) {
                *byte = self.byte(page, offset);
            }
            run += 1;
        }
        ReadRun { pages: run, content: readable.then_some(buffer) }
    }

    fn scan(&mut self, range: PageRange) -> Vec<PageRange> {
        self.pages.runs_in(range).collect()
    }

    fn release(&mut self) {
        self.released.fetch_add(1, Ordering::SeqCst);
    }

    fn work(&mut self) -> bool {
        false
    }

    fn interests(&self) -> Vec<Interest> {
        Vec::new()
    }

    fn note(&mut self, _line: &'static str) {}
}

/// The process at the destination: a child that maps the source's range and obeys the test once it is let go.
struct Destination {
    child: Arc<Mutex<TestChild>>,
    resumed: Sender<()>,
    refusal: Option<Failure>,
    report: Arc<Mutex<SourceReport>>,
    /// Where the source connects again.
    listener: TcpListener,
}

fn locked(child: &Mutex<TestChild>) -> MutexGuard<'_, TestChild> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DestinationProcess for Destination {
    fn reserve(&mut self, manifest: &Manifest) -> Result<Reserved, Failure> {
        let files = vec![FileVerdict::Same; manifest.files.len()];
        self.refusal.take().map_or(
            Ok(Reserved {
                files,
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
        let mut child = locked(&self.child);
        for range in &manifest.lazy {
            child.ask(Command::Map(*range)).map_err(|error| Failure::Local(error.to_string()))?;
        }
        let uffd = child.uffd().map_err(|error| Failure::Local(error.to_string()))?;
        let registered = manifest.lazy.iter().try_for_each(|range| uffd.register(*range));
        registered.map_err(|error| Failure::Local(error.to_string()))?;
        Ok(Mapped::One(uffd))
    }

    fn write(&mut self, at: PageRange, _bytes: &[u8]) -> Result<(), Failure> {
        Err(Failure::Local(format!("{at} is registered")))
    }

    fn resume(&mut self) -> Result<Resumption, Failure> {
        // Before the test may keep the child busy with a command that only this loop can let go on.
        let pid = locked(&self.child).pid();
        self.resumed.send(()).map_err(|_| Failure::Local(String::from("the test is gone")))?;
        let pid = u32::try_from(pid).map_err(|error| Failure::Local(error.to_string()))?;
        Ok(Resumption::Done(pid))
    }

    fn forked(&mut self, _child: &Uffd) -> Result<(), Failure> {
        Ok(())
    }

    fn finished(&mut self) {}

    fn discard(&mut self, _reason: &Failure) {}

    fn watched(&mut self) -> Vec<BorrowedFd<'_>> {
        vec![self.listener.as_fd()]
    }

    fn notification(&mut self) -> Option<Notification> {
        self.listener.set_nonblocking(true).expect("a socket");
        let (first, _) = self.listener.accept().ok()?;
        self.listener.set_nonblocking(false).expect("a socket");
        let next = || self.listener.accept().expect("three connections").0;
        let [control, fault, push] = [first, next(), next()].map(greeted);
        Some(Notification::Reconnected(Box::new(fault_handler::Channels::new(control, fault, push))))
    }

    fn measured(&mut self, measurement: Measurement) {
        if let Measurement::Source(report) = measurement {
            *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
        }
    }
}

/// How both sides ended.
pub(crate) struct Ends {
    pub(crate) source: page_server::Outcome,
    pub(crate) destination: Outcome,
    /// The child's process id.
    pub(crate) pid: u64,
    /// What the source reported last.
    pub(crate) report: SourceReport,
}

/// One migration under way.
pub(crate) struct World {
    child: Arc<Mutex<TestChild>>,
    resumed: Receiver<()>,
    released: Arc<AtomicU32>,
    report: Arc<Mutex<SourceReport>>,
    source: Option<JoinHandle<page_server::Outcome>>,
    destination: Option<JoinHandle<Outcome>>,
}

impl World {
    pub(crate) fn start(source: Source) -> Self {
        Self::start_with(source, None)
    }

    /// A destination that refuses the reservation.
    pub(crate) fn start_refusing(source: Source, text: &str) -> Self {
        Self::start_with(source, Some(Failure::Local(String::from(text))))
    }

    fn start_with(mut source: Source, refusal: Option<Failure>) -> Self {
        let child = Arc::new(Mutex::new(TestChild::spawn().expect("a child")));
        let (resumed_sender, resumed) = channel();
        let released = Arc::clone(&source.released);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let mut far_ends = Vec::new();
        let near_ends = Channel::ALL.map(|_| {
            let near = TcpStream::connect(address).expect("a connection");
            far_ends.push(listener.accept().expect("its other end").0);
            source.sockets.push(Arc::new(near.try_clone().expect("a duplicate")));
            near
        });
        source.destination = Some(address);
        let report = Arc::<Mutex<SourceReport>>::default();
        let process = Destination {
            child: Arc::clone(&child),
            resumed: resumed_sender,
            refusal,
            report: Arc::clone(&report),
            listener,
        };
        Self {
            child,
            resumed,
            released,
            report,
            source: Some(spawn("source", move || serve(source, near_ends))),
            destination: Some(spawn("destination", move || handle(process, far_ends))),
        }
    }

    /// Waits until the process runs at the destination.
    pub(crate) fn await_resumed(&self) {
        self.resumed.recv_timeout(LONGEST_WAIT).expect("the destination resumes the process");
    }

    /// Has the program do something; its answer.
    pub(crate) fn ask(&self, command: Command) -> u64 {
        locked(&self.child).ask(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Has the program do something that ends it; the signal that does.
    pub(crate) fn signal_of(&self, command: Command) -> i32 {
        let mut child = locked(&self.child);
        child.begin(command).expect("sends");
        let error = child.answer().expect_err("no answer");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{command:?}: {error}");
        child.wait().expect("its status") & 0x7f
    }

    pub(crate) fn join_source(&mut self) -> page_server::Outcome {
        self.source.take().expect("joined once").join().expect("no panic")
    }

    /// Waits for the end of a source that dies.
    pub(crate) fn await_death(&mut self) {
        let ended = self.source.take().expect("joined once").join();
        assert!(ended.is_err(), "it has lived on: {ended:?}");
    }

    pub(crate) fn join_destination(&mut self) -> Outcome {
        self.destination.take().expect("joined once").join().expect("no panic")
    }

    pub(crate) fn join(&mut self) -> Ends {
        let (destination, source) = (self.join_destination(), self.join_source());
        let pid = locked(&self.child).pid() as u64;
        let report = *self.report.lock().unwrap_or_else(PoisonError::into_inner);
        Ends { source, destination, pid, report }
    }

    /// How often the source's process was released.
    pub(crate) fn released(&self) -> u32 {
        self.released.load(Ordering::SeqCst)
    }

    /// The child's memory.
    pub(crate) fn memory(&self, range: PageRange) -> Vec<u8> {
        let path = format!("/proc/{}/mem", locked(&self.child).pid());
        let mut bytes = vec![0; usize::try_from(range.len()).expect("a small range")];
        let file = File::open(path).expect("the child's memory");
        file.read_exact_at(&mut bytes, range.start().0).expect("it is mapped");
        bytes
    }
}

fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().name(String::from(name)).spawn(work).expect("a thread")
}

fn serve(mut process: Source, sockets: [TcpStream; 3]) -> page_server::Outcome {
    let sockets = sockets.map(descriptor).into();
    let started = engine::Instant(sys::clock::monotonic_ns());
    let channels = page_server::Channels::open(sockets, &HELLO, None, LONGEST_WAIT).expect("a welcome");
    let running = Arc::new(process.manifest());
    page_server::serve(&mut process, Serving { channels, running, config: Config::default(), started })
}

fn descriptor(socket: TcpStream) -> Fd {
    socket.set_nonblocking(true).expect("a socket");
    socket.set_nodelay(true).expect("a TCP socket");
    Fd::from(OwnedFd::from(socket))
}

fn handle(mut process: Destination, sockets: Vec<TcpStream>) -> Outcome {
    let greeted: Vec<_> = sockets.into_iter().map(greeted).collect();
    let [control, fault, push] = greeted.try_into().expect("three channels");
    let channels = fault_handler::Channels::new(control, fault, push);
    let config = Config { recovery_deadline: RECOVERY_DEADLINE, ..Config::default() };
    let handler = FaultHandler::new(&mut process, channels, config).expect("epoll");
    handler.run().expect("a process that can be served").outcome
}

/// Answers the greeting on a socket.
fn greeted(socket: TcpStream) -> mio::net::TcpStream {
    socket.set_nonblocking(true).expect("a socket");
    let mut connection = Connection::new(mio::net::TcpStream::from_std(socket), Expected::Greeting);
    transport::prepare(connection.stream()).expect("a TCP socket");
    let hello = loop {
        match poll_hello(&mut connection).expect("a greeting") {
            Some(hello) => break hello,
            None => {
                let ready = poll(&mut [Interest::borrowed(connection.stream().as_fd(), false)], Some(20_000));
                assert_eq!(ready, Ok(1), "a greeting in time");
            }
        }
    };
    welcome(&mut connection, &hello, 0).expect("an open link");
    assert!(!connection.wants_write(), "a welcome fits into any socket");
    connection.into_stream()
}
