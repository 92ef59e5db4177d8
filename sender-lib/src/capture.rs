//! The manifest of this process: of the running one, so that refusal comes early, and of the stopped one.

use alloc::string::String;
use alloc::vec::Vec;

use protocol::{FileVerdict, Manifest};

pub(crate) mod thread;

/// The process as it runs.
///
/// # Errors
/// Why it cannot be moved, in words for the user.
pub(crate) fn running() -> Result<Manifest, String> {
    Err(String::from("this build cannot capture a process"))
}

/// The process as it stands still: its threads noted `parked`, `before` is what it was while it ran, `verdicts`
/// say which of that manifest's files the destination has.
///
/// # Errors
/// Why it cannot be moved, in words for the user.
pub(crate) fn stopped(
    _parked: Vec<thread::Parked>,
    _before: &Manifest,
    _verdicts: &[FileVerdict],
) -> Result<Manifest, String> {
    Err(String::from("this build cannot capture a process"))
}
