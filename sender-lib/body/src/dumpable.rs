//! Programs that gave up rights may not read their own `/proc/self/mem` and `pagemap`, until they are dumpable. So the
//! process is made dumpable for the time of a migration; its manifest says what it was.

use core::sync::atomic::Ordering::SeqCst;

use sys::process::{self, Flag};

use crate::ffi;

/// Opens the process's own files under `/proc` to itself, if they are not.
pub(crate) fn open() {
    let Some(header) = ffi::header() else { return };
    if process::flag(Flag::Dumpable) == Ok(0) && process::set_dumpable(1).is_ok() {
        header.opened.store(1, SeqCst);
    }
}

/// Whether [`open`] changed anything that [`close`] has not changed back.
pub(crate) fn is_open() -> bool {
    ffi::header().is_some_and(|header| header.opened.load(SeqCst) == 1)
}

/// Takes [`open`] back.
pub(crate) fn close() {
    if let Some(header) = ffi::header()
        && header.opened.swap(0, SeqCst) == 1
    {
        // Setting what stood there before cannot fail.
        let _ = process::set_dumpable(0);
    }
}
