//! Sixteen bytes and a body: a header that can be trusted, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memory::USER_END;
use protocol::{FRAME_HEADER_LEN, Header, MAX_PAGES_PER_FRAME};

fuzz_target!(|bytes: &[u8]| {
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
});
