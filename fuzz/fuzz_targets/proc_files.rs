//! See `hostile::proc_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::proc_files(bytes));
