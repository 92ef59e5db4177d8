//! Descriptors.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU32;

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use protocol::{
    Connection, DescriptionKind, FileProof, Header, Kind, PipeEnd, SocketRecord, TerminalEnd, TerminalRecord,
};
use sys::descriptor::tcp;
use sys::proc::fdinfo::{self, Watch};

use crate::{alone, description, refusal, running, stopped, stopped_with};
use capture::refusal::Note;
use capture::{Captured, connections};

/// A file that is gone when the test is over.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn new(content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("posthaste-capture-{}", std::process::id()));
        std::fs::write(&path, content).expect("a temporary file");
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_file_keeps_its_offset_and_a_duplicate_shares_it() {
    alone("descriptors::a_file_keeps_its_offset_and_a_duplicate_shares_it", || {
        let path = Temporary::new(b"ten bytes!");
        let mut one = File::options().append(true).read(true).open(&path.0).expect("ours");
        one.seek(SeekFrom::Start(4)).expect("a file");
        let (duplicate, other) = (one.try_clone().expect("room"), File::open(&path.0).expect("ours"));
        let manifest = running();
        let (found, index) = description(&manifest, &one);
        assert_eq!(fdinfo::parse(&found.info).expect("the kernel's").position, 4);
        let DescriptionKind::File { file } = found.kind else { panic!("{found:?}") };
        assert_ne!(found.flags & OFlag::O_APPEND.bits().unsigned_abs(), 0);
        assert_eq!(manifest.files[file as usize].proof, FileProof::None);
        assert_eq!(description(&manifest, &duplicate).1, index);
        assert_ne!(description(&manifest, &other).1, index);
    });
}

#[test]
fn a_deleted_file_travels_with_its_content() {
    alone("descriptors::a_deleted_file_travels_with_its_content", || {
        let path = Temporary::new(b"content");
        let file = File::open(&path.0).expect("ours");
        drop(path);
        let manifest = stopped().manifest;
        let kind = description(&manifest, &file).0.kind;
        let DescriptionKind::Object { object } = kind else { panic!("{kind:?}") };
        let object = &manifest.objects[object as usize];
        assert_eq!((object.size, &object.content), (7, &vec![(0, b"content".to_vec())]));
        let ghost = &manifest.ghosts[object.ghost.expect("it had a name") as usize];
        assert!(
            ghost.path.starts_with(b"/") && ghost.path.ends_with(std::process::id().to_string().as_bytes())
        );
    });
}

#[test]
fn more_content_than_a_manifest_takes_travels_by_itself() {
    alone("descriptors::more_content_than_a_manifest_takes_travels_by_itself", || {
        let path = Temporary::new(&vec![1; 9 << 20]);
        let _file = File::open(&path.0).expect("ours");
        drop(path);
        let Captured { manifest, contents, .. } = stopped();
        assert!(manifest.objects.iter().any(|object| object.streamed && object.content.is_empty()));
        let mut sent = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        let mut send = |header: Header, body: &[u8]| {
            sent.push((header.kind, header.count, header.argument, body.len()));
            true
        };
        capture::send_contents(&contents, &mut buffer, &mut send).expect("readable");
        let [(Kind::Content, 2, 0, _), pieces @ .., (Kind::Content, 0, 0, 0)] = sent.as_slice() else {
            panic!("{sent:?}")
        };
        assert!(pieces.iter().all(|(kind, ..)| *kind == Kind::ContentBytes));
        assert_eq!(pieces.iter().map(|(.., len)| len).sum::<usize>(), 9 << 20);
        // Whoever wants no more is sent no more, and is not told that these were all.
        let mut asked = 0;
        let mut refuse = |_: Header, _: &[u8]| {
            asked += 1;
            false
        };
        capture::send_contents(&contents, &mut buffer, &mut refuse).expect("readable");
        assert_eq!(asked, 1);
    });
}

