//! Whole migrations of both engines, each in one readable scene.

mod common;

use std::time::Duration;

use common::{Held, Image, Pair, range};
use engine::{
    Config, Content, DestinationAction, DestinationInput, Failure, InstallOutcome, Place, Plan, SourceAction,
    SourceInput, SpaceId,
};
use memory::{Addr, PageRange};
use protocol::Channel;

const MAIN: SpaceId = SpaceId::MAIN;

/// Two eager pages, one of them in the lazy range of a thousand pages; 300 of those hold data.
fn image() -> Image {
    Image {
        eager: vec![range(5, 1), range(120, 1)],
        lazy: vec![range(100, 1000)],
        data: vec![range(100, 100), range(500, 200)],
        ..Image::default()
    }
}

fn source_page(page: u64) -> Held {
    Held::Source(range(page, 1).start())
}

fn position<T: PartialEq>(log: &[T], wanted: &T) -> usize {
    log.iter().position(|entry| entry == wanted).expect("it was done")
}

#[test]
fn an_undisturbed_migration_brings_every_data_page_once() {
    let mut pair = Pair::new(image());
    pair.migrate();
    assert_eq!(pair.source_log.last(), Some(&SourceAction::End(None)));
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
    assert_eq!(pair.held.len(), 301);
    assert!(pair.held.iter().all(|((_, at), held)| *held == Held::Source(*at)));
    let pages = pair.destination.report().pages;
    assert_eq!((pages.eager, pages.push, pages.fault, pages.unwanted), (2, 299, 0, 0));
    assert_eq!((pages.data, pages.zero, pages.holes), (301, 0, 700));
}

#[test]
fn what_the_process_touches_first_comes_before_what_nobody_has_asked_for() {
    let config = Config::default();
    let mut pair = Pair::with_config(image(), config);
    pair.migrate();
    let unasked = |pair: &Pair| {
        let is_unasked = |action: &&SourceAction| {
            matches!(action, SourceAction::Scan(_))
                || matches!(action, SourceAction::SendPages { channel: Channel::Push, .. })
        };
        pair.source_log.iter().filter(is_unasked).count()
    };
    let eager = unasked(&pair);
    for page in [500, 540, 580] {
        pair.tick_after(config.head_start_pause / 2);
        assert_eq!(pair.touch(MAIN, page), source_page(page));
        assert_eq!(unasked(&pair), eager);
    }
    pair.tick_after(config.head_start_pause);
    pair.settle();
    assert_eq!(pair.source_log.last(), Some(&SourceAction::End(None)));
}

#[test]
fn a_process_that_never_stops_touching_gets_no_longer_head_start() {
    let config = Config::default();
    let mut pair = Pair::with_config(image(), config);
    pair.migrate();
    let step = config.head_start_pause / 2;
    for page in 500..500 + u64::try_from(config.head_start.as_micros() / step.as_micros()).expect("few") {
        pair.touch(MAIN, page);
        pair.tick_after(step);
        pair.settle();
    }
    assert_eq!(pair.source_log.last(), Some(&SourceAction::End(None)));
}

#[test]
fn ready_comes_after_the_last_eager_page_and_run_after_ready() {
    let mut pair = Pair::new(image());
    pair.migrate();
    let log = &pair.destination_log;
    let ready = position(log, &DestinationAction::SendReady);
    let installs = log[..ready].iter().filter(|action| matches!(action, DestinationAction::Install { .. }));
    assert_eq!(installs.count(), 2);
    assert!(ready < position(log, &DestinationAction::Resume));
    let run = position(&pair.source_log, &SourceAction::SendRun { epoch: 1 });
    let lazy_before = pair.source_log[..run].iter().any(|action| matches!(action, SourceAction::Scan(_)));
    assert!(!lazy_before);
}

