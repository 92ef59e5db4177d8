//! Entries from the loader and from the kernel's signal delivery, and the actions that lead to them.

use core::arch::global_asm;
use core::sync::atomic::Ordering::SeqCst;

use sender_seam::restart::{Call, Interrupted};
use sender_seam::{MARK, PARK_SIGNAL, Rest};
use sys::signal::{self, Action};
use sys::{Errno, thread};

use super::repeat::repeat_interrupted_call;
use crate::{STATE, trigger};

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

extern "C" fn on_trigger(signal: i32, _: *const SignalInfo, context: *mut u8) {
    // SAFETY: this is the third argument of a handler with SA_SIGINFO.
    unsafe { repeat_interrupted_call(context, None, signal.cast_unsigned()) };
    trigger::start();
}

extern "C" fn on_park(signal: i32, info: *const SignalInfo, context: *mut u8) {
    // SAFETY: the kernel hands a valid siginfo_t to a handler with SA_SIGINFO.
    let facts = unsafe { &*info };
    if facts.code == signal::SI_QUEUE && facts.errno == MARK {
        STATE.inside.fetch_add(1, SeqCst);
        // From here on the body stays, because its `release` waits for `inside`; before, it may be gone.
        match rest(facts.value) {
            // SAFETY: the context is the third argument of a handler with SA_SIGINFO.
            Some(rest) => unsafe { rest(facts.value, context) },
            None => {
                // SAFETY: as above.
                unsafe { repeat_interrupted_call(context, None, PARK_SIGNAL) };
            }
        }
        STATE.inside.fetch_sub(1, SeqCst);
    } else {
        STATE.host_signals.fetch_add(1, SeqCst);
        chain(signal, info, context);
    }
}

/// Where a thread rests that got the park signal `ticket`; `None` if it came too late.
fn rest(ticket: u64) -> Option<Rest> {
    let generation = u32::try_from(ticket >> 32).unwrap_or(0);
    let at = usize::try_from(STATE.rest()).ok().filter(|at| *at != 0 && STATE.is_parking(generation))?;
    let at = core::ptr::with_exposed_provenance::<()>(at);
    // SAFETY: the body has put it there, and is there as long as anybody shall park.
    Some(unsafe { core::mem::transmute::<*const (), Rest>(at) })
}

/// See [`sender_seam::Resident::repeat`].
///
/// # Safety
/// As for [`repeat_interrupted_call`].
pub(super) unsafe extern "C" fn repeat(context: *mut u8, call: Option<&Call>, was: &mut Interrupted) {
    // SAFETY: handed on to the caller.
    *was = unsafe { repeat_interrupted_call(context, call.copied(), PARK_SIGNAL) }.unwrap_or_default();
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
            let ours = park_action().handler;
            if signal::action(PARK_SIGNAL).is_ok_and(|action| action.handler == ours) {
                // SAFETY: the action was the host's own choice.
                let _ = unsafe { signal::set_action(PARK_SIGNAL, &saved) };
            }
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

/// What the park signal does while threads are to rest.
pub(super) fn park_action() -> Action {
    handler_action(on_park)
}
