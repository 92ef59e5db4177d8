//! Descriptors of restored programs.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use memory::PAGE_SIZE;
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};
use protocol::{
    DescriptionKind, Descriptor, LockRecord, MessageRecord, ObjectRecord, PipeEnd, PipeRecord, SocketRecord,
    StreamKind, TerminalEnd, TerminalRecord,
};
use receiver::guardian::ExitStatus;
use receiver::policy::Policy;
use receiver::restorer::{RestoreError, Restorer};

use super::image::{Code, DATA, Image, LAZY};
use super::whole::{Report, build, main_thread, run, serve};
use super::{Case, Outcome, privileged};

pub(super) const CASES: &[Case] = &[
    ("files_keep_numbers_flags_offsets_and_shared_descriptions", files_keep),
    ("a_directory_can_be_entered_by_its_descriptor", directory_can_be_entered),
    ("pipes_and_socket_pairs_keep_their_bytes_in_flight", bytes_in_flight),
    ("a_descriptor_in_flight_arrives", descriptors_in_flight),
    ("a_timer_keeps_its_ticks_and_a_signalfd_its_mask", timers_and_signals),
    ("locks_are_taken_when_the_program_resumes", locks_are_taken),
    ("what_makes_no_sense_is_refused_by_name", what_makes_no_sense),
    ("an_epoll_tells_of_an_eventfd_that_was_signalled_before", epoll_tells),
    ("a_memfd_keeps_content_offset_and_mapping", memfd_keeps),
    ("a_standard_stream_becomes_the_receivers_own", stream_becomes_own),
    ("a_lost_connection_says_that_it_was_reset", lost_connection_says),
    ("a_listener_listens_again_once_the_source_has_let_go", listener_listens),
    ("an_address_that_stays_in_use_leaves_its_socket_unbound", address_stays_in_use),
    ("a_terminal_that_makes_no_sense_is_refused_by_name", terminals_without_sense),
    ("nobody_is_connected_to_a_listener_that_is_not_the_programs", no_other_listener),
    ("a_file_that_is_not_here_is_refused_beforehand", missing_file),
    ("an_address_of_another_machine_is_refused_beforehand", foreign_address),
];

/// Somewhere in the data for the program to store results.
const RESULT: u64 = DATA + 40 * PAGE_SIZE;

fn image(code: Code) -> Image {
    Image::new(vec![main_thread(code)])
}

/// Ends after a page fault, so that the process can be looked at.
fn looked_at(mut code: Code) -> Code {
    code.write(3, LAZY, 1).exit(0);
    code
}

fn files_keep() -> Outcome {
    privileged()?;
    let (report, content) = (Report::new("files"), Report::new("content"));
    fs::write(content.path(), b"0123456789").expect("a file");
    let mut code = Code::default();
    // Two numbers of one description, and one of another on the same file.
    for fd in [0, 12, 5] {
        code.call(libc::SYS_read, &[fd, RESULT, 2]).write(3, RESULT, 2);
    }
    let mut image = image(looked_at(code));
    let file = image.file(content.path());
    let kind = DescriptionKind::File { file };
    let at_four = "pos:\t4\nflags:\t0\n";
    let shared = image.told_descriptor(0, libc::O_RDWR | libc::O_NOATIME, kind.clone(), at_four);
    report.attach(&mut image, 3);
    image.told_descriptor(5, libc::O_RDONLY, kind, at_four);
    image.manifest.descriptors.push(Descriptor { fd: 12, close_on_exec: true, description: shared });
    let (mut running, uffd) = run(&image);
    serve(&mut running, &uffd, |pid| {
        let flags = |fd: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).expect("fdinfo");
            let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
            i32::from_str_radix(flags.trim(), 8).expect("octal") & !libc::O_LARGEFILE & !0o100_000
        };
        assert_eq!(flags(0), libc::O_RDWR | libc::O_NOATIME);
        assert_eq!(flags(12), libc::O_RDWR | libc::O_NOATIME | libc::O_CLOEXEC);
        assert_eq!(flags(3), libc::O_WRONLY | libc::O_APPEND);
        let numbers = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
        assert_eq!(numbers, 4);
    });
    assert_eq!(report.read(), b"456745\x01");
    Ok(())
}

