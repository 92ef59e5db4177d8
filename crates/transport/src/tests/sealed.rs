//! Sealed connections: the same behaviour, and every interference ends them.

use noise::Key;

use super::*;
use crate::handshake::{Greeting, answer_key, exchange_key, poll_key, poll_key_answer, prologue};

/// Deterministic, and different at each call, which is all that a test needs.
fn random(bytes: &mut [u8]) -> bool {
    use core::sync::atomic::{AtomicU8, Ordering};
    static NEXT: AtomicU8 = AtomicU8::new(1);
    bytes.fill_with(|| NEXT.fetch_add(37, Ordering::Relaxed));
    true
}

fn hello(channel: Channel) -> Hello {
    Hello { sealed: true, ..Hello::new(MigrationId([7; 16]), channel) }
}

/// Moves what one side has sent to the other, by way of `relay`.
fn carry(from: &mut Connection<Script>, to: &mut Connection<Script>, relay: &mut dyn FnMut(&mut Vec<u8>)) {
    let mut bytes = core::mem::take(&mut from.stream_mut().output);
    relay(&mut bytes);
    to.stream_mut().input.extend(bytes);
}

/// Both ends of a channel, greeted and keyed; `relay` sees what each side sends.
fn opened(
    keys: (&Key, &Key),
    challenge: u64,
    relay: &mut dyn FnMut(&mut Vec<u8>),
) -> Result<(Connection<Script>, Connection<Script>), ConnectionError> {
    let hello = hello(Channel::Push);
    let mut source = Connection::new(Script::default(), Expected::Answer);
    let mut there = Connection::new(Script::default(), Expected::Greeting);
    greet(&mut source, &hello)?;
    carry(&mut source, &mut there, relay);
    let heard = poll_hello(&mut there)?.ok_or(ConnectionError::Closed)?;
    let greeted = welcome(&mut there, &heard, challenge)?;
    carry(&mut there, &mut source, relay);
    let Some(Answer::Welcome(greeting)) = poll_answer(&mut source, &hello)? else {
        return Err(ConnectionError::Closed);
    };
    let mut initiator = Some(exchange_key(&mut source, (&hello, greeting), keys.0, random)?);
    carry(&mut source, &mut there, relay);
    let message = poll_key(&mut there)?.ok_or(ConnectionError::Closed)?;
    let said = prologue(&heard, greeted)?;
    assert_eq!(
        noise::is_genuine(keys.1, &said, &message),
        noise::respond(keys.1, &said, &message, random).is_ok()
    );
    answer_key(&mut there, heard.channel, keys.1, (&said, &message), random)?;
    carry(&mut there, &mut source, relay);
    match poll_key_answer(&mut source, hello.channel, &mut initiator)? {
        Some(Answer::Sealed) => Ok((source, there)),
        _ => Err(ConnectionError::Closed),
    }
}

fn pair() -> (Connection<Script>, Connection<Script>) {
    let key = Key::new(&[1; 32]);
    opened((&key, &key), 5, &mut |_| {}).expect("nothing disturbs them")
}

proptest! {
    #[test]
    fn sealed_frames_arrive_whole_and_in_order_wherever_the_link_is_cut(
        sizes in prop::collection::vec(1_u64..64, 1..6),
        reads in prop::collection::vec(0_usize..90_000, 0..64),
        writes in prop::collection::vec(0_usize..90_000, 0..64),
    ) {
        let (mut source, mut there) = pair();
        let before = (source.bytes_sent(), there.bytes_received());
        source.stream_mut().cuts = writes.iter().copied().collect();
        for (index, pages) in (1_u64..).zip(&sizes) {
            source.enqueue_counted(Kind::ZeroPages, range(index * 100, *pages)).expect("room");
            source.send_pages(range(index * 100, *pages), &page_content(*pages)).expect("room");
        }
        for _ in 0..=writes.len() {
            source.flush().expect("an open stream");
        }
        prop_assert!(!source.wants_write());
        carry(&mut source, &mut there, &mut |_| {});
        there.stream_mut().cuts = reads.iter().copied().collect();
        let frames = received(&mut there, reads.len() + 1).expect("a clean stream");
        prop_assert_eq!(frames.len(), 2 * sizes.len());
        for ((pair, pages), index) in frames.chunks(2).zip(&sizes).zip(1_u64..) {
            prop_assert_eq!(pair[0].0.counted_pages(&pair[0].1), Ok(range(index * 100, *pages)));
            prop_assert_eq!(&pair[1].1, &page_content(*pages));
        }
        prop_assert_eq!(there.bytes_received() - before.1, source.bytes_sent() - before.0);
    }
}

#[test]
fn a_page_is_not_to_be_seen_on_the_link() {
    let (mut source, _) = pair();
    let content = [0x5a; 4096];
    source.send_pages(range(1, 1), &content).expect("an open stream");
    source.flush().expect("an open stream");
    let sent = &source.stream().output;
    assert!(sent.len() > content.len());
    assert!(!sent.windows(16).any(|window| window == &content[..16]));
}

/// Sends a request and a page and has them relayed; what arrives.
fn relayed(relay: &mut dyn FnMut(&mut Vec<u8>)) -> Result<Vec<(Header, Vec<u8>)>, ConnectionError> {
    let key = Key::new(&[1; 32]);
    let (mut source, mut there) = opened((&key, &key), 5, relay)?;
    source.enqueue_counted(Kind::LostPages, range(3, 1)).expect("room");
    source.flush().expect("an open stream");
    source.enqueue_counted(Kind::ZeroPages, range(4, 2)).expect("room");
    source.flush().expect("an open stream");
    carry(&mut source, &mut there, relay);
    received(&mut there, 1)
}

