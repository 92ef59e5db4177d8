//! The point of no return, as a word that a panic can still read.

use crate::ffi::resident;

/// `Run` is about to be sent.
pub(crate) fn never_run_here_again() {
    resident().state.set_committed(true);
}

/// The destination has given its word that it never runs the process.
pub(crate) fn take_back() {
    resident().state.set_committed(false);
}

/// Whether `Run` was not sent yet.
pub(crate) fn may_still_run_here() -> bool {
    !resident().state.is_committed()
}
