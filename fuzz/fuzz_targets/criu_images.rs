//! See `hostile::criu_images`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::criu_images(bytes));