#[test]
fn a_flipped_bit_ends_the_connection_or_means_nothing() {
    let mut lens = Vec::new();
    let clean = relayed(&mut |bytes| lens.push(bytes.len())).expect("nothing disturbs it");
    assert_eq!((clean.len(), lens.len()), (2, 5));
    let (in_clear, len): (usize, usize) = (lens[..4].iter().sum(), lens.iter().sum());
    for bit in 0..len * 8 {
        let mut passed = 0;
        let result = relayed(&mut |bytes| {
            if let Some(byte) = bytes.get_mut((bit / 8).wrapping_sub(passed)) {
                *byte ^= 1 << (bit % 8);
            }
            passed += bytes.len();
        });
        match result {
            // Header fields that the frames in clear do not use.
            Ok(frames) => assert!(bit / 8 < in_clear && frames == clean, "bit {bit} passed"),
            Err(error) if bit / 8 >= in_clear => assert_eq!(error, ConnectionError::Altered, "bit {bit}"),
            Err(_) => {}
        }
    }
}

/// The two records of a stream: head and body of each are one.
fn records(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    (first.to_vec(), second.to_vec())
}

#[test]
fn records_that_are_exchanged_repeated_or_left_out_end_the_connection() {
    type Change = fn(&[u8], &[u8]) -> Vec<u8>;
    let changes: [Change; 4] = [
        |first, second| [second, first].concat(),
        |first, _| [first, first].concat(),
        |_, second| second.to_vec(),
        |first, second| [first, second, second].concat(),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let (mut source, mut there) = pair();
        for page in [3, 4] {
            source.enqueue_counted(Kind::LostPages, range(page, 1)).expect("room");
            source.flush().expect("an open stream");
        }
        carry(&mut source, &mut there, &mut |bytes| {
            let (first, second) = records(bytes);
            *bytes = change(&first, &second);
        });
        assert_eq!(received(&mut there, 1), Err(ConnectionError::Altered), "change {at}");
    }
}

#[test]
fn a_truncated_record_hands_out_nothing_of_it() {
    let (mut source, _) = pair();
    source.enqueue_counted(Kind::LostPages, range(3, 1)).expect("room");
    source.flush().expect("an open stream");
    let len = source.stream().output.len();
    for kept in 0..len {
        let (mut source, mut there) = pair();
        source.enqueue_counted(Kind::LostPages, range(3, 1)).expect("room");
        source.flush().expect("an open stream");
        carry(&mut source, &mut there, &mut |bytes| bytes.truncate(kept));
        there.stream_mut().closed = true;
        let error = received(&mut there, 1).expect_err("it has ended");
        assert!(error.is_link_loss(), "{kept} of {len} bytes: {error}");
    }
}

#[test]
fn what_was_recorded_opens_no_other_session() {
    let key = Key::new(&[1; 32]);
    let mut recorded = Vec::new();
    opened((&key, &key), 5, &mut |bytes| recorded.push(bytes.clone())).expect("nothing disturbs it");
    let mut there = Connection::new(Script::with_input(&recorded[0]), Expected::Greeting);
    let heard = poll_hello(&mut there).expect("a greeting").expect("all of it");
    let greeted = welcome(&mut there, &heard, 6).expect("an open stream");
    there.stream_mut().input.extend(&recorded[2]);
    let message = poll_key(&mut there).expect("a message").expect("all of it");
    let said = prologue(&heard, greeted).expect("short");
    assert!(!noise::is_genuine(&key, &said, &message));
    let earlier = prologue(&heard, Greeting { challenge: 5, ..greeted }).expect("short");
    assert!(noise::is_genuine(&key, &earlier, &message));
}

#[test]
fn another_key_and_another_channel_are_refused() {
    let (key, other) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
    assert_eq!(opened((&key, &other), 5, &mut |_| {}).map(|_| ()), Err(ConnectionError::Key));
    let greeting = Greeting { version: 4, challenge: 5 };
    let mut source = Connection::new(Script::default(), Expected::Answer);
    exchange_key(&mut source, (&hello(Channel::Push), greeting), &key, random).expect("an open stream");
    let message = &source.stream().output[protocol::FRAME_HEADER_LEN..];
    for (channel, genuine) in [(Channel::Push, true), (Channel::Fault, false), (Channel::Control, false)] {
        let said = prologue(&hello(channel), greeting).expect("short");
        assert_eq!(noise::is_genuine(&key, &said, message), genuine, "{channel}");
    }
}

#[test]
fn a_refused_key_carries_the_words() {
    let key = Key::new(&[1; 32]);
    let greeting = Greeting { version: 4, challenge: 5 };
    let mut source = Connection::new(Script::default(), Expected::Answer);
    let mut initiator =
        Some(exchange_key(&mut source, (&hello(Channel::Push), greeting), &key, random).expect("open"));
    let mut there = Connection::new(Script::default(), Expected::Greeting);
    refuse(&mut there, String::from("another key")).expect("an open stream");
    carry(&mut there, &mut source, &mut |_| {});
    let answer = poll_key_answer(&mut source, Channel::Push, &mut initiator);
    assert_eq!(answer, Ok(Some(Answer::Refused(String::from("another key")))));
}
