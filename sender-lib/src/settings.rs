//! What the user asked for: in the environment, or in `receiver_info.txt`.
//!
//! The constructor remembers the variables, because a program may overwrite its environment's memory later
//! (`setproctitle`). At each trigger they are read afresh, and what was remembered is the fall-back. Under
//! `AT_SECURE` (set-id programs) the environment is somebody else's and counts for nothing.

mod environment;
mod receiver;
mod remembered;
mod signal_name;

use alloc::string::String;
use core::ffi::CStr;

use protocol::text;
use sys::{Errno, file, number, secret};
use transport::sealing::{self, KEY_TEXT_BYTES, Key};

use crate::config::RECEIVER_INFO_BYTES;
pub(crate) use receiver::Receiver;
use remembered::{LONGEST, Text};

/// These travel with a program that moves, so they are not in the state page, which does not.
static RECEIVER: Text = Text::new();
static SIGNAL: Text = Text::new();
static LOG: Text = Text::new();
static KEY_FILE: Text = Text::new();

/// The signal that starts a migration.
pub(crate) struct TriggerSignal {
    /// Its number.
    pub(crate) number: u32,
}

/// Reads the environment; what is not set there stays as it was remembered.
pub(crate) fn remember() {
    environment::each_variable(|name, value| {
        let Some(name) = name.strip_prefix(b"POSTHASTE_") else { return };
        let setting = match number::index_of(b"RECEIVER SIGNAL LOG KEY_FILE", name) {
            Some(0) => &RECEIVER,
            Some(1) => &SIGNAL,
            Some(2) => &LOG,
            Some(3) => &KEY_FILE,
            _ => return,
        };
        if setting.set(value).is_err() {
            crate::log::log!("an environment variable of ours is too long and is ignored");
        }
    });
}

/// The trigger that was asked for: SIGUSR2 if none was.
pub(crate) fn trigger_signal() -> Result<TriggerSignal, signal_name::NotASignal> {
    const SIGUSR2: u32 = 12;
    let mut copy = [0; LONGEST];
    let number = match SIGNAL.copy_to(&mut copy).to_bytes() {
        b"" => SIGUSR2,
        name => signal_name::number(name)?,
    };
    Ok(TriggerSignal { number })
}

/// Hands the log file's path to `action` if one was asked for; whether `action` succeeded.
pub(crate) fn log_path(action: impl FnOnce(&CStr) -> bool) -> bool {
    let mut copy = [0; LONGEST];
    let path = LOG.copy_to(&mut copy);
    !path.is_empty() && action(path)
}

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
    let path = KEY_FILE.copy_to(&mut copy);
    if path.is_empty() {
        return Ok(None);
    }
    if !sealing::CAN_SEAL {
        return Err(String::from("this libsender.so does not encrypt; preload libsender-sealed.so instead"));
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
    remember();
    let mut copy = [0; LONGEST];
    let named = RECEIVER.copy_to(&mut copy).to_bytes();
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
