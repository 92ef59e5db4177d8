//! See `hostile::decode_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::decode_message(bytes));
