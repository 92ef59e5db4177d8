//! Both sides of a relay in one process, over real connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use relay::{Relay, Socket};
use sys::poll::poll;
use transport::{Connection, Expected};

/// No wait here is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Two ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let one = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
    let (other, _) = listener.accept().expect("connected");
    for stream in [&one, &other] {
        stream.set_read_timeout(Some(LONGEST)).expect("a stream");
        stream.set_write_timeout(Some(LONGEST)).expect("a stream");
    }
    (one, other)
}

/// A relay of `ends`, named 10, 20 and so on, over `link`.
fn relay(link: TcpStream, ends: Vec<TcpStream>) -> Relay {
    link.set_nonblocking(true).expect("a stream");
    let link = Connection::new(Socket::new(OwnedFd::from(link).into()), Expected::Relayed);
    let named = ends.into_iter().zip(1..).map(|(end, count)| (count * 10, OwnedFd::from(end).into()));
    Relay::new(link, named.collect())
}

fn run(mut relay: Relay) {
    let deadline = Instant::now() + LONGEST;
    while !relay.is_over() && Instant::now() < deadline {
        if !relay.turn() {
            poll(&mut relay.interests(), Some(1000)).expect("descriptors");
        }
    }
}

/// What is at the outside of a relay of some connections.
struct Scene {
    /// Who was connected to the program.
    others: Vec<TcpStream>,
    programs: Vec<TcpStream>,
    sides: [thread::JoinHandle<()>; 2],
}

fn scene(count: usize) -> Scene {
    let (one, other) = pair();
    let (others, sources): (Vec<_>, Vec<_>) = (0..count).map(|_| pair()).unzip();
    let (programs, destinations): (Vec<_>, Vec<_>) = (0..count).map(|_| pair()).unzip();
    let sides = [relay(one, sources), relay(other, destinations)].map(|mut side| {
        side.begin();
        thread::spawn(move || run(side))
    });
    Scene { others, programs, sides }
}

impl Scene {
    fn end(self) {
        drop((self.others, self.programs));
        for side in self.sides {
            side.join().expect("it does not panic");
        }
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251 + seed) % 256).expect("a byte")).collect()
}

#[test]
fn bytes_go_both_ways_and_each_end_comes_out_where_it_went_in() {
    const LEN: usize = 5_000_000;
    let scene = scene(3);
    let streams = scene.others.iter().zip(&scene.programs).enumerate();
    thread::scope(|scope| {
        for (index, (other, program)) in streams {
            for (mut from, mut to, seed) in [(other, program, index), (program, other, index + 100)] {
                scope.spawn(move || {
                    from.write_all(&pattern(LEN, seed)).expect("room in time");
                    from.shutdown(Shutdown::Write).expect("connected");
                });
                scope.spawn(move || {
                    let mut got = Vec::new();
                    to.read_to_end(&mut got).expect("an end in order");
                    assert!(got == pattern(LEN, seed), "{} bytes of {LEN}", got.len());
                });
            }
        }
    });
    scene.end();
}

#[test]
fn a_connection_that_nobody_reads_holds_up_no_other() {
    let scene = scene(2);
    let [deaf, heard] = scene.others.as_slice() else { panic!("two connections") };
    deaf.set_nonblocking(true).expect("a stream");
    let full = (0..10_000).find(|_| {
        let stuck = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        let is_stuck = (&mut &*deaf).write(&[7; 65536]).is_err_and(stuck);
        if is_stuck {
            thread::yield_now();
        }
        is_stuck && (&mut &*deaf).write(&[7; 65536]).is_err_and(stuck)
    });
    assert!(full.is_some(), "it takes without bound what nobody reads");
    (&mut &*heard).write_all(b"hello").expect("room");
    let mut got = [0; 5];
    (&mut &scene.programs[1]).read_exact(&mut got).expect("it comes through");
    assert_eq!(&got, b"hello");
    scene.end();
}

#[test]
fn a_broken_connection_comes_out_broken_behind_what_was_said_before() {
    let mut scene = scene(1);
    let mut other = scene.others.remove(0);
    other.write_all(b"last words").expect("room");
    let mut got = [0; 10];
    scene.programs[0].read_exact(&mut got).expect("they come through");
    // Closing with a byte unread is what resets a connection.
    scene.programs[0].write_all(b"!").expect("room");
    let mut peeked = [0];
    assert_eq!(other.peek(&mut peeked).expect("a byte"), 1);
    drop(other);
    let error = scene.programs[0].read(&mut got).expect_err("it did not end in order");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    scene.end();
}