#[test]
fn eager_pages_that_come_before_the_mappings_stand_are_asked_for_again() {
    let mut pair = Pair::new(image());
    pair.destination_does(DestinationInput::ReserveRequested);
    let (channel, content) = (Channel::Push, Content::Data);
    assert!(!pair.destination.takes_pages());
    pair.destination_does(DestinationInput::PagesArrived { channel, pages: range(5, 1), content });
    pair.destination_does(DestinationInput::SwitchoverRequested {
        eager: pair.image.eager.clone(),
        lazy: pair.image.lazy.clone(),
        kept: vec![],
    });
    assert!(pair.destination.takes_pages());
    assert!(pair.destination_log.contains(&DestinationAction::RequestPages(range(5, 1))));
    assert!(pair.destination_log.contains(&DestinationAction::RequestPages(range(120, 1))));
}

#[test]
fn fault_during_push_is_answered_first() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    assert_eq!(pair.touch(MAIN, 650), source_page(650));
    assert!(
        pair.source_log.contains(&SourceAction::SendPages { channel: Channel::Fault, pages: range(650, 16) })
    );
    let report = pair.destination.report();
    assert_eq!((report.pages.fault, report.pages.prefetch, report.fault_latency.count()), (1, 15, 1));
    pair.push_flows = true;
    pair.settle();
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
}

#[test]
fn two_threads_at_one_page_make_one_request() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    for thread in 1..=2 {
        pair.destination_does(DestinationInput::Fault { space: MAIN, addr: range(650, 1).start(), thread });
    }
    pair.settle();
    let requests = pair.destination_log.iter().filter(|a| matches!(a, DestinationAction::RequestPages(_)));
    assert_eq!(requests.count(), 1);
}

#[test]
fn a_hole_is_zero_without_a_question() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    assert_eq!(pair.touch(MAIN, 300), Held::Zero);
    assert!(!pair.destination_log.iter().any(|a| matches!(a, DestinationAction::RequestPages(_))));
}

#[test]
fn a_dropped_page_is_zero_at_the_next_touch_though_it_is_pushed_later() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    pair.destination_does(DestinationInput::Removed { space: MAIN, pages: range(510, 2) });
    assert_eq!(pair.touch(MAIN, 511), Held::Zero);
    pair.push_flows = true;
    pair.settle();
    assert_eq!(pair.touch(MAIN, 510), Held::Zero);
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
}

#[test]
fn a_page_that_is_dropped_while_a_thread_waits_for_it_is_zero_at_once() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    pair.cut = true;
    pair.destination_does(DestinationInput::Fault { space: MAIN, addr: range(650, 1).start(), thread: 1 });
    pair.destination_does(DestinationInput::Removed { space: MAIN, pages: range(650, 1) });
    assert_eq!(pair.touch(MAIN, 650), Held::Zero);
}

#[test]
fn a_moved_page_arrives_at_its_new_place_and_the_old_one_is_zero() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    let (from, to) = (range(600, 10), range(5000, 10));
    pair.destination_does(DestinationInput::Remapped { space: MAIN, from, to: to.start() });
    pair.destination_does(DestinationInput::Unmapped { space: MAIN, pages: from });
    assert_eq!(pair.touch(MAIN, 5003), source_page(603));
    assert_eq!(pair.touch(MAIN, 603), Held::Zero);
    pair.push_flows = true;
    pair.settle();
    assert_eq!(pair.held.get(&(MAIN, range(5009, 1).start())), Some(&source_page(609)));
}

#[test]
fn an_unmap_that_belongs_to_an_mremap_spares_what_moved_there_meanwhile() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    let (first, second) = (range(600, 10), range(620, 10));
    pair.destination_does(DestinationInput::Remapped {
        space: MAIN,
        from: first,
        to: range(5000, 1).start(),
    });
    pair.destination_does(DestinationInput::Remapped { space: MAIN, from: second, to: first.start() });
    pair.destination_does(DestinationInput::Unmapped { space: MAIN, pages: first });
    assert_eq!(pair.touch(MAIN, 605), source_page(625));
}

