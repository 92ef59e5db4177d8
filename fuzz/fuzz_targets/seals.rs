//! See `hostile::seals`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::seals(bytes));