fn directory_can_be_entered() -> Outcome {
    privileged()?;
    let report = Report::new("directory");
    let mut code = Code::default();
    code.call(libc::SYS_fchdir, &[0]).call(libc::SYS_getcwd, &[RESULT, 64]).write(3, RESULT, 9).exit(0);
    let mut image = image(code);
    let file = image.file(std::path::Path::new("/usr/bin"));
    image.descriptor(0, libc::O_RDONLY | libc::O_DIRECTORY, DescriptionKind::File { file });
    report.attach(&mut image, 3);
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    assert_eq!(report.read(), b"/usr/bin\0");
    Ok(())
}

fn bytes_in_flight() -> Outcome {
    privileged()?;
    let report = Report::new("pipe");
    let mut code = Code::default();
    code.call(libc::SYS_read, &[0, RESULT, 3]).write(3, RESULT, 3);
    code.write(7, DATA, 2).call(libc::SYS_read, &[0, RESULT, 2]).write(3, RESULT, 2);
    code.call(libc::SYS_read, &[10, RESULT, 4]).write(3, RESULT, 4);
    code.call(libc::SYS_read, &[9, RESULT, 4]).write(3, RESULT, 4).exit(0);
    let mut image = image(code);
    image.poke(DATA, b"xy");
    let pipe = PipeRecord { path: vec![], capacity: 8192, content: b"abc".to_vec() };
    image.manifest.pipes.push(pipe);
    image.descriptor(0, libc::O_RDONLY, DescriptionKind::Pipe { pipe: 0, end: PipeEnd::Read });
    report.attach(&mut image, 3);
    image.descriptor(7, libc::O_WRONLY, DescriptionKind::Pipe { pipe: 0, end: PipeEnd::Write });
    image.descriptor(9, libc::O_RDWR, end_of_pair(1010, vec![message(b"left", vec![])]));
    image.descriptor(10, libc::O_RDWR, end_of_pair(1009, vec![message(b"rght", vec![])]));
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    assert_eq!(report.read(), b"abcxyrghtleft");
    Ok(())
}

/// One end of a pair of stream sockets, connected to the one with inode `peer`.
fn end_of_pair(peer: u64, messages: Vec<MessageRecord>) -> DescriptionKind {
    DescriptionKind::Socket(SocketRecord {
        domain: 1,
        kind: 1,
        peer,
        peer_address: vec![1, 0],
        messages,
        ..SocketRecord::default()
    })
}

fn message(content: &[u8], descriptions: Vec<u32>) -> MessageRecord {
    MessageRecord { content: content.to_vec(), sender: vec![], descriptions }
}

fn descriptors_in_flight() -> Outcome {
    privileged()?;
    let report = Report::new("in-flight");
    // struct msghdr, the vector, a byte for the message, and room for one descriptor behind its header of 16 bytes.
    let (header, vector, byte, control) = (DATA, DATA + 64, DATA + 128, DATA + 192);
    let mut code = Code::default();
    code.call(libc::SYS_recvmsg, &[9, header, 0]).write(3, byte, 1);
    // The lowest free number is 0: where the pipe's end lands.
    code.call(libc::SYS_read, &[0, RESULT, 3]).write(3, RESULT, 3).exit(0);
    let mut image = image(code);
    for (at, word) in [
        (header + 16, vector),
        (header + 24, 1),
        (header + 32, control),
        (header + 40, 24),
        (vector, byte),
        (vector + 8, 1),
    ] {
        image.poke(at, &word.to_le_bytes());
    }
    let pipe = PipeRecord { path: vec![], capacity: 8192, content: b"abc".to_vec() };
    image.manifest.pipes.push(pipe);
    let reader = image.descriptor(5, libc::O_RDONLY, DescriptionKind::Pipe { pipe: 0, end: PipeEnd::Read });
    // It is in flight only.
    image.manifest.descriptors.clear();
    report.attach(&mut image, 3);
    image.descriptor(9, libc::O_RDWR, end_of_pair(1010, vec![message(b"!", vec![reader])]));
    image.descriptor(10, libc::O_RDWR, end_of_pair(1009, vec![]));
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    assert_eq!(report.read(), b"!abc");
    Ok(())
}