#[test]
fn an_unmap_behind_an_mremap_that_unmaps_nothing_is_an_unmap() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    let (first, second) = (range(600, 10), range(620, 10));
    let moved = |from, to: PageRange| DestinationInput::Remapped { space: MAIN, from, to: to.start() };
    pair.destination_does(moved(first, range(5000, 10)));
    // What the kernel takes here, it would refuse if the old range were still to be unmapped.
    assert_eq!(pair.touch(MAIN, 650), source_page(650));
    pair.destination_does(moved(second, first));
    pair.destination_does(DestinationInput::Unmapped { space: MAIN, pages: first });
    assert_eq!(pair.touch(MAIN, 605), Held::Zero);
}

#[test]
fn a_child_gets_its_own_copy_of_every_missing_page() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    let child = SpaceId(1);
    pair.destination_does(DestinationInput::Forked { parent: MAIN, child });
    assert_eq!(pair.touch(child, 660), source_page(660));
    pair.push_flows = true;
    pair.settle();
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
    for page in (500..700).chain(100..120).chain(121..200) {
        assert_eq!(pair.touch(MAIN, page), source_page(page));
        assert_eq!(pair.held.get(&(child, range(page, 1).start())), Some(&source_page(page)));
    }
}

#[test]
fn an_install_that_was_put_off_is_asked_for_at_the_page_s_new_place() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    pair.refuse.push_back(InstallOutcome::Retry);
    pair.destination_does(DestinationInput::Fault { space: MAIN, addr: range(650, 1).start(), thread: 1 });
    pair.settle();
    let installs = pair.destination_log.iter().filter(|action| {
        matches!(action, DestinationAction::Install { pages, .. } if pages.contains(range(650, 1).start()))
    });
    assert_eq!(installs.count(), 2);
    assert_eq!(pair.touch(MAIN, 650), source_page(650));
}

#[test]
fn a_source_expects_requests_for_a_while_after_one() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    assert!(!pair.source.is_under_fire(), "nobody has asked");
    assert_eq!(pair.touch(MAIN, 650), source_page(650));
    assert!(pair.source.is_under_fire());
    pair.now = pair.now + Config::default().under_fire;
    pair.source_does(SourceInput::Tick);
    assert!(!pair.source.is_under_fire(), "it was long ago");
}

#[test]
fn in_the_middle_of_what_was_pushed_there_is_room_for_an_answer() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    let arrived = |channel, pages| DestinationInput::PagesArrived { channel, pages, content: Content::Data };
    let (now, destination) = (pair.now, &mut pair.destination);
    let mut next = |inputs: &[DestinationInput]| {
        inputs.iter().for_each(|input| destination.handle(now, input.clone()));
        match destination.poll_action() {
            Some(DestinationAction::Install { space, channel, pages, .. }) => {
                let outcome = InstallOutcome::Installed;
                destination.handle(now, DestinationInput::Installed { space, pages, outcome });
                Some((channel, pages))
            }
            other => {
                assert!(matches!(other, None | Some(DestinationAction::RequestPages(_))), "{other:?}");
                None
            }
        }
    };
    let touched = DestinationInput::Fault { space: MAIN, addr: range(650, 1).start(), thread: 1 };
    assert_eq!(next(&[touched]), None);
    let piece_pages = Config::default().install_pages_under_fire;
    assert!(piece_pages < 64, "a frame is more than one piece");
    let piece = |page| Some((Channel::Push, range(page, piece_pages)));
    assert_eq!(next(&[arrived(Channel::Push, range(500, 64))]), piece(500));
    let answer = Some((Channel::Fault, range(650, 16)));
    assert_eq!(next(&[arrived(Channel::Fault, range(650, 16))]), answer);
    for page in (500 + piece_pages..564).step_by(piece_pages.try_into().expect("a few pages")) {
        assert_eq!(next(&[]), piece(page));
    }
    assert_eq!(next(&[]), None);
}

