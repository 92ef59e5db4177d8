//! The kernel's userfaultfd as the destination relies on it, on a real one.

use std::io;

use memory::{Addr, PAGE_SIZE, PageRange};
use sys::test_child::{Command, TestChild};
use sys::uffd::{CopyOutcome, EventLog, Uffd, UffdEvent, check_permission};

const BASE: u64 = 0x2000_0000_0000;
const ELSEWHERE: u64 = 0x2100_0000_0000;

fn pages(first: u64, count: u64) -> PageRange {
    PageRange::from_pages(Addr(BASE + first * PAGE_SIZE), count).expect("user space")
}

fn at(page: u64) -> Addr {
    Addr(BASE + page * PAGE_SIZE)
}

fn content(byte: u8, count: usize) -> Vec<u8> {
    vec![byte; count * 4096]
}

#[allow(clippy::print_stdout, reason = "a test that is skipped says why")]
fn permitted() -> bool {
    let permission = check_permission();
    if let Err(why) = &permission {
        println!("skipped: {why}");
    }
    permission.is_ok()
}

/// A child with 16 mapped and registered pages at `BASE`, or `None` without permission.
fn child() -> Option<(TestChild, Uffd)> {
    if !permitted() {
        return None;
    }
    let mut child = TestChild::spawn().expect("a child");
    assert_eq!(child.ask(Command::Map(pages(0, 16))).expect("an answer"), BASE);
    let uffd = child.uffd().expect("the child's userfaultfd");
    uffd.register(pages(0, 16)).expect("registers");
    Some((child, uffd))
}

/// Waits for at least one event.
fn events(uffd: &Uffd) -> Vec<UffdEvent> {
    assert!(uffd.wait_readable(10_000).expect("polls"), "an event within ten seconds");
    EventLog::new(32).expect("memory").read(0, uffd, 16).expect("reads")
}

#[test]
fn a_touched_page_is_reported_and_read_as_it_was_copied() {
    let Some((mut child, uffd)) = child() else { return };
    child.begin(Command::Load(at(3))).expect("sends");
    let event = events(&uffd);
    assert!(
        matches!(event[..], [UffdEvent::Fault { addr, thread, write: false }] if addr == at(3) && thread as usize == child.pid()),
        "{event:?}"
    );
    assert_eq!(uffd.copy(pages(3, 1), &content(7, 1)).expect("copies"), CopyOutcome::Copied(1));
    assert_eq!(child.answer().expect("an answer"), 7);
}

#[test]
fn a_copy_stops_before_a_present_page_and_says_how_far_it_came() {
    let Some((mut child, uffd)) = child() else { return };
    assert_eq!(uffd.zero(pages(2, 1)).expect("zeroes"), CopyOutcome::Copied(1));
    assert_eq!(uffd.copy(pages(0, 4), &content(1, 4)).expect("copies"), CopyOutcome::Copied(2));
    assert_eq!(uffd.copy(pages(2, 2), &content(1, 2)).expect("copies"), CopyOutcome::AlreadyPresent);
    assert_eq!(uffd.zero(pages(3, 3)).expect("zeroes"), CopyOutcome::Copied(3));
    assert_eq!(uffd.zero(pages(3, 1)).expect("zeroes"), CopyOutcome::AlreadyPresent);
    assert_eq!(child.ask(Command::Load(at(1))).expect("an answer"), 1);
    assert_eq!(child.ask(Command::Load(at(2))).expect("an answer"), 0);
}

#[test]
fn a_range_that_is_not_registered_or_not_one_mapping_is_gone() {
    let Some((mut child, uffd)) = child() else { return };
    child.ask(Command::Map(pages(16, 1))).expect("an answer");
    assert_eq!(uffd.copy(pages(15, 2), &content(1, 2)).expect("copies"), CopyOutcome::RangeGone);
    assert_eq!(uffd.copy(pages(15, 1), &content(1, 1)).expect("copies"), CopyOutcome::Copied(1));
    assert_eq!(uffd.copy(pages(16, 1), &content(1, 1)).expect("copies"), CopyOutcome::RangeGone);
    assert_eq!(uffd.zero(pages(40, 1)).expect("zeroes"), CopyOutcome::RangeGone);
}

