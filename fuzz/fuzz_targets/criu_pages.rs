//! See `hostile::criu_pages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::criu_pages(bytes));
