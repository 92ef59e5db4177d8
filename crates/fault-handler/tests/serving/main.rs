//! The loop at work: a real userfaultfd on a forked child, real sockets, and a source that the test plays.
#![forbid(unsafe_code)]

mod stage;

use std::io;
use std::os::unix::net::UnixStream;

use engine::Failure;
use fault_handler::{HandlerError, Outcome};
use memory::{Addr, PageRange};
use protocol::{Channel, Header, Kind, SourceReport};
use stage::{BASE, ELSEWHERE, PAGES, Stage, at, byte_of, content, manifest, pages, reason};
use sys::test_child::Command;

fn loaded(page: u64) -> u64 {
    u64::from(byte_of(at(page)))
}

/// Sends everything that is left, waits until the loop needs nothing more, and checks how it ended.
fn push_all_and_end(mut stage: Stage) -> (sys::test_child::TestChild, stage::Process) {
    stage.send_page_map(&[pages(0, PAGES)]);
    stage.send_pages(Channel::Push, pages(0, PAGES));
    stage.signal(Kind::PushDone);
    stage.expect(Kind::Drained);
    let (child, (process, ended)) = stage.end();
    assert_eq!(ended.expect("ends in order").outcome, Outcome::Completed(None));
    assert!(process.finished);
    (child, process)
}

#[test]
fn a_process_has_all_its_pages_when_the_source_has_pushed_them() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[pages(3, 2)]);
    let report = SourceReport { park_us: 7, ..SourceReport::default() };
    stage.message(Kind::SourceReport, &report);
    let (mut child, process) = push_all_and_end(stage);
    for page in 0..PAGES {
        assert_eq!(child.ask(Command::Load(at(page))).expect("an answer"), loaded(page));
    }
    assert_eq!(process.source, Some(report));
}

#[test]
fn pages_that_cannot_be_registered_are_written_before_the_process_runs() {
    let Some(mut stage) = Stage::new() else { return };
    let unregistered = pages(PAGES, 2);
    stage.run_process(&[pages(PAGES - 1, 3)]);
    let (_child, process) = push_all_and_end(stage);
    assert_eq!(process.written, [(unregistered, content(unregistered))]);
}

#[test]
fn a_touched_page_is_asked_for_and_answered_before_bulk() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    stage.child.begin(Command::Load(at(9))).expect("sends");
    let request = stage.request();
    assert!(request.contains(at(9)), "{request}");
    for first in (16..PAGES).step_by(8) {
        stage.send_pages(Channel::Push, pages(first, 8));
    }
    stage.send_pages(Channel::Fault, request);
    assert_eq!(stage.child.answer().expect("an answer"), loaded(9));
    push_all_and_end(stage);
}

#[test]
fn holes_and_zero_pages_read_as_zero_and_are_writable() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    stage.send_page_map(&[pages(0, 4)]);
    stage.send_counted(Kind::ZeroPages, Channel::Push, pages(2, 2));
    stage.send_pages(Channel::Push, pages(0, 2));
    stage.signal(Kind::PushDone);
    assert_eq!(stage.child.ask(Command::Load(at(3))).expect("an answer"), 0);
    assert_eq!(stage.child.ask(Command::Load(at(40))).expect("an answer"), 0);
    stage.child.ask(Command::Store(at(41), 5)).expect("an answer");
    assert_eq!(stage.child.ask(Command::Load(at(41))).expect("an answer"), 5);
    assert_eq!(stage.child.ask(Command::Load(at(1))).expect("an answer"), loaded(1));
    stage.expect(Kind::Drained);
    let (_child, (_, ended)) = stage.end();
    assert_eq!(ended.expect("ends in order").outcome, Outcome::Completed(None));
}

#[test]
fn a_moved_page_is_asked_for_by_its_old_address() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    let moved = stage.child.ask(Command::Move(pages(8, 8), Addr(ELSEWHERE))).expect("an answer");
    assert_eq!(moved, ELSEWHERE);
    stage.child.begin(Command::Load(Addr(ELSEWHERE + 3 * 4096))).expect("sends");
    let request = stage.request();
    assert!(request.contains(at(11)), "{request}");
    stage.send_pages(Channel::Fault, request);
    assert_eq!(stage.child.answer().expect("an answer"), loaded(11));
    let (mut child, _) = push_all_and_end(stage);
    for page in 8..16 {
        let there = Addr(ELSEWHERE + (page - 8) * 4096);
        assert_eq!(child.ask(Command::Load(there)).expect("an answer"), loaded(page));
    }
}

