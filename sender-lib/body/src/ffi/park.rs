//! The way of a thread to its rest, and the action that leads there.

use sender_seam::restart::{Call, Interrupted};
use sender_seam::{PARK_SIGNAL, Resident};
use sys::{Errno, signal, signal_frame};

use super::resident;
use crate::quiesce;

/// See [`sender_seam::Rest`].
///
/// # Safety
/// `context` is the third argument of a handler with `SA_SIGINFO` that has not returned yet.
pub(super) unsafe extern "C" fn rest(ticket: u64, context: *mut u8) {
    // SAFETY: handed on to the caller.
    let frame = unsafe { signal_frame::facts(context) };
    quiesce::come_to_rest(ticket, frame, |call: Option<Call>| {
        let mut was = Interrupted::default();
        // SAFETY: handed on to the caller.
        unsafe { (resident().repeat)(context, call.as_ref(), &mut was) };
        (was.instruction != 0).then_some(was)
    });
}

/// Whether the park signal leads to the park handler.
pub(crate) fn park_handler_is_installed() -> bool {
    signal::action(PARK_SIGNAL).is_ok_and(|action| action.handler == resident().park_action.handler)
}

/// Makes the park signal lead to the park handler and saves what it did before.
pub(crate) fn install_park_handler() -> Result<(), Errno> {
    let present = signal::action(PARK_SIGNAL)?;
    let Resident { state, park_action: ours, .. } = resident();
    if present.handler == ours.handler {
        return Ok(());
    }
    state.save_action(&present);
    // SAFETY: handler and restorer are functions of the resident half, which is never unloaded; a signal that is not
    // the parasite's goes on to the saved action.
    unsafe { signal::set_action(PARK_SIGNAL, ours) }
}

/// Gives the park signal back to the host.
pub(crate) fn restore_park_action() {
    if park_handler_is_installed() {
        // SAFETY: the action was the host's own choice.
        let restored = unsafe { signal::set_action(PARK_SIGNAL, &resident().state.saved_action()) };
        debug_assert!(restored.is_ok(), "the kernel gave this very action out");
    }
}
