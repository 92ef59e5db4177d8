//! What the user asked for in the environment.
//!
//! The constructor remembers the variables, because a program may overwrite its environment's memory later
//! (`setproctitle`). At each trigger they are read afresh, and what was remembered is the fall-back. Under
//! `AT_SECURE` (set-id programs) the environment is somebody else's and counts for nothing.

mod environment;

use core::ffi::CStr;

use sender_seam::remembered::{LONGEST, Remembered};
use sys::number;
use sys::signal_name::{self, NotASignal};

/// These travel with a program that moves, so they are not in the state page, which does not.
pub(crate) static RECEIVER: Remembered = Remembered::new();
pub(crate) static KEY_FILE: Remembered = Remembered::new();
static SIGNAL: Remembered = Remembered::new();
static LOG: Remembered = Remembered::new();

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

/// The number of the trigger that was asked for: SIGUSR2 if none was.
pub(crate) fn trigger_signal() -> Result<u32, NotASignal> {
    let mut copy = [0; LONGEST];
    signal_name::number(SIGNAL.copy_to(&mut copy).to_bytes())
}

/// Hands the log file's path to `action` if one was asked for; whether `action` succeeded.
pub(crate) fn log_path(action: impl FnOnce(&CStr) -> bool) -> bool {
    let mut copy = [0; LONGEST];
    let path = LOG.copy_to(&mut copy);
    !path.is_empty() && action(path)
}
