//! Links that are lost behind `Run`, and what both sides make of it.

mod common;

use std::time::Duration;

use common::{Held, Image, Pair, range};
use engine::{
    Config, Content, DestinationAction, DestinationInput, Failure, InstallOutcome, OnLoss, SourceAction,
    SourceInput, SpaceId,
};
use memory::PageRange;
use protocol::Channel;

/// When the source hears that the process runs: ahead of the end of the link, or over what is left of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    Before,
    Behind,
}
use Heard::{Before, Behind};

const MAIN: SpaceId = SpaceId::MAIN;
const A_WHILE: Duration = Duration::from_secs(3);

/// A thousand lazy pages, of which 300 hold data.
fn image() -> Image {
    Image {
        eager: vec![range(5, 1)],
        lazy: vec![range(100, 1000)],
        data: vec![range(100, 100), range(500, 200)],
        ..Image::default()
    }
}

fn lost() -> Failure {
    Failure::LinkLost(Channel::Control)
}

fn pages_sent(log: &[SourceAction], on: Channel) -> u64 {
    let sent = |action: &SourceAction| match action {
        SourceAction::SendPages { channel, pages } if *channel == on => pages.pages(),
        _ => 0,
    };
    log.iter().map(sent).sum()
}

fn requests(log: &[DestinationAction]) -> Vec<PageRange> {
    let asked = |action: &DestinationAction| match action {
        DestinationAction::RequestPages(pages) => Some(*pages),
        _ => None,
    };
    log.iter().filter_map(asked).collect()
}

fn expect_complete(pair: &Pair) {
    assert_eq!(pair.source_log.last(), Some(&SourceAction::End(None)));
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
    assert!(pair.held.iter().all(|((_, at), held)| *held == Held::Source(*at)));
}

/// The program runs, 16 pages have come because one was touched, and the link is lost.
fn paused() -> Pair {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    pair.touch(MAIN, 650);
    pair.lose_link();
    assert_eq!((pair.source.phase(), pair.destination.phase()), ("paused", "paused"));
    pair
}

#[test]
fn over_a_new_link_exactly_what_is_missing_is_pushed() {
    let mut pair = paused();
    let (pushed, source_log) = (pair.source_log.len(), pair.source_log.clone());
    assert!(pages_sent(&source_log, Channel::Push) > 0, "pages were lost with the link");
    (pair.cut, pair.push_flows) = (false, true);
    pair.tick_after(A_WHILE);
    expect_complete(&pair);
    assert_eq!(pages_sent(&pair.source_log[pushed..], Channel::Push), 300 - 16);
    assert_eq!(pair.held.len(), 301);
    assert_eq!((pair.destination.report().recoveries, pair.destination.report().lost.pages), (1, 0));
    assert_eq!(pair.destination.report().phases.paused, A_WHILE);
}

#[test]
fn a_thread_that_waits_for_a_page_gets_it_over_the_next_link_before_all_else() {
    let mut pair = paused();
    let addr = range(600, 1).start();
    pair.destination_does(DestinationInput::Fault { space: MAIN, addr, thread: 1 });
    assert!(!pair.held.contains_key(&(MAIN, addr)));
    assert!(!requests(&pair.destination_log).contains(&range(600, 1)));
    let before = pair.source_log.len();
    pair.cut = false;
    pair.tick_after(A_WHILE);
    assert_eq!(pair.held.get(&(MAIN, addr)), Some(&Held::Source(addr)));
    let sent = |action: &&SourceAction| matches!(action, SourceAction::SendPages { .. });
    let first = pair.source_log[before..].iter().find(sent);
    assert!(matches!(first, Some(SourceAction::SendPages { channel: Channel::Fault, .. })), "{first:?}");
}

#[test]
fn a_page_that_was_asked_for_over_the_lost_link_is_asked_for_again_if_somebody_waits_for_it() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    let addr = range(650, 1).start();
    pair.destination_does(DestinationInput::Fault { space: MAIN, addr, thread: 1 });
    pair.lose_link();
    pair.cut = false;
    pair.tick_after(A_WHILE);
    assert_eq!(requests(&pair.destination_log), [range(650, 16), range(650, 1)]);
    assert_eq!(pair.held.get(&(MAIN, addr)), Some(&Held::Source(addr)));
}

