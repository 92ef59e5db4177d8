//! See `hostile::decode_manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::decode_manifest(bytes));
