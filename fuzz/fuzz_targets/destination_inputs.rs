//! See `hostile::destination_inputs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::destination_inputs(bytes));
