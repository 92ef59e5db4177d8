//! Behaviour of connections over a scripted stream that cuts reads and writes wherever it is told to.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use memory::{Addr, PAGE_SIZE, PageRange};
use proptest::prelude::*;
use protocol::{Channel, DecodeError, FrameError, Header, Hello, Kind, MigrationId, Reason};

use crate::*;

mod sealed;

const FROM_SOURCE: Expected = Expected::FromSource(Channel::Control);
const BULK: Expected = Expected::FromSource(Channel::Push);

/// Gives out `input` and takes into `output`, at most as many bytes a call as the next cut says; a cut of 0 is one
/// `WouldBlock`. Without cuts left it does not limit.
#[derive(Debug, Default)]
struct Script {
    input: VecDeque<u8>,
    output: Vec<u8>,
    cuts: VecDeque<usize>,
    closed: bool,
}

impl Script {
    fn with_input(input: &[u8]) -> Self {
        Self { input: input.iter().copied().collect(), ..Self::default() }
    }

    fn cut(&mut self, wanted: usize) -> Option<usize> {
        match self.cuts.pop_front() {
            Some(0) => None,
            Some(most) => Some(wanted.min(most)),
            None => Some(wanted),
        }
    }
}

impl Stream for Script {
    fn read(&mut self, buffer: &mut [u8]) -> IoOutcome {
        assert!(!buffer.is_empty(), "a read of nothing cannot make progress");
        let Some(count) = self.cut(buffer.len().min(self.input.len())) else { return IoOutcome::WouldBlock };
        for (to, from) in buffer.iter_mut().zip(self.input.drain(..count)) {
            *to = from;
        }
        match count {
            0 if self.closed => IoOutcome::Closed,
            0 => IoOutcome::WouldBlock,
            _ => IoOutcome::Done(count),
        }
    }

    fn write(&mut self, head: &[u8], body: &[u8]) -> IoOutcome {
        if self.closed {
            return IoOutcome::Closed;
        }
        let Some(count) = self.cut(head.len() + body.len()) else { return IoOutcome::WouldBlock };
        self.output.extend(head.iter().chain(body).take(count));
        IoOutcome::Done(count)
    }
}

fn range(page: u64, pages: u64) -> PageRange {
    PageRange::from_pages(Addr(page * PAGE_SIZE), pages).expect("a small range")
}