fn what_makes_no_sense() -> Outcome {
    privileged()?;
    let refusal = |kind, info: &str| {
        let mut image = image(looked_at(Code::default()));
        image.told_descriptor(4, libc::O_RDWR, kind, info);
        Restorer::reserve(&image.manifest, &Policy::default())
            .err()
            .map(|error| error.line())
            .unwrap_or_default()
    };
    let anonymous = |name: &[u8]| DescriptionKind::Anonymous { name: name.to_vec() };
    assert!(refusal(anonymous(b"[timerfd]"), "clockid: 1\nticks: x\n").contains("which it does not have"));
    assert!(refusal(anonymous(b"[timerfd]"), "pos:\t0\n").contains("not moved"));
    assert!(refusal(anonymous(b"[perf_event]"), "pos:\t0\n").contains("not known"));
    assert!(refusal(anonymous(b"[pidfd]"), "pos:\t0\nPid:\t1\n").contains("another process"));
    let socket = |domain, options| {
        DescriptionKind::Socket(SocketRecord { domain, kind: 1, options, ..SocketRecord::default() })
    };
    assert!(refusal(socket(9999, vec![]), "").contains("a socket"));
    // SO_REUSEADDR, with a value of one byte.
    assert!(refusal(socket(2, vec![0, 1, 7]), "").contains("option 2 of level 1"));
    let fifo = PipeRecord { path: b"/no/such/fifo".to_vec(), capacity: 4096, content: vec![] };
    let mut image = image(looked_at(Code::default()));
    image.manifest.pipes.push(fifo);
    let refused = Restorer::reserve(&image.manifest, &Policy::default()).err().map(|error| error.line());
    assert!(refused.is_some_and(|line| line.contains("the FIFO /no/such/fifo is not here")), "named");
    Ok(())
}

fn terminals_without_sense() -> Outcome {
    privileged()?;
    let refusal = |indices: &[u32], terminal| {
        let mut image = image(looked_at(Code::default()));
        let record = |index: &u32| TerminalRecord { index: *index, ..TerminalRecord::default() };
        image.manifest.terminals = indices.iter().map(record).collect();
        image.descriptor(4, libc::O_RDWR, DescriptionKind::Terminal { terminal, end: TerminalEnd::Master });
        let refused = Restorer::reserve(&image.manifest, &Policy::default()).err();
        refused.map(|error| error.line()).unwrap_or_default()
    };
    assert_eq!(refusal(&[5, 3], 1), "");
    assert!(refusal(&[5, 3], 2).contains("pseudo-terminal 2"));
    assert!(refusal(&[3, 3], 0).contains("/dev/pts/3 cannot be made here"));
    assert!(refusal(&[u32::MAX], 0).contains("cannot be made here"));
    Ok(())
}