#[test]
fn a_lock_is_told_in_the_words_of_the_kernel() {
    alone("descriptors::a_lock_is_told_in_the_words_of_the_kernel", || {
        let path = Temporary::new(b"");
        let file = File::open(&path.0).expect("ours");
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("nobody else's");
        let locks = running().locks;
        assert_eq!(locks.len(), 1);
        assert_eq!(locks[0].fd, lock.as_raw_fd().cast_unsigned());
        assert!(String::from_utf8_lossy(&locks[0].line).contains("FLOCK  ADVISORY  WRITE"));
        drop(lock);
        assert_eq!(running().locks, []);
    });
}

#[test]
fn a_fifo_is_told_by_its_path() {
    alone("descriptors::a_fifo_is_told_by_its_path", || {
        let path = std::env::temp_dir().join(format!("posthaste-fifo-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("room");
        let mut both = File::options().read(true).write(true).open(&path).expect("ours");
        both.write_all(b"in flight").expect("room");
        let manifest = stopped().manifest;
        let DescriptionKind::Pipe { pipe, .. } = description(&manifest, &both).0.kind else {
            panic!("a pipe")
        };
        let pipe = &manifest.pipes[pipe as usize];
        assert_eq!(pipe.path, path.as_os_str().as_encoded_bytes());
        assert_eq!(pipe.content, b"in flight");
        std::fs::remove_file(&path).expect("ours");
    });
}

#[test]
fn a_pipe_inside_moves_with_its_bytes() {
    alone("descriptors::a_pipe_inside_moves_with_its_bytes", || {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(b"in flight").expect("room");
        let manifest = stopped().manifest;
        let pipe_of = |kind| match kind {
            DescriptionKind::Pipe { pipe, end } => (pipe, end),
            other => panic!("{other:?}"),
        };
        let (pipe, read) = pipe_of(description(&manifest, &reader).0.kind);
        let (same, write) = pipe_of(description(&manifest, &writer).0.kind);
        assert_eq!((pipe, read, write), (same, PipeEnd::Read, PipeEnd::Write));
        assert_eq!(manifest.pipes[pipe as usize].content, b"in flight");
    });
}

#[test]
fn the_end_of_a_pipe_whose_writer_has_gone_moves_without_a_note() {
    alone("descriptors::the_end_of_a_pipe_whose_writer_has_gone_moves_without_a_note", || {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(b"the rest").expect("room");
        drop(writer);
        let captured = stopped();
        let DescriptionKind::Pipe { pipe, end: PipeEnd::Read } =
            description(&captured.manifest, &reader).0.kind
        else {
            panic!("a pipe")
        };
        assert_eq!(captured.manifest.pipes[pipe as usize].content, b"the rest");
        let lost = Note::LostPipe(reader.as_raw_fd().unsigned_abs());
        assert!(!captured.notes.contains(&lost));
    });
}

#[test]
fn a_socket_pair_inside_moves_with_its_bytes() {
    alone("descriptors::a_socket_pair_inside_moves_with_its_bytes", || {
        let (mut one, two) = UnixStream::pair().expect("a pair");
        if sys::descriptor::pair::diagnosis(inode(&one)).is_empty() {
            println!("skipped: this kernel does not tell peers (CONFIG_UNIX_DIAG)");
            return;
        }
        one.write_all(b"hello").expect("room");
        let manifest = stopped().manifest;
        let (first, second) = (socket(&manifest, &one), socket(&manifest, &two));
        assert_eq!((first.peer, second.peer), (inode(&two), inode(&one)));
        assert!(first.messages.is_empty());
        let content = |message: &protocol::MessageRecord| message.content.clone();
        assert_eq!(second.messages.iter().map(content).collect::<Vec<_>>(), [b"hello".to_vec()]);
    });
}

fn socket(manifest: &protocol::Manifest, fd: &impl AsRawFd) -> SocketRecord {
    match description(manifest, fd).0.kind {
        DescriptionKind::Socket(record) => record,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_descriptor_in_flight_moves_and_leaves_no_number_behind() {
    alone("descriptors::a_descriptor_in_flight_moves_and_leaves_no_number_behind", || {
        use std::os::fd::AsFd;
        let (one, two) = UnixStream::pair().expect("a pair");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        sys::socket::send(one.as_fd(), b"!", &[], &[reader.as_fd()]).expect("room");
        drop(reader);
        let before = sys::descriptor::numbers().expect("readable");
        let manifest = stopped().manifest;
        assert_eq!(sys::descriptor::numbers().expect("readable"), before);
        let message = &socket(&manifest, &two).messages[0];
        let in_flight = &manifest.descriptions[message.descriptions[0] as usize];
        let DescriptionKind::Pipe { pipe, end: PipeEnd::Read } = in_flight.kind else {
            panic!("{in_flight:?}")
        };
        let DescriptionKind::Pipe { pipe: same, .. } = description(&manifest, &writer).0.kind else {
            panic!("a pipe")
        };
        assert_eq!(pipe, same);
        assert_eq!(manifest.descriptors.len(), before.len());
    });
}

fn inode(stream: &UnixStream) -> u64 {
    sys::status::of_number(stream.as_raw_fd().unsigned_abs()).expect("open").inode
}

#[test]
fn an_eventfd_and_the_epoll_that_watches_it_move() {
    alone("descriptors::an_eventfd_and_the_epoll_that_watches_it_move", || {
        let event = EventFd::from_value_and_flags(5, EfdFlags::EFD_NONBLOCK).expect("an eventfd");
        let gone = EventFd::new().expect("an eventfd");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll");
        let edge = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&event, EpollEvent::new(edge, u64::MAX)).expect("added");
        epoll.add(&gone, EpollEvent::new(EpollFlags::EPOLLIN, 1)).expect("added");
        drop(gone);
        let manifest = running();
        let info = |fd: &dyn AsRawFd| {
            let found = description(&manifest, &fd.as_raw_fd()).0;
            assert!(matches!(found.kind, DescriptionKind::Anonymous { .. }), "{found:?}");
            fdinfo::parse(&found.info).expect("the kernel's")
        };
        assert_eq!(info(&event).event_count, Some(5));
        // The kernel adds EPOLLERR and EPOLLHUP.
        let events = (edge | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP).bits().cast_unsigned();
        let fd = event.as_raw_fd().unsigned_abs();
        let inode = Some(description(&manifest, &event).0.inode);
        assert_eq!(info(&epoll.0).watches, [Watch { fd, events, data: u64::MAX, inode }]);
    });
}

#[test]
fn sockets_are_bound_again_or_lost_and_announced() {
    alone("descriptors::sockets_are_bound_again_or_lost_and_announced", || {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let datagrams = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
        let captured = stopped();
        let kind = |fd: &dyn AsRawFd| description(&captured.manifest, &fd.as_raw_fd()).0.kind;
        assert_eq!(socket(&captured.manifest, &listener).backlog, Some(128));
        assert_eq!(kind(&stream), DescriptionKind::LostConnection { domain: 2 });
        let datagrams = socket(&captured.manifest, &datagrams);
        assert_eq!((datagrams.kind, datagrams.address.len(), datagrams.peer_address.len()), (2, 16, 0));
        let number = |fd: &dyn AsRawFd| fd.as_raw_fd().unsigned_abs();
        assert!(captured.notes.contains(&Note::Connection(number(&stream))));
        assert!(captured.notes.contains(&Note::QueuedConnections(number(&listener))));
    });
}

#[test]
fn an_open_connection_is_frozen_with_its_bytes_and_goes_on_when_it_is_thawed() {
    alone("descriptors::an_open_connection_is_frozen_with_its_bytes_and_goes_on_when_it_is_thawed", || {
        if !tcp::may_freeze() {
            println!("skipped: freezing connections needs CAP_NET_ADMIN");
            return;
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let mut stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (mut peer, _) = listener.accept().expect("connected");
        peer.write_all(b"unread").expect("room");
        let marks: Vec<AtomicU32> = (0..3).map(|_| AtomicU32::new(0)).collect();
        let manifest = stopped_with(Some(&marks)).manifest;
        let record = socket(&manifest, &stream);
        let connection = Connection::parse(&record.connection).expect("an open connection");
        assert_eq!(
            (connection.received, connection.sent, connection.unsent),
            (&b"unread"[..], &[][..], &[][..])
        );
        let frozen: Vec<_> = connections::frozen(&marks).collect();
        assert_eq!(frozen.len(), 2);
        stream.write_all(b"silence").expect_err("it is cut off");
        frozen.iter().for_each(|(fd, before)| tcp::thaw(*fd, *before));
        let mut bytes = [0; 6];
        stream.read_exact(&mut bytes).expect("it goes on");
        assert_eq!(&bytes, b"unread");
        stream.write_all(b"answer").expect("it goes on");
        peer.read_exact(&mut bytes).expect("it goes on");
        assert_eq!(&bytes, b"answer");
        assert_eq!(sys::descriptor::socket::options(stream.as_raw_fd().unsigned_abs()), record.options);
    });
}

#[test]
fn a_terminal_inside_is_told_with_what_waits_in_it_and_gets_that_back() {
    alone("descriptors::a_terminal_inside_is_told_with_what_waits_in_it_and_gets_that_back", || {
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let (mut master, mut slave) = (File::from(pty.master), File::from(pty.slave));
        master.write_all(b"typed\n").expect("room");
        slave.write_all(b"shown").expect("room");
        let mut manifest = stopped().manifest;
        let inside = |end| DescriptionKind::Terminal { terminal: 0, end };
        assert_eq!(description(&manifest, &master).0.kind, inside(TerminalEnd::Master));
        assert_eq!(description(&manifest, &slave).0.kind, inside(TerminalEnd::Slave));
        capture::take_out_terminals(&mut manifest).expect("little waits");
        let record = &manifest.terminals[0];
        assert_eq!(record.input, b"typed\n");
        assert_eq!(record.output.len(), b"typed\r\nshown".len());
        capture::give_back_terminals(&manifest);
        let mut bytes = [0; 100];
        assert_eq!(slave.read(&mut bytes).expect("a line"), 6);
        assert_eq!(master.read(&mut bytes).expect("all that was shown"), record.output.len());
        drop(master);
        let manifest = running();
        assert_eq!(description(&manifest, &slave).0.kind, inside(TerminalEnd::Slave));
        assert!(manifest.terminals[0].is(TerminalRecord::HUNG_UP));
    });
}

#[test]
fn what_cannot_move_is_refused_by_name() {
    alone("descriptors::what_cannot_move_is_refused_by_name", || {
        let watcher = nix::sys::fanotify::Fanotify::init(
            nix::sys::fanotify::InitFlags::empty(),
            nix::sys::fanotify::EventFFlags::O_RDONLY,
        );
        match watcher {
            Ok(watcher) => {
                let refused = refusal();
                assert!(refused.contains("a fanotify") && refused.contains("close it first"), "{refused}");
                drop(watcher);
            }
            Err(errno) => println!("skipped: no fanotify here: {errno}"),
        }
        let family = nix::sys::socket::AddressFamily::Packet;
        let kind = nix::sys::socket::SockType::Datagram;
        match nix::sys::socket::socket(family, kind, nix::sys::socket::SockFlag::empty(), None) {
            Ok(socket) => {
                assert!(refusal().contains("a socket of domain 17"));
                drop(socket);
            }
            Err(errno) => println!("skipped: no packet socket here: {errno}"),
        }
        running();
    });
}
