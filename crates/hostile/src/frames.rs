//! Frames and the bodies of messages: trusted, or an error; and what was decoded survives another round.

use memory::USER_END;
use protocol::{
    ContentRecord, FRAME_HEADER_LEN, Header, Hello, MAX_PAGES_PER_FRAME, MAX_PAGES_PER_LIST, Manifest,
    PageMap, Reason, Reserved, SourceReport, Welcome, socket_options,
};

/// Sixteen bytes and a body: a header that can be trusted, or an error.
pub fn frame_header(bytes: &[u8]) {
    let Some((head, body)) = bytes.split_first_chunk::<FRAME_HEADER_LEN>() else { return };
    let Ok(header) = Header::from_bytes(*head) else { return };
    assert_eq!(header.to_bytes(), *head);
    assert!(header.body_len <= header.kind.body_limit());
    if let Ok(pages) = header.pages() {
        assert!(pages.end().0 <= USER_END && (1..=MAX_PAGES_PER_FRAME).contains(&pages.pages()));
    }
    if let Ok(pages) = header.counted_pages(body) {
        assert!(pages.end().0 <= USER_END && !pages.is_empty());
    }
    if let Ok(runs) = header.listed_pages(body) {
        assert!(runs.iter().all(|run| run.end().0 <= USER_END && !run.is_empty()));
        assert!(runs.is_sorted_by(|one, next| one.end() < next.start()), "runs that touch are one");
        assert!(
            runs.iter().map(|run| run.pages()).sum::<u64>() <= MAX_PAGES_PER_LIST.max(8 * body.len() as u64)
        );
    }
}

macro_rules! round {
    ($body:expr, $type:ty) => {
        if let Ok(value) = protocol::decode::<$type>($body) {
            let bytes = protocol::encode(&value).expect("what was decoded is within the limit");
            assert_eq!(protocol::decode::<$type>(&bytes), Ok(value));
        }
    };
}

/// The first byte chooses the message, the others are its body.
pub fn decode_message(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    match choice % 10 {
        0 => round!(body, Hello),
        1 => round!(body, Welcome),
        2 => reason(body),
        3 => reserved(body),
        4 => round!(body, PageMap),
        5 => round!(body, SourceReport),
        6 => assert!(socket_options(body).all(|(_, _, value)| value.len() < 256)),
        7 => connection_record(body),
        8 => diagnosis(body),
        _ => round!(body, ContentRecord),
    }
}

/// Any bytes are a manifest or an error.
pub fn decode_manifest(bytes: &[u8]) {
    round!(bytes, Manifest);
}

fn reason(body: &[u8]) {
    round!(body, Reason);
    if let Ok(reason) = protocol::decode::<Reason>(body) {
        assert!(!reason.printable().chars().any(char::is_control), "it could write to a terminal");
    }
}

/// What the destination found out about files, at a source that has none of them or one.
fn reserved(body: &[u8]) {
    round!(body, Reserved);
    if let Ok(reserved) = protocol::decode::<Reserved>(body) {
        let _either = capture::accept(&protocol::sample::manifest(), &reserved.files);
    }
}

fn connection_record(body: &[u8]) {
    if let Some(connection) = protocol::Connection::parse(body) {
        let parts = connection.received.len() + connection.sent.len() + connection.unsent.len();
        assert!(parts <= body.len(), "it has bytes that nobody sent");
    }
}

fn diagnosis(body: &[u8]) {
    use sys::descriptor::pair;
    for wanted in 0..10 {
        let found = [pair::attribute(body, wanted), pair::datagram_attribute(body, wanted)];
        assert!(found.into_iter().flatten().all(|value| value.len() <= body.len()));
    }
    assert_ne!(pair::peer_inode(body), Some(0));
}