fn timers_and_signals() -> Outcome {
    privileged()?;
    let report = Report::new("timers");
    let mut code = Code::default();
    // Three times it went off already; a signalfd without a signal has nothing to say.
    code.call(libc::SYS_read, &[4, RESULT, 8]).write(3, RESULT, 8);
    code.call(libc::SYS_read, &[5, RESULT, 128]).store(RESULT).write(3, RESULT, 8).exit(0);
    let mut image = image(code);
    report.attach(&mut image, 3);
    let timer = "pos:\t0\nflags:\t0\nclockid: 1\nticks: 3\nsettime flags: 00\nit_value: (0, 0)\nit_interval: (0, 0)\n";
    image.told_descriptor(4, libc::O_RDWR, DescriptionKind::Anonymous { name: b"[timerfd]".to_vec() }, timer);
    let signals = "pos:\t0\nflags:\t0\nsigmask:\t0000000000000200\n";
    let kind = DescriptionKind::Anonymous { name: b"[signalfd]".to_vec() };
    image.told_descriptor(5, libc::O_RDWR | libc::O_NONBLOCK, kind, signals);
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    let mut expected = 3_u64.to_le_bytes().to_vec();
    expected.extend_from_slice(&i64::from(-libc::EAGAIN).to_le_bytes());
    assert_eq!(report.read(), expected);
    Ok(())
}

fn locks_are_taken() -> Outcome {
    privileged()?;
    let (report, content) = (Report::new("locks"), Report::new("locked"));
    fs::write(content.path(), b"x").expect("a file");
    let mut image = image(looked_at(Code::default()));
    report.attach(&mut image, 3);
    let file = image.file(content.path());
    image.descriptor(4, libc::O_RDWR, DescriptionKind::File { file });
    for line in
        ["1: FLOCK  ADVISORY  WRITE 7 00:13:11691 0 EOF", "2: POSIX  ADVISORY  WRITE 7 00:13:11691 5 9"]
    {
        image.manifest.locks.push(LockRecord { fd: 4, line: line.as_bytes().to_vec() });
    }
    let (mut running, uffd) = run(&image);
    assert_eq!(running.unlocked, []);
    serve(&mut running, &uffd, |pid| {
        let found = fs::read_to_string(format!("/proc/{pid}/fdinfo/4")).expect("fdinfo");
        let found: Vec<&str> = found.lines().filter(|line| line.starts_with("lock:")).collect();
        assert!(found.iter().any(|line| line.contains("FLOCK  ADVISORY  WRITE")), "{found:?}");
        assert!(found.iter().any(|line| line.contains("POSIX") && line.ends_with(" 5 9")), "{found:?}");
    });
    Ok(())
}

fn epoll_tells() -> Outcome {
    privileged()?;
    let report = Report::new("epoll");
    let mut code = Code::default();
    code.call(libc::SYS_epoll_wait, &[1, RESULT, 4, 0]).store(RESULT + 64).write(3, RESULT + 64, 1);
    code.write(3, RESULT, 12).call(libc::SYS_read, &[8, RESULT, 8]).write(3, RESULT, 8).exit(0);
    let mut image = image(code);
    let readable = libc::EPOLLIN.unsigned_abs();
    let watches = "pos:\t0\nflags:\t02\ntfd: 8 events: 1 data: 1122334455667788 pos:0 ino:3f0 sdev:f\n";
    let anonymous = |name: &[u8]| DescriptionKind::Anonymous { name: name.to_vec() };
    image.told_descriptor(1, libc::O_RDWR, anonymous(b"[eventpoll]"), watches);
    report.attach(&mut image, 3);
    let count = "pos:\t0\nflags:\t02\neventfd-count: 12a05f200\n";
    image.told_descriptor(8, libc::O_RDWR, anonymous(b"[eventfd]"), count);
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    let mut expected = vec![1];
    expected.extend_from_slice(&readable.to_le_bytes());
    expected.extend_from_slice(&0x1122_3344_5566_7788_u64.to_le_bytes());
    expected.extend_from_slice(&5_000_000_000_u64.to_le_bytes());
    assert_eq!(report.read(), expected);
    Ok(())
}