#[test]
fn a_lost_link_breaks_every_connection_on_both_sides() {
    let (one, other) = pair();
    let (mut outside, source) = pair();
    let (mut program, destination) = pair();
    let mut near = relay(one, vec![source]);
    let mut far = relay(other, vec![destination]);
    near.begin();
    far.begin();
    outside.write_all(b"x").expect("room");
    let mut got = [0];
    program.set_nonblocking(true).expect("a stream");
    let deadline = Instant::now() + LONGEST;
    while program.read(&mut got).is_err() {
        assert!(Instant::now() < deadline, "nothing comes through");
        near.turn();
        far.turn();
    }
    program.set_nonblocking(false).expect("a stream");
    drop(near);
    run(far);
    for stream in [&mut outside, &mut program] {
        let error = stream.read(&mut got).expect_err("it did not end in order");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn nothing_is_taken_and_nothing_breaks_before_the_other_side_has_room() {
    let (one, other) = pair();
    let (mut outside, source) = pair();
    let mut kept = source.try_clone().expect("a duplicate");
    let mut near = relay(one, vec![source]);
    near.begin();
    outside.write_all(b"still here").expect("room");
    while near.turn() {}
    assert!(!near.has_begun());
    drop(other);
    while !near.has_lost_link() {
        near.turn();
    }
    near.give_back();
    drop(near);
    let mut got = [0; 10];
    kept.read_exact(&mut got).expect("the program goes on with its connection");
    assert_eq!(&got, b"still here");
    kept.write_all(b"!").expect("it is whole");
    outside.read_exact(&mut got[..1]).expect("it is whole");
}

#[test]
fn more_than_there_is_room_for_ends_the_relay() {
    let (one, mut other) = pair();
    let (_outside, source) = pair();
    let mut near = relay(one, vec![source]);
    near.begin();
    near.keep();
    // 32 KiB for connection 10: far more of them than any window.
    let header = [0, 0x80, 0, 0, 48, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0];
    let hostile =
        thread::spawn(
            move || {
                while other.write_all(&header).and_then(|()| other.write_all(&[0; 0x8000])).is_ok() {}
            },
        );
    let deadline = Instant::now() + LONGEST;
    while !near.is_over() {
        assert!(Instant::now() < deadline, "it takes without bound");
        if !near.turn() {
            poll(&mut near.interests(), Some(1000)).expect("descriptors");
        }
    }
    drop(near);
    hostile.join().expect("it ends");
}

#[test]
fn a_slow_reader_gets_all_that_was_said_before_both_sides_ended() {
    const LEN: usize = 900_000;
    let (one, other) = pair();
    let (mut outside, source) = pair();
    let (mut program, destination) = pair();
    // What is not read has to wait in the relay.
    for (stream, option) in [(&outside, 8), (&source, 7)] {
        sys::socket::set_option(stream.as_fd(), 1, option, &65536_u32.to_ne_bytes())
            .expect("a buffer's size");
    }
    let mut near = relay(one, vec![source]);
    let mut far = relay(other, vec![destination]);
    near.begin();
    far.begin();
    outside.shutdown(Shutdown::Write).expect("connected");
    let writer = thread::spawn(move || {
        assert_eq!(program.read(&mut [0]).expect("an end in order"), 0);
        program.write_all(&pattern(LEN, 1)).expect("room in time");
    });
    let deadline = Instant::now() + LONGEST;
    while !(writer.is_finished() && far.is_empty()) {
        assert!(Instant::now() < deadline, "not all is taken");
        near.turn();
        far.turn();
    }
    writer.join().expect("it does not panic");
    // The far side says that it is through, and the near side hears it.
    for _ in 0..100 {
        far.turn();
        near.turn();
        thread::yield_now();
    }
    let sides = [near, far].map(|side| thread::spawn(move || run(side)));
    let mut got = Vec::new();
    outside.read_to_end(&mut got).expect("an end in order");
    assert!(got == pattern(LEN, 1), "{} bytes of {LEN}", got.len());
    for side in sides {
        side.join().expect("it does not panic");
    }
}

/// Two relays that take turns, with buffers in the kernel that hold little.
struct Turns {
    near: Relay,
    far: Relay,
    outside: TcpStream,
    program: TcpStream,
}

/// Whether the kernel here still has bytes that the other side's has not.
fn has_unsent(stream: &TcpStream) -> bool {
    let port = format!(":{:04X}", stream.local_addr().expect("bound").port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc");
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|own| own.ends_with(&port))
            && words.nth(2).is_some_and(|queues| !queues.starts_with("00000000:"))
    })
}

fn turns() -> Turns {
    let (one, other) = pair();
    let (outside, source) = pair();
    let (program, destination) = pair();
    for (stream, option, bytes) in [(&program, 8, 65536_u32), (&destination, 7, 65536), (&source, 8, 400_000)]
    {
        sys::socket::set_option(stream.as_fd(), 1, option, &bytes.to_ne_bytes()).expect("a buffer's size");
    }
    let mut near = relay(one, vec![source]);
    let mut far = relay(other, vec![destination]);
    near.begin();
    far.begin();
    Turns { near, far, outside, program }
}

