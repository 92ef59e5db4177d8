//! See `hostile::plan_manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::plan_manifest(bytes));