fn memfd_keeps() -> Outcome {
    const AT: u64 = DATA + (1 << 30);
    privileged()?;
    let report = Report::new("memfd");
    let mut code = Code::default();
    code.write(3, AT + PAGE_SIZE + 2, 3);
    code.call(libc::SYS_read, &[4, RESULT, 3]).write(3, RESULT, 3).exit(0);
    let mut image = image(code);
    let content = vec![(PAGE_SIZE, b"..memfd".to_vec())];
    image.manifest.objects.push(ObjectRecord {
        name: b"/memfd:mine (deleted)".to_vec(),
        size: 2 * PAGE_SIZE,
        mode: 0,
        owner: (0, 0),
        seals: 0,
        ghost: None,
        segment: Vec::new(),
        content,
        streamed: false,
    });
    image.map_object(AT, 2, 0);
    report.attach(&mut image, 3);
    let info = format!("pos:\t{}\nflags:\t0\n", PAGE_SIZE + 4);
    image.told_descriptor(4, libc::O_RDWR, DescriptionKind::Object { object: 0 }, &info);
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    assert_eq!(report.read(), b"memmfd");
    Ok(())
}

fn stream_becomes_own() -> Outcome {
    privileged()?;
    let report = Report::new("stream");
    let mut image = image(looked_at(Code::default()));
    report.attach(&mut image, 3);
    image.descriptor(6, libc::O_RDWR, DescriptionKind::Stream(StreamKind::Error));
    let (mut running, uffd) = run(&image);
    serve(&mut running, &uffd, |pid| {
        let theirs = fs::read_link(format!("/proc/{pid}/fd/6")).expect("open");
        assert_eq!(theirs, fs::read_link("/proc/self/fd/2").expect("open"));
    });
    Ok(())
}

fn lost_connection_says() -> Outcome {
    privileged()?;
    let report = Report::new("lost");
    let mut code = Code::default();
    code.call(libc::SYS_read, &[4, RESULT, 1]).store(RESULT).write(3, RESULT, 8).exit(0);
    let mut image = image(code);
    report.attach(&mut image, 3);
    image.descriptor(4, libc::O_RDWR, DescriptionKind::LostConnection { domain: 2 });
    let (mut running, uffd) = run(&image);
    serve(&mut running, &uffd, |_| ());
    assert_eq!(report.read(), i64::from(-libc::ECONNRESET).to_le_bytes());
    Ok(())
}

fn listener(address: Vec<u8>, domain: i32) -> DescriptionKind {
    DescriptionKind::Socket(SocketRecord {
        domain: domain.unsigned_abs(),
        kind: 1,
        address,
        backlog: Some(5),
        name: Some((0o140_755, 0, 0)),
        ..SocketRecord::default()
    })
}

/// A `struct sockaddr_in` on the loopback interface.
fn loopback(socket: &TcpListener) -> Vec<u8> {
    let port = socket.local_addr().expect("a name").port();
    let mut bytes = 2_u16.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[127, 0, 0, 1]);
    bytes.resize(16, 0);
    bytes
}

fn listener_listens() -> Outcome {
    privileged()?;
    let report = Report::new("listener");
    let path = report.path().with_extension("socket");
    let source = TcpListener::bind("127.0.0.1:0").expect("a port");
    let named = UnixListener::bind(&path).expect("a path");
    let port = source.local_addr().expect("a name").port();
    let mut image = image(looked_at(Code::default()));
    report.attach(&mut image, 3);
    image.descriptor(4, libc::O_RDWR | libc::O_NONBLOCK, listener(loopback(&source), libc::AF_INET));
    let mut address = 1_u16.to_ne_bytes().to_vec();
    address.extend_from_slice(path.as_os_str().as_encoded_bytes());
    address.push(0);
    image.descriptor(5, libc::O_RDWR, listener(address, libc::AF_UNIX));
    let (restorer, uffd) = build(&image);
    drop((source, named));
    let mut running =
        restorer.assemble().and_then(Restorer::resume).unwrap_or_else(|error| panic!("{}", error.line()));
    assert_eq!(running.unbound, []);
    serve(&mut running, &uffd, |_| {
        TcpStream::connect(("127.0.0.1", port)).expect("somebody listens");
        std::os::unix::net::UnixStream::connect(&path).expect("somebody listens");
    });
    fs::remove_file(&path).expect("the socket");
    Ok(())
}

