//! One line per event, which the resident half writes; never content of the host program.

use sender_seam::log::Line;

use crate::ffi::resident;

/// Writes one line, which `put` fills.
#[inline(never)]
pub(crate) fn line(put: &dyn Fn(&mut Line)) {
    (resident().say)(&Line::of(put));
}

/// Writes one line of [`protocol::Piece`]s.
macro_rules! log {
    ($($piece:expr),*) => { $crate::log::line(&|line| protocol::put!(line, $($piece),*)) };
}
pub(crate) use log;