#[test]
fn what_the_program_does_to_its_memory_meanwhile_counts() {
    let mut pair = paused();
    pair.destination_does(DestinationInput::Removed { space: MAIN, pages: range(510, 10) });
    assert_eq!(pair.touch(MAIN, 511), Held::Zero);
    assert_eq!(pair.touch(MAIN, 300), Held::Zero, "a hole that is known needs no link");
    pair.destination_does(DestinationInput::Forked { parent: MAIN, child: SpaceId(1) });
    (pair.cut, pair.push_flows) = (false, true);
    pair.tick_after(A_WHILE);
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
    assert_eq!(pair.touch(MAIN, 511), Held::Zero);
    let of_child = pair.held.keys().filter(|(space, _)| *space == SpaceId(1)).count();
    assert_eq!(of_child, 300 - 16 - 10);
}

#[test]
fn a_lost_run_gives_the_process_back_to_the_source() {
    let mut pair = Pair::new(image());
    pair.source_does(SourceInput::Connected);
    while pair.source.phase() != "postcopy" {
        pair.settle_one();
    }
    pair.lose_link();
    assert_eq!((pair.source.phase(), pair.destination.phase()), ("paused", "aborted"));
    assert!(!pair.source.may_still_run_here());
    pair.source_does(SourceInput::Reconnected);
    pair.source_does(SourceInput::Aborted(Failure::Peer("never".into())));
    assert!(matches!(pair.source_log.last(), Some(SourceAction::Release(_))));
    assert!(pair.source.may_still_run_here());
    pair.destination_does(DestinationInput::Run { epoch: 1 });
    assert!(!pair.destination_log.contains(&DestinationAction::Resume));
}

#[test]
fn a_destination_that_has_not_heard_run_when_the_source_connects_again_promises_never_to_run_it() {
    let mut pair = Pair::new(image());
    pair.source_does(SourceInput::Connected);
    while pair.destination.phase() != "ready" {
        pair.settle_one();
    }
    pair.destination_does(DestinationInput::Reconnected);
    assert_eq!(pair.destination.phase(), "aborted");
    assert!(pair.destination_log.iter().any(|action| matches!(action, DestinationAction::SendAbort(_))));
}

#[test]
fn a_source_whose_run_arrived_serves_pages_after_all() {
    let mut pair = Pair::new(image());
    pair.source_does(SourceInput::Connected);
    while pair.destination.phase() != "postcopy" {
        pair.settle_one();
    }
    pair.lose_link();
    pair.cut = false;
    pair.tick_after(A_WHILE);
    expect_complete(&pair);
}

#[test]
fn in_doubt_the_source_asks_for_ever_and_otherwise_until_the_destination_must_have_given_up() {
    for heard in [None, Some(Before), Some(Behind)] {
        let mut pair = Pair::new(image());
        pair.source_does(SourceInput::Connected);
        while pair.source.phase() != "postcopy" {
            pair.settle_one();
        }
        let running = SourceInput::Running { patience_s: 60 };
        pair.cut = true;
        if heard == Some(Before) {
            pair.source_does(running.clone());
        }
        pair.source_does(SourceInput::Broken(lost()));
        if heard == Some(Behind) {
            pair.source_does(running);
        }
        let mut attempts = 0;
        for _ in 0..1000 {
            let Some(due) = pair.source.poll_timeout() else { break };
            pair.now = due;
            let before = pair.source_log.len();
            pair.source_does(SourceInput::Tick);
            attempts += pair.source_log[before..].iter().filter(|a| **a == SourceAction::Reconnect).count();
        }
        assert!(attempts > 30, "{attempts}");
        assert_eq!(pair.source.phase(), if heard.is_some() { "failed" } else { "paused" });
    }
}

