//! The helper thread's work: one migration from the settings to its end.

use alloc::format;
use alloc::string::String;

use crate::log::log;
use crate::state::STATE;
use crate::{ffi, quiesce, settings};
use core::sync::atomic::Ordering::SeqCst;

/// Runs a migration. Returns when the program goes on here, with every thread released.
pub(crate) fn run() {
    STATE.set_helper();
    sys::thread::set_name(c"posthaste");
    if let Err(reason) = attempt() {
        let _ = quiesce::release();
        log!("{reason}; the program goes on here");
    }
}

fn attempt() -> Result<(), String> {
    let receiver = settings::receiver()?;
    let threads = quiesce::park()?;
    Err(format!("{receiver}: {} threads parked", threads.len()))
}

/// Whether `Run` was not sent yet.
pub(crate) fn may_still_run_here() -> bool {
    ffi::header().is_none_or(|header| header.committed.load(SeqCst) == 0)
}

/// Gives everything back after a panic; whether the arena may go.
pub(crate) fn take_back() -> bool {
    if let Some(header) = ffi::header() {
        header.close_remembered();
    }
    quiesce::release()
}
