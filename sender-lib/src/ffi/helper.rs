//! The helper thread's first and last instructions.

use core::arch::asm;

use sender_seam::Resident;
use sys::raw::nr;
use sys::{Errno, thread};

use crate::body::{self, Unpacked};
use crate::log::{self, log};
use crate::settings::{self, KEY_FILE, RECEIVER};
use crate::{STATE, arena};

use super::gate::leaving_gate;
use super::memory::enter_body;
use super::signals;

/// `CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM`: a thread of the host like any other.
const THREAD_FLAGS: usize = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;

/// Starts the helper thread on the arena's stack. It inherits the caller's signal mask; a signal handler that
/// masks everything gives it a mask under which no signal of the host ever runs on it.
pub(crate) fn spawn_helper(arena_start: u64) -> Result<(), Errno> {
    let stack = arena::stack_top(arena_start);
    let result: isize;
    // SAFETY: the new thread runs `enter` on memory that nobody else uses and never returns into this frame; the
    // parent's registers but rax, rcx and r11 survive a system call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "call {enter}",
            "ud2",
            "2:",
            enter = sym enter,
            inlateout("rax") nr::CLONE => result,
            in("rdi") THREAD_FLAGS, in("rsi") stack, in("rdx") 0, in("r10") 0, in("r8") 0,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    if result < 0 { Err(Errno(i32::try_from(-result).unwrap_or(i32::MAX))) } else { Ok(()) }
}

extern "C" fn enter() -> ! {
    STATE.set_helper();
    thread::set_name(c"posthaste");
    let room = STATE.arena().map_or(0, |(start, _)| arena::stack_top(start));
    leave(match body::unpack(room) {
        Ok(unpacked) => migrate(&unpacked),
        Err(reason) => {
            log!(reason, "; the program goes on here");
            true
        }
    })
}

/// See [`sender_seam::Body`].
fn migrate(body: &Unpacked) -> bool {
    settings::remember();
    let resident = Resident {
        state: &STATE,
        receiver: &RECEIVER,
        key_file: &KEY_FILE,
        park_action: signals::park_action(),
        leaving_gate: leaving_gate(),
        room: body.end,
        say: log::write,
        repeat: signals::repeat,
        leave,
    };
    // SAFETY: the body is gone before this frame: it returns, or the arena goes with both.
    let resident = unsafe { &*core::ptr::from_ref(&resident) };
    enter_body(body.entry, resident)
}

/// Ends the helper thread and with it the migration: the process is at rest again. `unmap` takes the arena away,
/// this thread's stack included.
pub(crate) extern "C" fn leave(unmap: bool) -> ! {
    let (start, bytes) = STATE.arena().filter(|_| unmap).unwrap_or((0, 0));
    let owner = STATE.owner_word().as_ptr();
    // SAFETY: nobody else uses the arena any more (`quiesce::release`), and from the first system call on these
    // instructions use no stack. Length 0 is an error to munmap(2), which changes nothing.
    unsafe {
        asm!(
            "syscall",
            "mov dword ptr [r12], 0",
            "xor edi, edi",
            "mov eax, 60",
            "syscall",
            "ud2",
            in("rax") nr::MUNMAP, in("rdi") start, in("rsi") bytes, in("r12") owner,
            options(noreturn),
        );
    }
}