#[test]
fn what_comes_by_the_push_is_asked_for_again_if_somebody_waits_or_it_had_no_place() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    let (now, destination) = (pair.now, &mut pair.destination);
    let mut requests = |input| {
        destination.handle(now, input);
        let mut asked = Vec::new();
        while let Some(action) = destination.poll_action() {
            match action {
                DestinationAction::RequestPages(pages) => asked.push(pages),
                DestinationAction::Install { space, pages, .. } => {
                    let outcome = InstallOutcome::RangeGone;
                    destination.handle(now, DestinationInput::Installed { space, pages, outcome });
                }
                other => panic!("{other:?}"),
            }
        }
        asked
    };
    let fault = |page, thread| DestinationInput::Fault { space: MAIN, addr: range(page, 1).start(), thread };
    assert_eq!(requests(fault(650, 1)), [range(650, 16)]);
    assert_eq!(requests(fault(655, 2)), []);
    assert_eq!(requests(fault(656, 3)), []);
    let (channel, content) = (Channel::Push, Content::Data);
    assert_eq!(requests(DestinationInput::PagesArrived { channel, pages: range(660, 1), content }), []);
    let again = requests(DestinationInput::Pushed(range(651, 15)));
    assert_eq!(again, [range(655, 1), range(656, 1), range(660, 1)]);
    assert_eq!(requests(DestinationInput::Pushed(range(651, 1))), []);
    assert_eq!(requests(fault(653, 4)), [range(653, 2)]);
}

#[test]
fn a_page_without_a_place_is_asked_for_once_more_and_then_given_up() {
    let mut pair = Pair::new(Image {
        data: vec![range(500, 1)],
        eager: vec![],
        lazy: vec![range(500, 1)],
        ..Image::default()
    });
    pair.refuse.extend([InstallOutcome::RangeGone; 2]);
    pair.migrate();
    let requests = pair.destination_log.iter().filter(|a| matches!(a, DestinationAction::RequestPages(_)));
    assert_eq!(requests.count(), 1);
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
}

#[test]
fn what_the_push_left_out_is_asked_for_at_the_end() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    pair.pushed.clear();
    pair.tick_after(Duration::from_secs(1));
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
    assert_eq!(pair.held.len(), 301);
}

#[test]
fn unreadable_pages_are_answered_by_poison() {
    let mut image = image();
    image.unreadable.insert(range(600, 1));
    let mut pair = Pair::new(image);
    pair.migrate_without_push();
    assert_eq!(pair.touch(MAIN, 600), Held::Poison);
    assert!(pair.destination.report().lost.pages >= 1);
}

#[test]
fn a_failure_before_run_leaves_the_process_at_the_source() {
    for steps in 0..40 {
        let mut pair = Pair::new(image());
        pair.source.handle(pair.now, SourceInput::Connected);
        let mut run_was_sent = false;
        for _ in 0..steps {
            let Some(action) = pair.source.poll_action() else { break };
            run_was_sent |= matches!(action, SourceAction::SendRun { .. });
            match action {
                SourceAction::SendReserve => {
                    pair.source.handle(pair.now, SourceInput::Reserved(Plan::default()));
                }
                SourceAction::Capture { .. } => {
                    let (eager, lazy) = (pair.image.eager.clone(), pair.image.lazy.clone());
                    pair.source.handle(
                        pair.now,
                        SourceInput::Captured { eager, lazy, kept: Vec::new(), content: 0 },
                    );
                    pair.source.handle(pair.now, SourceInput::Ready);
                }
                _ => {}
            }
        }
        pair.source.handle(pair.now, SourceInput::Broken(Failure::LinkLost(Channel::Control)));
        let last = std::iter::from_fn(|| pair.source.poll_action()).last();
        match last {
            Some(SourceAction::Release(_)) => assert!(!run_was_sent && pair.source.may_still_run_here()),
            None => assert!(run_was_sent && pair.source.phase() == "paused"),
            other => panic!("after {steps} steps the last action was {other:?}"),
        }
    }
}

