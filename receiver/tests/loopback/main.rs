//! Both loops in one process, over loopback TCP: a source whose memory is made up, and a destination whose process
//! is a real child with a real userfaultfd.

mod random;
mod world;

use engine::Failure;
use fault_handler::Outcome;
use memory::PageSet;
use protocol::Channel;
use sys::test_child::Command;
use world::{Source, World, addr, byte_of, permitted, range};

const SIGBUS: i32 = 7;

/// 4096 pages, of which a few stretches hold data, some of it zeros.
fn scattered() -> Source {
    let mut source = Source::new(range(0, 4096));
    for (first, count) in [(0, 3), (100, 700), (1000, 1), (1002, 1), (2000, 1500), (4095, 1)] {
        source.pages.insert(range(first, count));
    }
    source.zero.insert(range(300, 70));
    source.zero.insert(range(2500, 1));
    source.eager = vec![range(0, 3), range(2000, 2)];
    source
}

#[test]
fn every_byte_arrives_while_the_program_reads_here_and_there() {
    if !permitted() {
        return;
    }
    let source = scattered();
    let expected = source.clone();
    let mut world = World::start(source);
    world.await_resumed();
    let mut page = 17;
    for _ in 0..300 {
        page = (page * 1021 + 7) % 4096;
        let offset = page * 5 % 4096;
        let loaded = world.ask(Command::Load(addr(page, offset)));
        assert_eq!(loaded, u64::from(expected.byte(page, offset)), "page {page}");
    }
    let ends = world.join();
    assert_eq!(ends.source, page_server::Outcome::Moved { pid_there: ends.pid });
    assert_eq!(ends.destination, Outcome::Completed(None));
    let data = expected.pages.len() - expected.zero.len();
    assert!(ends.report.bytes_sent >= data * 4096, "{:?}", ends.report);
    let memory = world.memory(range(0, 4096));
    for (page, bytes) in (0..4096).zip(memory.chunks(4096)) {
        let right = (0..4096).zip(bytes).all(|(offset, byte)| *byte == expected.byte(page, offset));
        assert!(right, "page {page}");
    }
}

#[test]
fn bytes_follow_a_program_that_moves_drops_and_forks_its_memory() {
    if !permitted() {
        return;
    }
    let mut source = Source::new(range(0, 8192));
    source.pages.insert(range(0, 8192));
    let mut world = World::start(source);
    world.await_resumed();

    let moved = range(20_000, 64);
    assert_eq!(world.ask(Command::Move(range(8000, 64), moved.start())), moved.start().0);
    assert_eq!(world.ask(Command::Load(addr(20_063, 1))), u64::from(byte_of(8063, 1)));

    assert_eq!(world.ask(Command::Drop(range(7000, 16))), 0);
    assert_eq!(world.ask(Command::Load(addr(7003, 9))), 0);
    assert_eq!(world.ask(Command::Load(addr(7016, 9))), u64::from(byte_of(7016, 9)));

    assert_eq!(world.ask(Command::ForkAndLoad(addr(20_010, 3))), u64::from(byte_of(8010, 3)));
    assert_eq!(world.ask(Command::ForkAndLoad(addr(6500, 3))), u64::from(byte_of(6500, 3)));

    assert_eq!(world.ask(Command::Unmap(range(6000, 100))), 0);
    assert_eq!(world.ask(Command::Store(addr(5000, 4), 99)), 0);

    let ends = world.join();
    assert_eq!(ends.source, page_server::Outcome::Moved { pid_there: ends.pid });
    assert_eq!(ends.destination, Outcome::Completed(None));
    assert_eq!(world.ask(Command::Load(addr(5000, 4))), 99);
    for (page, there) in [(8000, 20_000), (8063, 20_063), (0, 0), (5999, 5999), (6100, 6100), (8191, 8191)] {
        assert_eq!(world.ask(Command::Load(addr(there, 77))), u64::from(byte_of(page, 77)), "page {page}");
    }
    for page in 7000..7016 {
        assert_eq!(world.ask(Command::Load(addr(page, 0))), 0, "page {page}");
    }
}

#[test]
fn a_source_that_dies_leaves_sigbus_and_never_a_zero() {
    if !permitted() {
        return;
    }
    let mut source = Source::new(range(0, 4096));
    source.pages.insert(range(0, 4096));
    source.eager = vec![range(0, 1)];
    // The eager page is one read; the link goes down during the second frame behind it.
    source.reads_before_cut = Some(2);
    source.dies = true;
    let mut world = World::start(source);
    world.await_resumed();
    world.await_death();
    let destination = world.join_destination();
    assert!(matches!(destination, Outcome::Completed(Some(Failure::LinkLost(_)))), "{destination:?}");
    assert_eq!(world.ask(Command::Load(addr(0, 5))), u64::from(byte_of(0, 5)), "what has come stays");
    assert_eq!(world.signal_of(Command::Load(addr(4095, 0))), SIGBUS);
}

#[test]
fn pages_that_the_source_cannot_read_are_sigbus_and_the_rest_arrives() {
    if !permitted() {
        return;
    }
    let mut source = Source::new(range(0, 256));
    source.pages.insert(range(0, 256));
    source.unreadable.insert(range(100, 5));
    let mut world = World::start(source);
    world.await_resumed();
    world.join();
    for page in [0, 99, 105, 255] {
        assert_eq!(world.ask(Command::Load(addr(page, 8))), u64::from(byte_of(page, 8)), "page {page}");
    }
    assert_eq!(world.signal_of(Command::Load(addr(102, 0))), SIGBUS);
}

#[test]
fn a_refused_reservation_leaves_the_process_at_the_source() {
    let mut source = Source::new(range(0, 16));
    source.pages = PageSet::new();
    let mut world = World::start_refusing(source, "/usr/lib/libx.so is not here");
    let source = world.join_source();
    let text = String::from("/usr/lib/libx.so is not here");
    assert_eq!(source, page_server::Outcome::Released(Failure::Peer(text.clone())));
    assert_eq!(world.join_destination(), Outcome::Discarded(Failure::Local(text)));
    assert_eq!(world.released(), 1);
}

#[test]
fn each_channel_cut_after_run_is_found_again_and_nothing_is_lost() {
    if !permitted() {
        return;
    }
    for channel in Channel::ALL {
        let mut source = Source::new(range(0, 1 << 14));
        source.pages.insert(range(0, 1 << 14));
        source.reads_before_cut = Some(3);
        source.cuts = vec![channel];
        let mut world = World::start(source);
        world.await_resumed();
        let ends = world.join();
        assert_eq!(ends.source, page_server::Outcome::Moved { pid_there: ends.pid }, "{channel}");
        assert_eq!(ends.destination, Outcome::Completed(None), "{channel}");
        assert_eq!(world.released(), 0);
        for page in (0..1 << 14).step_by(97) {
            assert_eq!(world.ask(Command::Load(addr(page, 9))), u64::from(byte_of(page, 9)), "page {page}");
        }
    }
}
