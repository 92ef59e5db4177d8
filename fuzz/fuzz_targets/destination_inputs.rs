//! Any sequence of inputs, at the right and the wrong moment: neither engine panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use simulator::Tape;

fuzz_target!(|bytes: &[u8]| {
    simulator::run_hostile(&mut Tape(bytes));
});