#[test]
fn silence_before_run_ends_both_sides_and_the_process_goes_on_at_the_source() {
    let mut pair = Pair::new(image());
    pair.cut = true;
    pair.source_does(SourceInput::Connected);
    pair.destination_does(DestinationInput::ReserveRequested);
    pair.tick_after(Config::default().setup_deadline);
    assert!(matches!(pair.source_log.last(), Some(SourceAction::Release(Failure::Deadline(_)))));
    assert!(matches!(pair.destination_log.last(), Some(DestinationAction::Discard(Failure::Deadline(_)))));
}

#[test]
fn a_lost_source_poisons_what_is_missing_and_leaves_holes_zero() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    pair.touch(MAIN, 650);
    pair.destination_does(DestinationInput::Fault { space: MAIN, addr: Addr(0x77_0000_0000), thread: 1 });
    pair.destination_loses_its_source();
    assert_eq!(pair.held.get(&(MAIN, range(500, 1).start())), Some(&Held::Poison));
    assert_eq!(pair.held.get(&(MAIN, range(650, 1).start())), Some(&source_page(650)));
    assert_eq!(pair.held.get(&(MAIN, range(300, 1).start())), None);
    assert!(matches!(pair.destination_log.last(), Some(DestinationAction::Complete(Some(_)))));
    assert_eq!(pair.destination.report().lost.pages, 299 - 16);
}

#[test]
fn a_source_that_is_lost_before_the_first_page_map_poisons_the_whole_range() {
    let mut pair = Pair::new(image());
    pair.push_flows = false;
    pair.cut = false;
    pair.source.handle(pair.now, SourceInput::Connected);
    pair.destination_does(DestinationInput::ReserveRequested);
    pair.destination_does(DestinationInput::SwitchoverRequested {
        eager: vec![],
        lazy: pair.image.lazy.clone(),
        kept: vec![],
    });
    pair.destination_does(DestinationInput::Run { epoch: 1 });
    pair.destination_loses_its_source();
    let poison = DestinationAction::Poison { space: MAIN, at: range(100, 1000) };
    assert!(pair.destination_log.contains(&poison));
}

#[test]
fn a_terabyte_that_was_never_looked_at_is_poisoned_page_by_page_until_the_process_ends() {
    let mut pair = Pair::new(image());
    let lazy = vec![range(16, 1 << 28)];
    pair.destination_does(DestinationInput::ReserveRequested);
    pair.destination_does(DestinationInput::SwitchoverRequested { eager: vec![], lazy, kept: vec![] });
    pair.destination_does(DestinationInput::Run { epoch: 1 });
    pair.destination_loses_its_source();
    assert!(!pair.destination_log.iter().any(|action| matches!(action, DestinationAction::Poison { .. })));
    assert_eq!(pair.touch(MAIN, 1 << 20), Held::Poison);
    pair.destination_does(DestinationInput::SpaceGone(MAIN));
    assert!(matches!(pair.destination_log.last(), Some(DestinationAction::Complete(Some(_)))));
}

#[test]
fn a_source_that_claims_more_data_than_fits_anywhere_is_not_believed() {
    let pages = Config::default().data_pages + 1;
    let mut pair = Pair::new(image());
    pair.destination_does(DestinationInput::ReserveRequested);
    let lazy = vec![range(16, pages)];
    pair.destination_does(DestinationInput::SwitchoverRequested {
        eager: vec![],
        lazy: lazy.clone(),
        kept: Vec::new(),
    });
    pair.destination_does(DestinationInput::Run { epoch: 1 });
    pair.destination_does(DestinationInput::PageMap { scanned: range(16, pages), data: lazy });
    assert_eq!(pair.destination.phase(), "lost");
    let mut pair = Pair::new(image());
    pair.destination_does(DestinationInput::ReserveRequested);
    let eager = vec![range(16, pages)];
    pair.destination_does(DestinationInput::SwitchoverRequested { eager, lazy: vec![], kept: vec![] });
    assert_eq!(pair.destination.phase(), "aborted");
}

