//! Any bytes are a manifest or an error; a manifest survives another round.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = protocol::decode::<Manifest>(bytes) {
        let again = protocol::encode(&manifest).expect("what was decoded is within the limit");
        assert_eq!(protocol::decode::<Manifest>(&again), Ok(manifest));
    }
});