#[test]
fn a_dropped_range_is_an_event_and_nothing_is_filled_before_it_is_read() {
    let Some((mut child, uffd)) = child() else { return };
    assert!(!uffd.is_changing());
    child.begin(Command::Drop(pages(4, 2))).expect("sends");
    assert!(uffd.wait_readable(10_000).expect("polls"));
    assert!(uffd.is_changing());
    assert_eq!(uffd.copy(pages(4, 1), &content(1, 1)).expect("copies"), CopyOutcome::Retry);
    assert_eq!(uffd.zero(pages(4, 1)).expect("zeroes"), CopyOutcome::Retry);
    let event = events(&uffd);
    assert!(matches!(event[..], [UffdEvent::Remove(range)] if range == pages(4, 2)), "{event:?}");
    assert_eq!(child.answer().expect("an answer"), 0);
    assert!(!uffd.is_changing());
    assert_eq!(uffd.zero(pages(4, 1)).expect("zeroes"), CopyOutcome::Copied(1));
}

#[test]
fn a_moved_range_is_reported_and_then_its_old_place_as_unmapped() {
    let Some((mut child, uffd)) = child() else { return };
    child.begin(Command::Move(pages(8, 4), Addr(ELSEWHERE))).expect("sends");
    let mut seen = events(&uffd);
    seen.extend(events(&uffd));
    assert!(
        matches!(seen[..], [UffdEvent::Remap { from, to }, UffdEvent::Unmap(old)]
            if from == pages(8, 4) && to == Addr(ELSEWHERE) && old == pages(8, 4)),
        "{seen:?}"
    );
    assert_eq!(child.answer().expect("an answer"), ELSEWHERE);
    child.begin(Command::Load(Addr(ELSEWHERE))).expect("sends");
    assert!(matches!(events(&uffd)[..], [UffdEvent::Fault { addr: Addr(ELSEWHERE), .. }]));
    let moved = PageRange::from_pages(Addr(ELSEWHERE), 4).expect("user space");
    assert_eq!(uffd.copy(moved, &content(9, 4)).expect("copies"), CopyOutcome::Copied(4));
    assert_eq!(child.answer().expect("an answer"), 9);
}

#[test]
fn a_forked_child_has_a_userfaultfd_of_its_own() {
    let Some((mut child, uffd)) = child() else { return };
    child.begin(Command::ForkAndLoad(at(5))).expect("sends");
    let Some(UffdEvent::Fork(theirs)) = events(&uffd).pop() else { panic!("a fork is reported") };
    assert!(matches!(events(&theirs)[..], [UffdEvent::Fault { addr, .. }] if addr == at(5)));
    assert_eq!(theirs.copy(pages(5, 1), &content(42, 1)).expect("copies"), CopyOutcome::Copied(1));
    assert_eq!(child.answer().expect("an answer"), 42);
    assert_eq!(theirs.copy(pages(6, 1), &content(1, 1)).expect("copies"), CopyOutcome::ProcessGone);
}

#[test]
fn a_poisoned_page_ends_in_sigbus_and_never_in_a_zero() {
    let Some((mut child, uffd)) = child() else { return };
    assert_eq!(uffd.poison(pages(0, 2)).expect("poisons"), CopyOutcome::Copied(2));
    child.begin(Command::Load(at(1))).expect("sends");
    assert_eq!(child.answer().expect_err("no answer").kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(child.wait().expect("reaps") & 0x7f, 7, "SIGBUS");
}

#[test]
fn an_unregistered_range_reads_as_zero_without_a_report() {
    let Some((mut child, uffd)) = child() else { return };
    assert_eq!(uffd.unregister(pages(8, 8)).ok(), Some(()));
    assert_eq!(child.ask(Command::Load(at(9))).expect("an answer"), 0);
}

#[test]
fn a_program_that_became_another_is_gone() {
    let Some((mut child, uffd)) = child() else { return };
    child.begin(Command::Exec).expect("sends");
    assert_eq!(child.answer().expect_err("no answer").kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(uffd.copy(pages(0, 1), &content(1, 1)).expect("copies"), CopyOutcome::ProcessGone);
    assert_eq!(uffd.zero(pages(0, 1)).expect("zeroes"), CopyOutcome::ProcessGone);
    assert_eq!(uffd.poison(pages(0, 1)).expect("poisons"), CopyOutcome::ProcessGone);
    assert!(uffd.unregister(pages(0, 1)).is_err());
}

#[test]
fn a_userfaultfd_of_this_process_serves_its_own_threads() {
    if !permitted() {
        return;
    }
    let uffd = Uffd::open().expect("opens");
    assert!(!uffd.wait_readable(0).expect("polls"));
    assert!(EventLog::new(32).expect("memory").read(0, &uffd, 4).expect("reads").is_empty());
}
