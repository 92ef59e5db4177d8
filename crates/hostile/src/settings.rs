//! What users write: the address of a receiver, and the receiver's command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;

/// The parasite's own: it is `no_std`, and its crate is linked as a shared object only.
#[path = "../../../sender-lib/body/src/settings/receiver.rs"]
mod address;

/// The first byte chooses what the others are: the line of `receiver_info.txt`, the variable, or the arguments, one a
/// line.
pub fn settings(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first() else { return };
    let (found, separator) = match choice % 3 {
        0 => (address::from_line(text), b' '),
        1 => (address::from_variable(text), b':'),
        _ => return arguments(text),
    };
    match found {
        Ok(found) => {
            assert!(found.address.port() != 0 && text.contains(&separator));
            let (host, _) = found.name.rsplit_once(':').expect("a name is host and port");
            assert!(text.windows(host.len()).any(|part| part == host.as_bytes()));
        }
        Err(words) => {
            assert!(words == address::malformed() || words.starts_with("POSTHASTE_RECEIVER"));
        }
    }
    assert_eq!(address::default().address.port(), 43000);
}

fn arguments(text: &[u8]) {
    let words = text.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    let words = [OsString::from("receiver")].into_iter().chain(words);
    let _either = receiver::cli::Options::try_parse_from(words);
}
