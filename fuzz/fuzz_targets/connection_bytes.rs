//! See `hostile::connection_bytes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::connection_bytes(bytes));
