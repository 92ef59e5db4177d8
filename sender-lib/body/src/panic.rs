//! A defect of the parasite must not be one of its host.
//!
//! On the helper thread, before `Run`: every thread is released, descriptors and arena go, the program runs on.
//! After `Run` the program is not here any more: the process ends, with a line. On a thread of the host (a signal
//! entry of a few lines) there is nothing to go back to: the process ends, with a line.

use core::panic::PanicInfo;

use sys::thread;

use crate::ffi::resident;
use crate::log::log;
use crate::{commit, migration};

/// Exit status after an internal error, `EX_SOFTWARE`.
const INTERNAL_ERROR: u8 = 70;

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    // A message with numbers in it is left out: what writes them is larger than what else this line takes.
    let text = info.message().as_str().unwrap_or("out of bounds");
    match info.location() {
        Some(at) => log!("internal error at ", at.file(), ":", at.line(), ": ", text),
        None => log!("internal error: ", text),
    }
    if resident().state.is_helper() && commit::may_still_run_here() {
        (resident().leave)(migration::take_back());
    }
    thread::exit_process(INTERNAL_ERROR)
}
