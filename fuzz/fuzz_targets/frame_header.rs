//! See `hostile::frame_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::frame_header(bytes));
