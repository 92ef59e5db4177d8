//! See `hostile::criu_answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::criu_answers(bytes));
