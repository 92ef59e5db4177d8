//! Entries from the loader and from the kernel's signal delivery, and the actions that lead to them.

use core::arch::global_asm;

use sys::signal::{self, Action};
use sys::{Errno, thread};

use super::frame;
use crate::quiesce::{self, PARK_SIGNAL};
use crate::state::STATE;
use crate::trigger;

const SA_SIGINFO: u64 = 0x4;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_ONSTACK: u64 = 0x0800_0000;
const SA_RESTART: u64 = 0x1000_0000;
const SIG_IGN: u64 = 1;

global_asm!(
    ".hidden posthaste_restorer",
    ".globl posthaste_restorer",
    "posthaste_restorer:",
    "mov eax, 15",
    "syscall",
    "ud2",
);

// SAFETY: the label above; only its address is used.
unsafe extern "C" {
    fn posthaste_restorer();
}

/// The loader calls every function that this section lists.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    trigger::install();
}

/// The head of `siginfo_t`, as far as a queued signal fills it.
#[repr(C)]
struct SignalInfo {
    signal: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pid: u32,
    uid: u32,
    value: u64,
}

type Handler = unsafe extern "C" fn(i32, *const SignalInfo, *mut u8);

extern "C" fn on_trigger(_: i32, _: *const SignalInfo, context: *mut u8) {
    // SAFETY: this is the third argument of a handler with SA_SIGINFO.
    unsafe { frame::repeat_interrupted_call(context, None) };
    trigger::start();
}

extern "C" fn on_park(signal: i32, info: *const SignalInfo, context: *mut u8) {
    // SAFETY: the kernel hands a valid siginfo_t to a handler with SA_SIGINFO.
    let facts = unsafe { &*info };
    if facts.code == signal::SI_QUEUE && facts.errno == quiesce::MARK {
        // SAFETY: this is the third argument of a handler with SA_SIGINFO.
        let frame = unsafe { frame::facts(context) };
        // SAFETY: as above.
        let repeat = |call| unsafe { frame::repeat_interrupted_call(context, call) };
        quiesce::come_to_rest(facts.value, frame, repeat);
    } else {
        chain(signal, info, context);
    }
}

/// Does what the host would have done with a signal that is not the parasite's.
fn chain(signal: i32, info: *const SignalInfo, context: *mut u8) {
    let saved = STATE.saved_action();
    if saved.handler == SIG_IGN {
        return;
    }
    match usize::try_from(saved.handler).ok().filter(|at| *at != 0) {
        Some(at) => {
            let at = core::ptr::with_exposed_provenance::<()>(at);
            // SAFETY: the host installed the function for this very signal; without SA_SIGINFO it reads the
            // first argument only.
            let handler = unsafe { core::mem::transmute::<*const (), Handler>(at) };
            // SAFETY: the arguments are those of the kernel, untouched.
            unsafe { handler(signal, info, context) };
        }
        None => {
            restore_park_action();
            // Blocked until this handler returns, then it takes its default course.
            let _ = signal::send_to_thread(thread::process_id(), thread::thread_id(), signal.cast_unsigned());
        }
    }
}

fn handler_action(handler: extern "C" fn(i32, *const SignalInfo, *mut u8)) -> Action {
    Action {
        handler: (handler as *const ()).addr() as u64,
        flags: SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_RESTORER,
        restorer: (posthaste_restorer as *const ()).addr() as u64,
        mask: u64::MAX,
    }
}

/// Makes `signal` the trigger.
pub(crate) fn install_trigger(signal: u32) -> Result<(), Errno> {
    // SAFETY: handler and restorer are functions of this library, which is never unloaded (`-z nodelete`).
    unsafe { signal::set_action(signal, &handler_action(on_trigger)) }
}

/// Whether the park signal leads to the park handler.
pub(crate) fn park_handler_is_installed() -> bool {
    signal::action(PARK_SIGNAL).is_ok_and(|action| action.handler == handler_action(on_park).handler)
}

/// Makes the park signal lead to the park handler and saves what it did before.
pub(crate) fn install_park_handler() -> Result<(), Errno> {
    let present = signal::action(PARK_SIGNAL)?;
    let ours = handler_action(on_park);
    if present.handler == ours.handler {
        return Ok(());
    }
    STATE.save_action(&present);
    // SAFETY: as for the trigger; a signal that is not the parasite's goes on to the saved action.
    unsafe { signal::set_action(PARK_SIGNAL, &ours) }
}

/// Gives the park signal back to the host.
pub(crate) fn restore_park_action() {
    if park_handler_is_installed() {
        // SAFETY: the action was the host's own choice.
        let restored = unsafe { signal::set_action(PARK_SIGNAL, &STATE.saved_action()) };
        debug_assert!(restored.is_ok(), "the kernel gave this very action out");
    }
}