#[test]
fn in_doubt_somebody_who_knows_gives_the_process_back_and_else_nobody() {
    for heard in [None, Some(Before), Some(Behind)] {
        let mut pair = Pair::new(image());
        pair.source_does(SourceInput::Connected);
        while pair.source.phase() != "postcopy" {
            pair.settle_one();
        }
        let running = SourceInput::Running { patience_s: 60 };
        pair.cut = true;
        if heard == Some(Before) {
            pair.source_does(running.clone());
        }
        pair.source_does(SourceInput::Broken(lost()));
        if heard == Some(Behind) {
            pair.source_does(running);
        }
        pair.source_does(SourceInput::ReconnectFailed(Failure::Local("it is not there".into())));
        assert_eq!(pair.source.phase(), if heard.is_some() { "paused" } else { "cancelled" });
        let is_back = matches!(pair.source_log.last(), Some(SourceAction::Release(_)));
        assert_eq!(is_back, heard.is_none());
    }
}

#[test]
fn a_source_that_is_told_that_the_process_is_gone_ends() {
    let mut pair = paused();
    pair.source_does(SourceInput::ReconnectFailed(Failure::Peer("no such migration".into())));
    assert!(matches!(pair.source_log.last(), Some(SourceAction::End(Some(_)))));
}

#[test]
fn what_becomes_of_the_process_when_the_link_does_not_come_back_is_the_users_choice() {
    for on_loss in [OnLoss::Wait, OnLoss::Poison, OnLoss::Kill] {
        let config = Config { on_loss, head_start: Duration::ZERO, ..Config::default() };
        let mut pair = Pair::with_config(image(), config);
        pair.migrate_without_push();
        pair.lose_link();
        pair.now = pair.now + config.recovery_deadline;
        pair.destination_does(DestinationInput::Tick);
        let last = pair.destination_log.last();
        match on_loss {
            OnLoss::Wait => assert_eq!(pair.destination.phase(), "paused"),
            OnLoss::Poison => assert!(matches!(last, Some(DestinationAction::Complete(Some(_)))), "{last:?}"),
            OnLoss::Kill => assert!(matches!(last, Some(DestinationAction::Kill(_))), "{last:?}"),
        }
        let lost_pages = pair.destination.report().lost.pages;
        assert_eq!(lost_pages, if on_loss == OnLoss::Wait { 0 } else { 300 });
    }
}

#[test]
fn who_takes_over_goes_on_with_what_was_installed_since() {
    let mut pair = Pair::new(image());
    pair.source_does(SourceInput::Connected);
    while pair.destination.phase() != "ready" {
        pair.settle_one();
    }
    let copy = pair.destination.clone();
    pair.migrate_without_push();
    pair.settle();
    pair.touch(MAIN, 650);
    // The loop dies; another one goes on with the copy and what has been written down.
    pair.destination = copy;
    pair.destination_does(DestinationInput::Run { epoch: 1 });
    pair.destination_does(DestinationInput::TakenOver);
    let outcome = InstallOutcome::Installed;
    pair.destination_does(DestinationInput::Installed { space: MAIN, pages: range(650, 16), outcome });
    assert_eq!(pair.destination.phase(), "paused");
    let before = pair.source_log.len();
    pair.lose_link();
    (pair.cut, pair.push_flows) = (false, true);
    pair.tick_after(A_WHILE);
    expect_complete(&pair);
    assert_eq!(pages_sent(&pair.source_log[before..], Channel::Push), 300 - 16);
}

#[test]
fn a_list_of_pages_that_are_not_served_ends_it() {
    for pages in [range(50, 1), range(1099, 2)] {
        let mut pair = paused();
        pair.source_does(SourceInput::Reconnected);
        pair.source_does(SourceInput::Listed { arrived: false, pages: vec![pages] });
        assert!(matches!(pair.source_log.last(), Some(SourceAction::End(Some(Failure::Protocol(_))))));
    }
    let mut pair = paused();
    pair.destination_does(DestinationInput::Reconnected);
    let (channel, content) = (Channel::Push, Content::Data);
    pair.destination_does(DestinationInput::PagesArrived { channel, pages: range(50, 1), content });
    assert_eq!(pair.destination.phase(), "completed", "poisoned at once");
}