#[test]
fn dropped_pages_read_as_zero_though_the_source_still_sends_them() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[pages(20, 1)]);
    assert_eq!(stage.child.ask(Command::Drop(pages(20, 4))).expect("an answer"), 0);
    let (mut child, _) = push_all_and_end(stage);
    for page in 20..24 {
        assert_eq!(child.ask(Command::Load(at(page))).expect("an answer"), 0);
    }
    assert_eq!(child.ask(Command::Load(at(24))).expect("an answer"), loaded(24));
}

#[test]
fn what_is_mapped_over_missing_pages_is_left_alone() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    assert_eq!(stage.child.ask(Command::Unmap(pages(30, 4))).expect("an answer"), 0);
    assert_eq!(stage.child.ask(Command::Map(pages(31, 2))).expect("an answer"), BASE + 31 * 4096);
    stage.child.ask(Command::Store(at(31), 77)).expect("an answer");
    let (mut child, _) = push_all_and_end(stage);
    assert_eq!(child.ask(Command::Load(at(31))).expect("an answer"), 77);
    assert_eq!(child.ask(Command::Load(at(32))).expect("an answer"), 0);
    assert_eq!(child.ask(Command::Load(at(34))).expect("an answer"), loaded(34));
}

#[test]
fn a_forked_child_reads_what_its_parent_had_at_the_fork() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    stage.child.begin(Command::ForkAndLoad(at(12))).expect("sends");
    assert_eq!(stage.serve_until_answer(), loaded(12));
    stage.child.begin(Command::Load(at(12))).expect("sends");
    assert_eq!(stage.serve_until_answer(), loaded(12));
    let (_child, process) = push_all_and_end(stage);
    assert_eq!(process.forks, 1);
}

#[test]
fn a_forked_child_does_not_have_what_was_kept_from_it() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    // The process says so itself, as it may at any time: no manifest tells of it.
    stage.child.ask(Command::WipeOnFork(pages(8, 8))).expect("advises");
    stage.child.begin(Command::ForkAndLoad(at(12))).expect("sends");
    assert_eq!(stage.serve_until_answer(), 0);
    push_all_and_end(stage);
}

#[test]
fn pages_of_a_lost_source_end_in_sigbus_and_not_in_zeros() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    stage.send_pages(Channel::Push, pages(0, 4));
    stage.child.begin(Command::Load(at(2))).expect("sends");
    assert_eq!(stage.serve_until_answer(), loaded(2));
    stage.vanish();
    stage.child.begin(Command::Load(at(50))).expect("sends");
    assert_eq!(stage.child.answer().expect_err("no answer").kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(stage.child.wait().expect("reaps") & 0x7f, 7, "SIGBUS");
    let (_child, (_, ended)) = stage.end();
    let outcome = ended.expect("ends in order").outcome;
    assert!(matches!(outcome, Outcome::Completed(Some(Failure::LinkLost(_)))), "{outcome:?}");
}

#[test]
fn a_page_that_the_source_cannot_read_ends_in_sigbus() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    stage.child.begin(Command::Load(at(5))).expect("sends");
    let request = stage.request();
    stage.send_counted(Kind::LostPages, Channel::Fault, request);
    assert_eq!(stage.child.answer().expect_err("no answer").kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(stage.child.wait().expect("reaps") & 0x7f, 7, "SIGBUS");
}

#[test]
fn a_refused_reservation_is_told_and_nothing_is_built() {
    let refusal = Failure::Local("no such file: /nonexistent".into());
    let Some(mut stage) = Stage::with(|process| process.refusal = Some(refusal.clone())) else { return };
    stage.message(Kind::Reserve, &manifest(&[]));
    let (_, body) = stage.expect(Kind::Abort);
    assert_eq!(reason(&body), refusal.to_string());
    let (_child, (process, ended)) = stage.end();
    assert_eq!(ended.expect("ends in order").outcome, Outcome::Discarded(refusal.clone()));
    assert_eq!(process.discarded, Some(refusal));
}

#[test]
fn a_source_that_cancels_before_run_is_obeyed() {
    let Some(mut stage) = Stage::new() else { return };
    stage.message(Kind::Reserve, &manifest(&[]));
    stage.expect(Kind::Reserved);
    stage.message(Kind::Cancel, &protocol::Reason { text: "thread 7 cannot be parked".into() });
    let (_child, (process, ended)) = stage.end();
    let outcome = ended.expect("ends in order").outcome;
    assert_eq!(outcome, Outcome::Discarded(Failure::Peer("thread 7 cannot be parked".into())));
    assert!(process.discarded.is_some());
}