impl Turns {
    /// Until there is nothing to do for a while.
    fn settle(&mut self) {
        let mut idle = 0;
        while idle < 50 {
            let worked = [self.near.turn(), self.far.turn()];
            idle = if worked.contains(&true) { 0 } else { idle + 1 };
            thread::yield_now();
        }
    }

    /// Says `words` outside, and has the near side's kernel hold what is beyond the credit.
    fn say(&mut self, words: &[u8]) {
        let mut outside = self.outside.try_clone().expect("a duplicate");
        let owned = words.to_vec();
        let writer = thread::spawn(move || outside.write_all(&owned).expect("room in time"));
        let deadline = Instant::now() + LONGEST;
        while !writer.is_finished() || has_unsent(&self.outside) {
            assert!(Instant::now() < deadline, "not all is taken");
            self.settle();
        }
        writer.join().expect("it does not panic");
    }

    /// Breaks the connection outside; the near side notices by what the program has said meanwhile.
    fn break_outside(mut self, last: &[u8]) -> (TcpStream, [thread::JoinHandle<()>; 2]) {
        self.settle();
        self.program.write_all(b"!").expect("room");
        self.settle();
        self.program.write_all(b"more").expect("room");
        while self.far.turn() {}
        self.outside.write_all(last).expect("room");
        // With a byte unread, this resets the connection.
        drop(self.outside);
        let sides = [self.near, self.far].map(|side| thread::spawn(move || run(side)));
        (self.program, sides)
    }
}

#[test]
fn last_words_come_through_when_the_break_is_noticed_by_writing() {
    let (mut program, sides) = turns().break_outside(b"last words");
    let mut got = [0; 10];
    program.read_exact(&mut got).expect("they come through");
    assert_eq!(&got, b"last words");
    assert_eq!(program.read(&mut got).expect_err("it broke").kind(), ErrorKind::ConnectionReset);
    sides.into_iter().for_each(|side| side.join().expect("it does not panic"));
}

#[test]
fn what_waits_for_a_slow_reader_comes_ahead_of_the_break() {
    const LEN: usize = 900_000;
    let mut turns = turns();
    turns.say(&pattern(LEN, 5));
    let (mut program, sides) = turns.break_outside(b"");
    let mut got = vec![0; LEN];
    program.read_exact(&mut got).expect("all of it comes through");
    assert!(got == pattern(LEN, 5));
    assert_eq!(program.read(&mut got).expect_err("it broke").kind(), ErrorKind::ConnectionReset);
    sides.into_iter().for_each(|side| side.join().expect("it does not panic"));
}

#[test]
fn a_program_that_only_writes_hears_of_a_break_beyond_the_credit() {
    let mut turns = turns();
    turns.say(&pattern((1 << 20) + 250_000, 3));
    let (mut program, sides) = turns.break_outside(b"");
    let deadline = Instant::now() + LONGEST;
    let error = loop {
        assert!(Instant::now() < deadline, "it writes for ever");
        if let Err(error) = program.write_all(&[7; 65536]) {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    drop(program);
    sides.into_iter().for_each(|side| side.join().expect("it does not panic"));
}

#[test]
fn a_connection_whose_program_runs_elsewhere_breaks_though_nothing_was_taken() {
    let (one, other) = pair();
    let (mut outside, source) = pair();
    let mut near = relay(one, vec![source]);
    near.begin();
    near.keep();
    drop(other);
    run(near);
    let error = outside.read(&mut [0]).expect_err("it did not end in order");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_connection_whose_link_is_lost_while_its_program_begins_to_run_elsewhere_breaks() {
    let (one, other) = pair();
    let (mut outside, source) = pair();
    let program = source.try_clone().expect("a duplicate");
    let mut near = relay(one, vec![source]);
    drop(other);
    while !near.has_lost_link() {
        near.turn();
    }
    near.keep();
    run(near);
    drop(program);
    let error = outside.read(&mut [0]).expect_err("it did not end in order");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_link_notices_a_machine_that_is_gone() {
    let (one, _other) = pair();
    let link = one.try_clone().expect("a duplicate");
    let _near = relay(one, Vec::new());
    for (level, option, value) in [(1, 9, 1_u32), (6, 4, 3), (6, 5, 3), (6, 6, 9), (6, 18, 30_000)] {
        let found = sys::socket::option(link.as_fd(), level, option).expect("an option");
        assert_eq!(found, value.to_ne_bytes());
    }
}
