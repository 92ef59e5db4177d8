//! A defect of the parasite must not be one of its host. (What the body does about its own: see there.)
//!
//! On the helper thread, before there is a body, the arena goes and the program runs on. On a thread of the host (a signal
//! entry of a few lines) there is nothing to go back to: the process ends, with a line.

use core::panic::PanicInfo;

use sys::thread;

use crate::log::log;
use crate::{STATE, ffi};

/// Exit status after an internal error, `EX_SOFTWARE`.
const INTERNAL_ERROR: u8 = 70;

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => log!("internal error at ", at.file(), ":", at.line()),
        None => log!("internal error"),
    }
    if STATE.is_helper() && STATE.rest() == 0 {
        ffi::leave(true);
    }
    thread::exit_process(INTERNAL_ERROR)
}