fn address_stays_in_use() -> Outcome {
    privileged()?;
    let report = Report::new("in-use");
    let source = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut image = image(looked_at(Code::default()));
    report.attach(&mut image, 3);
    image.descriptor(4, libc::O_RDWR, listener(loopback(&source), libc::AF_INET));
    let (mut running, uffd) = run(&image);
    assert_eq!(running.unbound, [(4, sys::Errno::EADDRINUSE)]);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    Ok(())
}

/// A manifest may say of any address that the program listens there, and of any socket that it waits to be accepted.
fn no_other_listener() -> Outcome {
    privileged()?;
    let report = Report::new("other-listener");
    let path = report.path().with_extension("socket");
    let other = UnixListener::bind(&path).expect("a path");
    other.set_nonblocking(true).expect("ours");
    let mut image = image(looked_at(Code::default()));
    report.attach(&mut image, 3);
    let address = [&1_u16.to_ne_bytes(), path.as_os_str().as_encoded_bytes(), &[0]].concat();
    let DescriptionKind::Socket(mut record) = listener(address, libc::AF_UNIX) else {
        unreachable!("it is one")
    };
    // The header of sock_diag's answer, of which the kind is looked at, and UNIX_DIAG_ICONS with one inode.
    record.diagnosis = [0, 20, 0, 0, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
    record.diagnosis.extend([8, 3].map(u16::to_ne_bytes).concat());
    let client = image.descriptor(5, libc::O_RDWR, {
        DescriptionKind::Socket(SocketRecord { domain: 1, kind: 1, ..SocketRecord::default() })
    });
    let inode = image.manifest.descriptions[client as usize].inode;
    record.diagnosis.extend_from_slice(&inode.to_ne_bytes()[..4]);
    image.descriptor(4, libc::O_RDWR, DescriptionKind::Socket(record));
    let (mut running, uffd) = run(&image);
    let errors = [(4, sys::Errno::EADDRINUSE), (5, sys::Errno::ECONNREFUSED)];
    assert_eq!(running.unbound, errors);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    // Whoever makes the process looks whether anybody listens there.
    while let Ok((connection, _)) = other.accept() {
        let by = getsockopt(&connection, sockopt::PeerCredentials).expect("a Unix socket");
        assert_eq!(by.pid().cast_unsigned(), std::process::id(), "the program was connected");
    }
    fs::remove_file(&path).expect("the socket");
    Ok(())
}

fn foreign_address() -> Outcome {
    privileged()?;
    let mut image = image(looked_at(Code::default()));
    let mut address = 2_u16.to_ne_bytes().to_vec();
    // 192.0.2.1 is for documentation only (RFC 5737).
    address.extend_from_slice(&[0x1f, 0x90, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    image.descriptor(4, libc::O_RDWR, listener(address, libc::AF_INET));
    let refused = Restorer::reserve(&image.manifest, &Policy::default());
    assert!(matches!(refused, Err(RestoreError::Address { fd: 4, errno: sys::Errno::EADDRNOTAVAIL })));
    Ok(())
}

fn missing_file() -> Outcome {
    privileged()?;
    let mut missing = image(Code::default());
    let report = Report::new("missing");
    report.attach(&mut missing, 3);
    drop(report);
    let is_named = |error: Option<RestoreError>| {
        let line = error.expect("it is refused").line();
        assert!(line.contains("missing") && line.contains("no such file"), "{line}");
    };
    // It may have been deleted since it was looked at, which the final manifest would say.
    let (restorer, _) = Restorer::reserve(&missing.manifest, &Policy::default()).expect("not refused yet");
    is_named(restorer.map(&missing.manifest).err());
    missing.manifest.host.boot_id = [0; 16];
    is_named(Restorer::reserve(&missing.manifest, &Policy::default()).err());
    Ok(())
}