#[test]
fn lost_pages_come_by_the_frame_and_zeros_by_any_number() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    let arrived =
        |content| DestinationInput::PagesArrived { channel: Channel::Push, pages: range(500, 65), content };
    pair.destination_does(arrived(Content::Zero));
    assert_eq!(pair.touch(MAIN, 501), Held::Zero);
    pair.destination_does(arrived(Content::Lost));
    assert!(matches!(
        pair.destination_log.last(),
        Some(DestinationAction::Complete(Some(Failure::Protocol(_))))
    ));
}

#[test]
fn an_exit_before_the_last_page_drains_the_source() {
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    pair.destination_does(DestinationInput::SpaceGone(MAIN));
    pair.settle();
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
    assert_eq!(pair.source_log.last(), Some(&SourceAction::End(None)));
}

#[test]
fn a_long_page_map_travels_in_messages_of_bounded_length() {
    let runs = (0..10_000).map(|index| range(2 * index, 1)).collect();
    let mut pair = Pair::new(Image { lazy: vec![range(0, 20_000)], data: runs, ..Image::default() });
    pair.migrate();
    let lengths: Vec<_> = pair
        .source_log
        .iter()
        .filter_map(|action| match action {
            SourceAction::SendPageMap { data, .. } => Some(data.len()),
            _ => None,
        })
        .collect();
    assert_eq!(lengths, [3000, 3000, 3000, 1000]);
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
    assert_eq!(pair.held.len(), 10_000);
}

#[test]
fn a_terabyte_of_reservation_takes_a_few_scans() {
    let pages = 1 << 28;
    let mut pair =
        Pair::new(Image { lazy: vec![range(16, pages)], data: vec![range(16, 3)], ..Image::default() });
    pair.migrate();
    let scans = pair.source_log.iter().filter(|action| matches!(action, SourceAction::Scan(_))).count();
    assert!(scans < 12, "{scans} scans");
    assert_eq!(pair.destination_log.last(), Some(&DestinationAction::Complete(None)));
}

#[test]
fn nonsense_from_the_other_side_is_a_protocol_failure_on_both_sides() {
    let mut pair = Pair::new(image());
    pair.source_does(SourceInput::Connected);
    pair.source_does(SourceInput::Drained);
    assert!(matches!(pair.source_log.last(), Some(SourceAction::Release(Failure::Protocol(_)))));
    let mut pair = Pair::new(image());
    pair.destination_does(DestinationInput::ReserveRequested);
    pair.destination_does(DestinationInput::Run { epoch: 1 });
    assert!(matches!(pair.destination_log.last(), Some(DestinationAction::Discard(Failure::Protocol(_)))));
    let mut pair = Pair::new(image());
    pair.migrate_without_push();
    let stray = DestinationInput::PageMap { scanned: range(2000, 1), data: vec![] };
    pair.destination_does(stray);
    assert!(matches!(
        pair.destination_log.last(),
        Some(DestinationAction::Complete(Some(Failure::Protocol(_))))
    ));
}

#[test]
fn pages_of_many_processes_arrive_where_their_places_say() {
    let mut pair =
        Pair::new(Image { lazy: vec![range(0, 20)], data: vec![range(2, 16)], ..Image::default() });
    let (parent, child) = (SpaceId(1), SpaceId(2));
    let place = |space, at, source| Place { space, at, source: range(source, 1).start() };
    pair.places = vec![place(parent, range(500, 10), 0), place(child, range(500, 10), 10)];
    pair.migrate_without_push();
    let fault = |space, page| DestinationInput::Fault { space, addr: range(page, 1).start(), thread: 1 };
    pair.destination_does(fault(parent, 505));
    pair.destination_does(fault(child, 505));
    pair.push_flows = true;
    pair.settle();
    let held = |space, page: u64| pair.held.get(&(space, range(page, 1).start())).copied();
    for page in 502..510 {
        assert_eq!(held(parent, page), Some(Held::Source(range(page - 500, 1).start())));
    }
    for page in 500..508 {
        assert_eq!(held(child, page), Some(Held::Source(range(page - 490, 1).start())));
    }
    assert!(pair.held.keys().all(|(space, _)| *space != SpaceId::MAIN));
    assert_eq!(pair.destination.phase(), "completed");
}
