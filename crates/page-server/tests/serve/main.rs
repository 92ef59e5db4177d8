//! The serve loop over loopback TCP, with a process and a destination that are made up.

mod fakes;

use std::sync::{Arc, PoisonError};

use engine::Failure;
use fakes::{FakeProcess, Pages, content_of, note_pages, range, start, start_welcomed};
use memory::PageSet;
use page_server::Outcome;
use protocol::{Channel, Kind, Reason, Reserved};
use transport::{refuse, welcome};

fn set(ranges: &[(u64, u64)]) -> PageSet {
    let mut pages = PageSet::new();
    for &(first, count) in ranges {
        pages.insert(range(first, count));
    }
    pages
}

/// 200 pages, of which 10 are eager.
fn small_process() -> FakeProcess {
    FakeProcess {
        pages: set(&[(100, 10), (200, 190)]),
        eager: vec![range(100, 10)],
        lazy: vec![range(200, 1000)],
        ..FakeProcess::default()
    }
}

fn calls(calls: &Arc<std::sync::Mutex<Vec<&'static str>>>) -> Vec<&'static str> {
    calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[test]
fn a_whole_process_arrives_with_every_byte() {
    let process = small_process();
    let log = Arc::clone(&process.calls);
    let (source, mut destination) = start_welcomed(process);
    let mut pages = destination.accept(10);
    assert_eq!(pages.keys().copied().collect::<Vec<_>>(), (100..110).collect::<Vec<_>>());
    destination.channel(Channel::Control).send_signal(Kind::Running, 4711).expect("an open link");
    destination.collect(&mut pages, 200);
    let report = destination.drain();
    assert_eq!(source.join().expect("no panic"), Outcome::Moved { pid_there: 4711 });
    for page in (100..110).chain(200..390) {
        assert_eq!(pages.get(&page), Some(&Some(content_of(page))), "page {page}");
    }
    assert!(report.bytes_sent > 200 * 4096, "{report:?}");
    assert_eq!(calls(&log), ["accept", "park", "capture", "commit", "confirmed"]);
}

#[test]
fn zero_and_unreadable_pages_are_named_and_not_carried() {
    let mut process = small_process();
    process.zero = set(&[(102, 3), (210, 70), (389, 1)]);
    process.unreadable = set(&[(105, 1), (300, 5)]);
    let (source, mut destination) = start_welcomed(process);
    let mut pages = destination.accept(10);
    destination.send(Kind::Running);
    destination.collect(&mut pages, 200);
    destination.drain();
    assert!(matches!(source.join().expect("no panic"), Outcome::Moved { .. }));
    let zero = |page: &u64| (102..105).contains(page) || (210..280).contains(page) || *page == 389;
    let lost = |page: &u64| *page == 105 || (300..305).contains(page);
    for page in (100..110).chain(200..390) {
        let expected = match page {
            page if zero(&page) => Some(Vec::new()),
            page if lost(&page) => None,
            page => Some(content_of(page)),
        };
        assert_eq!(pages.get(&page), Some(&expected), "page {page}");
    }
}

#[test]
fn a_request_is_answered_while_the_push_channel_is_full() {
    const PAGES: u64 = 16 << 10;
    let process = FakeProcess {
        pages: set(&[(1000, PAGES)]),
        lazy: vec![range(1000, PAGES)],
        ..FakeProcess::default()
    };
    let (source, mut destination) = start_welcomed(process);
    let mut pages = destination.accept(0);
    destination.send(Kind::Running);
    // The push channel is not read, so the source cannot be done with pushing when it answers.
    for page in [1000 + PAGES - 1, 9000, 5000] {
        destination.channel(Channel::Fault).send_page_request(range(page, 1)).expect("an open link");
        let answer = destination.next(&[Channel::Fault]);
        let mut answered = Pages::new();
        note_pages(&answer, &mut answered);
        assert_eq!(answered.get(&page), Some(&Some(content_of(page))));
        pages.append(&mut answered);
    }
    destination.collect(&mut pages, PAGES);
    assert!(pages.iter().all(|(page, content)| *content == Some(content_of(*page))));
    destination.drain();
    assert!(matches!(source.join().expect("no panic"), Outcome::Moved { .. }));
}

#[test]
fn requests_of_a_destination_that_does_not_read_its_answers_wait_and_do_not_pile_up() {
    const PAGES: u64 = 8 << 10;
    /// Answers of 150 MiB: many times what a connection keeps.
    const REQUESTS: u64 = 600;
    let process = FakeProcess {
        pages: set(&[(1000, PAGES)]),
        lazy: vec![range(1000, PAGES)],
        ..FakeProcess::default()
    };
    let (source, mut destination) = start_welcomed(process);
    destination.accept(0);
    destination.send(Kind::Running);
    for _ in 0..REQUESTS {
        destination.channel(Channel::Fault).send_page_request(range(1000, 64)).expect("an open link");
    }
    // Each push frame is a turn of the loop, in which it could have taken more requests.
    while destination.next(&[Channel::Control, Channel::Push]).header.kind != Kind::PushDone {}
    for _ in 0..REQUESTS {
        let mut answered = Pages::new();
        note_pages(&destination.next(&[Channel::Fault]), &mut answered);
        assert!(answered.iter().all(|(page, content)| *content == Some(content_of(*page))));
        assert_eq!(answered.len(), 64);
    }
    destination.send(Kind::Drained);
    assert!(matches!(source.join().expect("no panic"), Outcome::Moved { .. }));
}

#[test]
fn each_channel_cut_before_run_releases_the_process() {
    for channel in Channel::ALL {
        let process = small_process();
        let log = Arc::clone(&process.calls);
        let (source, mut destination) = start_welcomed(process);
        destination.reserve();
        destination.control(Kind::Switchover);
        destination.cut(channel);
        let outcome = source.join().expect("no panic");
        assert_eq!(outcome, Outcome::Released(Failure::LinkLost(channel)));
        assert_eq!(calls(&log), ["accept", "park", "capture", "release"]);
    }
}

#[test]
fn a_process_that_is_given_back_after_run_was_never_confirmed() {
    let process = small_process();
    let log = Arc::clone(&process.calls);
    let (source, mut destination) = start_welcomed(process);
    destination.accept(10);
    let reason = protocol::Reason { text: "no".into() };
    destination.channel(Channel::Control).send_message(Kind::Abort, &reason).expect("an open link");
    assert!(matches!(source.join().expect("no panic"), Outcome::Released(_)));
    assert_eq!(calls(&log), ["accept", "park", "capture", "commit", "release"]);
}

#[test]
fn each_channel_cut_after_run_has_the_process_stay_stopped_and_connect_again() {
    for channel in Channel::ALL {
        let process = small_process();
        let log = Arc::clone(&process.calls);
        let (source, mut destination) = start_welcomed(process);
        destination.accept(10);
        destination.send(Kind::Running);
        while destination.next(&[Channel::Control]).header.kind != Kind::SourceReport {}
        destination.cut(channel);
        let outcome = source.join().expect("no panic");
        assert_eq!(outcome, Outcome::Lost(Failure::Peer(String::from("the destination is gone"))));
        assert_eq!(calls(&log), ["accept", "park", "capture", "commit", "confirmed", "reconnect"]);
    }
}

#[test]
fn the_reason_of_an_abort_is_heard_although_all_channels_end_with_it() {
    let (source, mut destination) = start_welcomed(small_process());
    destination.control(Kind::Reserve);
    let reason = Reason { text: String::from("no room\x1b[31m") };
    destination.channel(Channel::Control).send_message(Kind::Abort, &reason).expect("an open link");
    drop(destination);
    let outcome = source.join().expect("no panic");
    assert_eq!(outcome, Outcome::Released(Failure::Peer(String::from("no room [31m"))));
}

#[test]
fn a_process_that_cannot_be_parked_is_released_and_the_destination_is_told() {
    let mut process = small_process();
    let failure = Failure::Local(String::from("thread 7 does not park"));
    process.park_failure = Some(failure.clone());
    let log = Arc::clone(&process.calls);
    let (source, mut destination) = start_welcomed(process);
    destination.reserve();
    let cancel = destination.control(Kind::Cancel);
    let reason: Reason = protocol::decode(&cancel.body).expect("a reason");
    assert!(reason.text.contains("thread 7"), "{}", reason.text);
    assert_eq!(source.join().expect("no panic"), Outcome::Released(failure));
    assert_eq!(calls(&log), ["accept", "park", "release"]);
}

#[test]
fn a_process_that_cannot_go_after_all_is_released_when_the_destination_is_ready() {
    let mut process = small_process();
    let failure = Failure::Local(String::from("the relay is gone"));
    process.obstacle = Some(failure.clone());
    let log = Arc::clone(&process.calls);
    let (source, mut destination) = start_welcomed(process);
    destination.reserve();
    destination.control(Kind::Switchover);
    let mut pages = Pages::new();
    while pages.len() < 10 {
        note_pages(&destination.next(&[Channel::Push]), &mut pages);
    }
    destination.send(Kind::Ready);
    destination.control(Kind::Cancel);
    assert_eq!(source.join().expect("no panic"), Outcome::Released(failure));
    assert_eq!(calls(&log), ["accept", "park", "capture", "release"]);
}

#[test]
fn a_refusal_of_any_channel_is_the_outcome() {
    let (source, mut destination) = start(small_process());
    let hello = destination.hello(Channel::Control);
    welcome(destination.channel(Channel::Control), &hello, 0).expect("an open link");
    destination.hello(Channel::Fault);
    refuse(destination.channel(Channel::Fault), String::from("busy")).expect("an open link");
    let outcome = source.join().expect("no panic");
    assert_eq!(outcome, Outcome::Released(Failure::Peer(String::from("busy"))));
}

#[test]
fn nonsense_before_run_releases_the_process() {
    type Nonsense = fn(&mut fakes::FakeDestination);
    let nonsense: [Nonsense; 3] = [
        |destination| {
            let verdicts = Reserved {
                files: Vec::new(),
                all_pages_first: false,
                same_kernel: false,
                other_vdso: false,
                connections: protocol::Connections::Reset,
                travel: protocol::Travel::default(),
            };
            destination.channel(Channel::Control).send_message(Kind::Reserved, &verdicts).expect("open");
        },
        |destination| destination.channel(Channel::Fault).send_signal(Kind::Ready, 0).expect("open"),
        |destination| destination.send(Kind::Drained),
    ];
    for send in nonsense {
        let (source, mut destination) = start_welcomed(small_process());
        destination.control(Kind::Reserve);
        send(&mut destination);
        let outcome = source.join().expect("no panic");
        assert!(matches!(outcome, Outcome::Released(Failure::Protocol(_))), "{outcome:?}");
    }
}
