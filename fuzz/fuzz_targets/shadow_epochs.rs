//! See `hostile::shadow_epochs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::shadow_epochs(bytes));
