//! From the loader to the signal, and from the signal to a helper thread: all that ever runs on the host's threads
//! but the park handler.

use sys::signal;

use crate::log::{self, log};
use crate::settings;
use crate::{STATE, arena, ffi};

/// What the loader runs: makes the trigger signal ours, unless the program was started with another action for it.
pub(crate) fn install() {
    log::remember_standard_error();
    settings::remember();
    let number = match settings::trigger_signal() {
        Ok(trigger) => trigger,
        Err(reason) => {
            log!("POSTHASTE_SIGNAL ", reason, "; this program cannot be moved");
            return;
        }
    };
    let present = signal::action(number).unwrap_or_default();
    if present.handler != 0 {
        let what = if present.handler == 1 { "ignored" } else { "handled" };
        log!("signal ", number, " is ", what, " already and stays so; POSTHASTE_SIGNAL picks another one");
    } else if let Err(errno) = ffi::install_trigger(number) {
        log!("signal ", number, " cannot be used: ", errno);
    }
}

/// What the trigger signal runs, on whichever thread got it: starts the helper thread and returns.
pub(crate) fn start() {
    if !STATE.claim() {
        log!("a migration is under way; the second signal is ignored");
        return;
    }
    let start = match arena::map() {
        Ok(start) => start,
        Err(errno) => {
            STATE.disclaim();
            log!("no memory for a migration: ", errno, "; the program goes on here");
            return;
        }
    };
    if let Err(errno) = ffi::spawn_helper(start) {
        arena::unmap();
        STATE.disclaim();
        log!("no helper thread: ", errno, "; the program goes on here");
    }
}
