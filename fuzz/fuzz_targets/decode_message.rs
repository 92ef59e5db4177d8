//! The first byte chooses the message, the others are its body. What decodes must survive another round.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{ContentRecord, Hello, PageMap, Reason, Reserved, SourceReport, Welcome};

macro_rules! round {
    ($body:expr, $type:ty) => {
        if let Ok(value) = protocol::decode::<$type>($body) {
            let bytes = protocol::encode(&value).expect("what was decoded is within the limit");
            assert_eq!(protocol::decode::<$type>(&bytes), Ok(value));
        }
    };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else { return };
    match choice % 7 {
        0 => round!(body, Hello),
        1 => round!(body, Welcome),
        2 => round!(body, Reason),
        3 => round!(body, Reserved),
        4 => round!(body, PageMap),
        5 => round!(body, SourceReport),
        _ => round!(body, ContentRecord),
    }
});