#[test]
fn what_has_never_run_here_is_said_to_go_on_there_when_the_receiver_ends() {
    let (receiver, line) = UnixStream::pair().expect("a pair");
    line.set_nonblocking(true).expect("a socket");
    let Some(mut stage) = Stage::with(|process| process.receiver = Some(line)) else { return };
    stage.message(Kind::Reserve, &manifest(&[]));
    stage.expect(Kind::Reserved);
    stage.message(Kind::Switchover, &manifest(&[]));
    stage.expect(Kind::Ready);
    drop(receiver);
    let (_, body) = stage.expect(Kind::Abort);
    assert_eq!(reason(&body), "the receiver has ended");
    let (_child, (process, _)) = stage.end();
    assert!(process.discarded.is_some());
}

#[test]
fn nonsense_from_the_source_ends_its_own_migration_only() {
    let Some(mut stage) = Stage::new() else { return };
    stage.send(
        Channel::Control,
        Header { argument: 1, ..Header::plain(Kind::Pages, 0) },
        &content(pages(0, 1)),
    );
    stage.expect(Kind::Abort);
    let (_child, (process, ended)) = stage.end();
    let outcome = ended.expect("ends in order").outcome;
    assert!(matches!(outcome, Outcome::Discarded(Failure::Protocol(_))), "{outcome:?}");
    assert!(process.discarded.is_some());
}

#[test]
fn pages_outside_of_the_process_are_not_installed() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    let outside = PageRange::from_pages(Addr(ELSEWHERE), 1).expect("user space");
    let header = Header { count: 1, argument: outside.start().0, ..Header::plain(Kind::Pages, 0) };
    stage.send(Channel::Push, header, &[1; 4096]);
    let (_child, (_, ended)) = stage.end();
    assert!(matches!(ended.map(|ended| ended.outcome), Ok(Outcome::Completed(Some(_)))));
}

#[test]
fn packed_pages_are_the_same_as_others() {
    let Some(mut stage) = Stage::new() else { return };
    let unregistered = pages(PAGES, 2);
    stage.run_process(&[pages(PAGES, 2)]);
    stage.child.begin(Command::Load(at(9))).expect("sends");
    let request = stage.request();
    stage.send_packed(Channel::Fault, request);
    assert_eq!(stage.child.answer().expect("an answer"), loaded(9));
    stage.send_page_map(&[pages(0, PAGES)]);
    stage.send_packed(Channel::Push, pages(0, 7));
    stage.send_pages(Channel::Push, pages(7, 3));
    for first in (10..PAGES).step_by(16) {
        stage.send_packed(Channel::Push, pages(first, (PAGES - first).min(16)));
    }
    stage.signal(Kind::PushDone);
    stage.expect(Kind::Drained);
    let (mut child, (process, ended)) = stage.end();
    assert_eq!(ended.expect("ends in order").outcome, Outcome::Completed(None));
    for page in 0..PAGES {
        assert_eq!(child.ask(Command::Load(at(page))).expect("an answer"), loaded(page));
    }
    assert_eq!(process.written, [(unregistered, content(unregistered))]);
}

#[test]
fn a_block_that_is_not_those_pages_is_nonsense_and_nothing_of_it_is_installed() {
    let short = b"\x1fa\x01\x00\xff\x00\x50bcdef".as_slice();
    let too_far = b"\x1fa\x02\x00\xff\x00\x50bcdef".as_slice();
    for block in [short, too_far, b"\0", b"\xf0", &[0xff; 4095]] {
        let Some(mut stage) = Stage::new() else { return };
        stage.run_process(&[]);
        let header = Header { count: 1, argument: at(5).0, ..Header::plain(Kind::PackedPages, 0) };
        stage.send(Channel::Push, header, block);
        stage.child.begin(Command::Load(at(5))).expect("sends");
        assert_eq!(stage.child.answer().expect_err("no answer").kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(stage.child.wait().expect("reaps") & 0x7f, 7, "SIGBUS");
        let (_child, (_, ended)) = stage.end();
        let outcome = ended.map(|ended| ended.outcome);
        assert!(matches!(outcome, Ok(Outcome::Completed(Some(Failure::Protocol(_))))), "{outcome:?}");
    }
}

#[test]
fn a_program_that_became_another_needs_nothing_more() {
    let Some(mut stage) = Stage::new() else { return };
    stage.run_process(&[]);
    stage.child.begin(Command::Exec).expect("sends");
    assert_eq!(stage.child.answer().expect_err("no answer").kind(), io::ErrorKind::UnexpectedEof);
    stage.send_pages(Channel::Push, pages(0, 8));
    stage.expect(Kind::Drained);
    let (_child, (_, ended)) = stage.end();
    let outcome = ended.map(|ended| ended.outcome);
    assert!(!matches!(outcome, Err(HandlerError::Memory(_))), "{outcome:?}");
}
