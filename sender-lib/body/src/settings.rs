//! Where to move to, and with which key: what the user asked for in the environment or in `receiver_info.txt`.

mod receiver;

use alloc::string::String;

use protocol::text;
use sender_seam::remembered::LONGEST;
use sys::{Errno, file, secret};
use transport::sealing::{self, KEY_TEXT_BYTES, Key};

use crate::config::RECEIVER_INFO_BYTES;
use crate::ffi::resident;
pub(crate) use receiver::Receiver;

/// The key for the way to `receiver`. Without one a program stays on its machine.
///
/// # Errors
/// There has to be one, or what is wrong with the one that the user named.
pub(crate) fn key_for(receiver: &Receiver) -> Result<Option<Key>, String> {
    let key = key()?;
    if key.is_none() && !receiver.address.ip().is_loopback() {
        return Err(text![
            "the receiver is at ",
            receiver.name,
            "; without a key (POSTHASTE_KEY_FILE) a program moves within one machine only"
        ]);
    }
    Ok(key)
}

/// The key in the file that `POSTHASTE_KEY_FILE` names, if it names one.
fn key() -> Result<Option<Key>, String> {
    let mut copy = [0; LONGEST];
    let path = resident().key_file.copy_to(&mut copy);
    if path.is_empty() {
        return Ok(None);
    }
    // A little more than a key, to see whether there is more.
    let mut text = [0; KEY_TEXT_BYTES + 16];
    let got = secret::read(path, &mut text).map_err(|reason| text!["the key file ", reason])?;
    let key = Key::from_text(text.get(..got).unwrap_or_default());
    sealing::forget(&mut text);
    key.map(Some).ok_or_else(|| String::from("the key file holds no key; receiver keygen makes one"))
}

/// Where to move to: `POSTHASTE_RECEIVER`, else `receiver_info.txt` in the working directory, else the default.
///
/// # Errors
/// What is wrong with what the user wrote.
pub(crate) fn receiver() -> Result<Receiver, String> {
    let mut copy = [0; LONGEST];
    let named = resident().receiver.copy_to(&mut copy).to_bytes();
    if !named.is_empty() {
        return receiver::from_variable(named);
    }
    match file::read_file(c"receiver_info.txt", RECEIVER_INFO_BYTES) {
        Ok(content) => receiver::from_line(&content),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(receiver::default()),
        Err(Errno::EOVERFLOW) => Err(receiver::malformed()),
        Err(errno) => Err(text!["reading receiver_info.txt: ", errno]),
    }
}