fn frame(header: Header, body: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// Receives until the connection has nothing more, as (header, body).
fn received(
    connection: &mut Connection<Script>,
    turns: usize,
) -> Result<Vec<(Header, Vec<u8>)>, ConnectionError> {
    let mut frames = Vec::new();
    for _ in 0..turns {
        while let Some(frame) = connection.receive()? {
            frames.push((frame.header, frame.body.to_vec()));
        }
    }
    Ok(frames)
}

fn page_content(pages: u64) -> Vec<u8> {
    (0..pages * PAGE_SIZE).map(|at| u8::try_from(at % 251).expect("below 251")).collect()
}

proptest! {
    #[test]
    fn frames_arrive_whole_and_in_order_wherever_reads_are_cut(
        sizes in prop::collection::vec(1_u64..5, 1..8),
        cuts in prop::collection::vec(0_usize..9000, 0..64),
    ) {
        let mut sender = Connection::new(Script::default(), Expected::Answer);
        for (index, pages) in (1_u64..).zip(&sizes) {
            sender.enqueue_counted(Kind::ZeroPages, range(index * 100, *pages)).expect("room");
            sender.send_pages(range(index * 100, *pages), &page_content(*pages)).expect("room");
        }
        sender.flush().expect("an open stream");
        let mut receiver = Connection::new(Script::with_input(&sender.stream().output), BULK);
        receiver.stream_mut().cuts = cuts.iter().copied().collect();
        let frames = received(&mut receiver, cuts.len() + 1).expect("a clean stream");
        prop_assert_eq!(frames.len(), 2 * sizes.len());
        for ((pair, pages), index) in frames.chunks(2).zip(&sizes).zip(1_u64..) {
            prop_assert_eq!(pair[0].0.counted_pages(&pair[0].1), Ok(range(index * 100, *pages)));
            prop_assert_eq!(pair[1].0.pages(), Ok(range(index * 100, *pages)));
            prop_assert_eq!(&pair[1].1, &page_content(*pages));
        }
        prop_assert_eq!(receiver.bytes_received(), sender.bytes_sent());
    }

    #[test]
    fn what_the_socket_refuses_leaves_later_in_order(
        sizes in prop::collection::vec(1_u64..5, 1..8),
        cuts in prop::collection::vec(0_usize..9000, 0..64),
    ) {
        let mut whole = Connection::new(Script::default(), Expected::Answer);
        let mut cut = Connection::new(Script::default(), Expected::Answer);
        cut.stream_mut().cuts = cuts.iter().copied().collect();
        for (pages, index) in sizes.iter().zip(1_u64..) {
            for connection in [&mut whole, &mut cut] {
                connection.enqueue_counted(Kind::LostPages, range(index, 1)).expect("room");
                connection.send_pages(range(index * 100, *pages), &page_content(*pages)).expect("room");
            }
        }
        whole.flush().expect("an open stream");
        for _ in 0..=cuts.len() {
            cut.flush().expect("an open stream");
        }
        prop_assert!(!cut.wants_write());
        prop_assert_eq!(cut.bytes_sent(), whole.bytes_sent());
        prop_assert!(cut.into_stream().output == whole.into_stream().output);
    }
}

#[test]
fn a_frame_can_be_cut_at_every_single_byte() {
    let hello = Hello::new(MigrationId([7; 16]), Channel::Fault);
    let mut source = Connection::new(Script::default(), Expected::Answer);
    greet(&mut source, &hello).expect("an open stream");
    let bytes = source.stream().output.clone();
    for at in 1..bytes.len() {
        let mut destination = Connection::new(Script::with_input(&bytes[..at]), Expected::Greeting);
        assert_eq!(poll_hello(&mut destination), Ok(None), "cut at byte {at}");
        assert!(destination.is_drained());
        destination.stream_mut().input.extend(&bytes[at..]);
        assert_eq!(poll_hello(&mut destination), Ok(Some(hello.clone())), "cut at byte {at}");
    }
}

#[test]
fn a_hostile_length_allocates_only_as_bytes_arrive() {
    let header = Header::plain(Kind::Reserve, Kind::Reserve.body_limit());
    let mut connection = Connection::new(Script::with_input(&header.to_bytes()), FROM_SOURCE);
    assert!(matches!(connection.receive(), Ok(None)));
    assert!(connection.inbox_capacity() <= 16 << 10, "{} bytes", connection.inbox_capacity());
    connection.stream_mut().input.extend(core::iter::repeat_n(0, 100_000));
    assert!(matches!(connection.receive(), Ok(None)));
    assert!(connection.inbox_capacity() <= 400_000, "{} bytes", connection.inbox_capacity());
}

#[test]
fn a_large_buffer_is_given_back_behind_its_frame() {
    let header = Header::plain(Kind::Reserve, 6 << 20);
    let mut bytes = frame(header, &alloc::vec![1; 6 << 20]);
    bytes.extend(Header::plain(Kind::PushDone, 0).to_bytes());
    let mut connection = Connection::new(Script::with_input(&bytes), FROM_SOURCE);
    let frames = received(&mut connection, 1).expect("a clean stream");
    assert_eq!(
        frames.iter().map(|(header, body)| (header.kind, body.len())).collect::<Vec<_>>(),
        [(Kind::Reserve, 6 << 20), (Kind::PushDone, 0)]
    );
    assert!(connection.inbox_capacity() <= 512 << 10, "{} bytes", connection.inbox_capacity());
}

#[test]
fn a_length_beyond_the_limit_ends_the_connection() {
    let limit = Kind::Pages.body_limit();
    let bytes = Header { body_len: limit + 1, ..Header::plain(Kind::Pages, 0) }.to_bytes();
    let mut connection = Connection::new(Script::with_input(&bytes), BULK);
    let expected = FrameError::TooLong { kind: Kind::Pages, len: limit + 1, limit };
    assert_eq!(connection.receive().map(|_| ()), Err(ConnectionError::Frame(expected)));
}

#[test]
fn a_kind_that_has_no_place_here_is_refused_before_its_body() {
    let bytes = Header::plain(Kind::Reserve, 100).to_bytes();
    for expected in [BULK, Expected::Greeting, Expected::Answer, Expected::FromDestination(Channel::Control)]
    {
        let mut connection = Connection::new(Script::with_input(&bytes), expected);
        let result = connection.receive().map(|_| ());
        assert_eq!(result, Err(ConnectionError::Unexpected(Kind::Reserve)));
    }
}

#[test]
fn every_kind_has_a_place_and_the_push_channel_takes_nothing_from_the_destination() {
    use Expected::{Answer, Greeting, Key, KeyAnswer, Relayed};
    let mut places = alloc::vec![Greeting, Answer, Key, KeyAnswer, Relayed];
    for channel in Channel::ALL {
        places.extend([Expected::FromSource(channel), Expected::FromDestination(channel)]);
    }
    for kind in Kind::ALL {
        assert!(places.iter().any(|place| place.allows(*kind)), "{kind:?} has no place");
        assert!(!Expected::FromDestination(Channel::Push).allows(*kind), "{kind:?}");
    }
}

#[test]
fn the_end_within_a_frame_is_told_from_the_end_between_frames() {
    let bytes = frame(Header::plain(Kind::PushDone, 0), &[]);
    for (kept, error) in [(16, ConnectionError::Closed), (9, ConnectionError::ClosedInFrame)] {
        let mut connection = Connection::new(Script::with_input(&bytes[..kept]), FROM_SOURCE);
        connection.stream_mut().closed = true;
        assert_eq!(received(&mut connection, 1), Err(error.clone()));
        assert!(error.is_link_loss());
    }
}

#[test]
fn the_frame_in_hand_stays_while_others_are_sent() {
    let request = Header { count: 1, argument: 0x5000, ..Header::plain(Kind::PageRequest, 0) };
    let expected = Expected::FromDestination(Channel::Fault);
    let mut connection = Connection::new(Script::with_input(&request.to_bytes()), expected);
    assert!(matches!(connection.receive(), Ok(Some(_))));
    connection.send_pages(range(5, 1), &page_content(1)).expect("an open stream");
    assert_eq!(connection.frame().map(|frame| frame.header), Some(request));
    assert!(matches!(connection.receive(), Ok(None)));
    assert!(connection.frame().is_none());
}

#[test]
fn a_reader_that_never_reads_fills_a_bounded_queue() {
    let mut connection = Connection::new(Script::default(), Expected::Answer);
    connection.stream_mut().cuts = core::iter::repeat_n(0, 100).collect();
    let content = page_content(64);
    let result = (0..1000).try_for_each(|_| connection.send_pages(range(1, 64), &content));
    assert!(matches!(result, Err(ConnectionError::QueueFull { queued }) if queued <= SEND_QUEUE_BYTES));
}

#[test]
fn frames_that_their_kind_does_not_allow_are_not_sent() {
    let mut connection = Connection::new(Script::default(), Expected::Answer);
    assert!(connection.send_pages(range(1, 65), &page_content(65)).is_err());
    assert!(connection.send_pages(range(1, 2), &page_content(1)).is_err());
    assert!(connection.send_packed_pages(range(1, 1), &page_content(1)).is_err());
    assert!(connection.send_page_request(range(1, 0)).is_err());
    assert!(connection.send(Header::plain(Kind::Run, 0), b"body").is_err());
    let reason = Reason { text: "x".repeat(5000) };
    assert!(connection.send_message(Kind::Abort, &reason).is_err());
    assert!(connection.stream().output.is_empty() && !connection.wants_write());
}

/// Lets source and destination talk until `answer` is there.
fn shake_hands(
    hello: &Hello,
    answer: impl FnOnce(&mut Connection<Script>, &Hello) -> Result<(), ConnectionError>,
) -> (Result<Option<Answer>, ConnectionError>, Expected, Result<(), ConnectionError>) {
    let mut source = Connection::new(Script::default(), Expected::Answer);
    greet(&mut source, hello).expect("an open stream");
    let mut destination = Connection::new(Script::with_input(&source.stream().output), Expected::Greeting);
    let heard = poll_hello(&mut destination).expect("a greeting").expect("all of it");
    let answered = answer(&mut destination, &heard);
    source.stream_mut().input.extend(destination.stream().output.iter());
    let answer = poll_answer(&mut source, hello);
    (answer, source.expected(), answered)
}

#[test]
fn a_welcome_opens_the_channel_that_was_named() {
    let hello = Hello::new(MigrationId([1; 16]), Channel::Push);
    let (answer, expected, answered) =
        shake_hands(&hello, |connection, hello| welcome(connection, hello, 0).map(|_| ()));
    assert_eq!(
        answer,
        Ok(Some(Answer::Welcome(Greeting { version: protocol::PROTOCOL_VERSION, challenge: 0 })))
    );
    assert_eq!(expected, Expected::FromDestination(Channel::Push));
    assert_eq!(answered, Ok(()));
}

#[test]
fn a_refusal_carries_its_words() {
    let hello = Hello::new(MigrationId([1; 16]), Channel::Control);
    let (answer, _, _) = shake_hands(&hello, |connection, _| refuse(connection, String::from("full")));
    assert_eq!(answer, Ok(Some(Answer::Refused(String::from("full")))));
}

#[test]
fn no_common_version_is_refused_with_both_ranges() {
    let hello = Hello { oldest: 7, newest: 9, ..Hello::new(MigrationId([1; 16]), Channel::Control) };
    let (answer, _, answered) =
        shake_hands(&hello, |connection, hello| welcome(connection, hello, 0).map(|_| ()));
    let Ok(Some(Answer::Refused(text))) = answer else { panic!("not refused: {answer:?}") };
    assert!(text.contains("7 to 9"), "{text}");
    assert_eq!(
        answered,
        Err(ConnectionError::Version { oldest: 7, newest: 9, ours: protocol::PROTOCOL_VERSION })
    );
}

#[test]
fn strangers_are_named_as_such() {
    let mut http = Connection::new(Script::with_input(b"GET / HTTP/1.1\r\n\r\n"), Expected::Greeting);
    assert!(matches!(poll_hello(&mut http), Err(ConnectionError::Frame(_))));

    let hello = Hello { magic: *b"STRANGER", ..Hello::new(MigrationId([1; 16]), Channel::Control) };
    let mut source = Connection::new(Script::default(), Expected::Answer);
    greet(&mut source, &hello).expect("an open stream");
    let mut destination = Connection::new(Script::with_input(&source.stream().output), Expected::Greeting);
    assert_eq!(poll_hello(&mut destination), Err(ConnectionError::Stranger));

    let bytes = frame(Header::plain(Kind::Hello, 3), b"abc");
    let mut noise = Connection::new(Script::with_input(&bytes), Expected::Greeting);
    let error = poll_hello(&mut noise).expect_err("three bytes are no greeting");
    assert!(matches!(
        error,
        ConnectionError::Body { kind: Kind::Hello, source: DecodeError::Malformed { .. } }
    ));
}

#[test]
fn the_handshake_reads_no_byte_beyond_the_greeting() {
    let hello = Hello::new(MigrationId([1; 16]), Channel::Control);
    let mut source = Connection::new(Script::default(), Expected::Answer);
    greet(&mut source, &hello).expect("an open stream");
    let mut bytes = source.stream().output.clone();
    bytes.extend_from_slice(b"the next frame");
    let mut destination = Connection::new(Script::with_input(&bytes), Expected::Greeting);
    assert_eq!(poll_hello(&mut destination), Ok(Some(hello)));
    assert_eq!(destination.into_stream().input, b"the next frame");
}
