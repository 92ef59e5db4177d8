//! The point of no return, as a word that a panic can still read.

use core::sync::atomic::Ordering::SeqCst;

use crate::ffi;

/// `Run` is about to be sent.
pub(crate) fn never_run_here_again() {
    if let Some(header) = ffi::header() {
        header.committed.store(1, SeqCst);
    }
}

/// The destination has given its word that it never runs the process.
pub(crate) fn take_back() {
    if let Some(header) = ffi::header() {
        header.committed.store(0, SeqCst);
    }
}

/// Whether `Run` was not sent yet.
pub(crate) fn may_still_run_here() -> bool {
    ffi::header().is_none_or(|header| header.committed.load(SeqCst) == 0)
}
