//! What a signal frame says of itself (`arch/x86/include/uapi/asm/sigcontext.h`), and the one change to it.

use sys::own_memory::read_own;

use crate::restart::{self, CODE_BYTES};

/// Offset of `uc_mcontext.fpstate` in `struct ucontext`: flags 8, link 8, stack 24, then 23 registers.
const FPSTATE_POINTER: usize = 40 + 23 * 8;
/// Offset of `struct _fpx_sw_bytes` in the FXSAVE area.
const SOFTWARE_BYTES: usize = 464;
/// Bytes of an FXSAVE area without extensions.
const FXSAVE_BYTES: u64 = 512;
/// `FP_XSTATE_MAGIC1`: an XSAVE area follows.
const EXTENDED: u32 = 0x4650_5853;
/// Bytes of `struct ucontext` up to and with its signal mask.
const CONTEXT_BYTES: u64 = 40 + 256 + 8;

/// Where a signal frame is and what is in it.
#[derive(Clone, Copy)]
pub(crate) struct FrameFacts {
    /// Address of its `struct ucontext`: what rt_sigreturn(2) wants in the stack pointer.
    pub(crate) at: u64,
    /// Bytes from there to the end of the extended register state.
    pub(crate) len: u64,
    /// XSAVE components that the frame has room for.
    pub(crate) components: u64,
}

/// Reads the facts of the frame whose context the kernel handed to a signal handler.
///
/// # Safety
/// `context` is the third argument of a handler with `SA_SIGINFO` that has not returned yet.
pub(super) unsafe fn facts(context: *const u8) -> FrameFacts {
    let at = context.addr() as u64;
    // SAFETY: the kernel wrote a whole struct ucontext there.
    let fpstate = unsafe { context.wrapping_add(FPSTATE_POINTER).cast::<*const u8>().read() };
    if fpstate.is_null() {
        return FrameFacts { at, len: CONTEXT_BYTES, components: 0 };
    }
    let software = fpstate.wrapping_add(SOFTWARE_BYTES);
    // SAFETY: a register area has at least the 512 bytes of FXSAVE, the software bytes are within them.
    let [magic, extended_bytes] = unsafe { software.cast::<[u32; 2]>().read() };
    // SAFETY: as above.
    let components = unsafe { software.wrapping_add(8).cast::<u64>().read_unaligned() };
    let (bytes, components) =
        if magic == EXTENDED { (u64::from(extended_bytes), components) } else { (FXSAVE_BYTES, 0) };
    FrameFacts { at, len: (fpstate.addr() as u64).saturating_sub(at).saturating_add(bytes), components }
}

/// Offsets of the saved registers in `struct ucontext`.
const RAX: usize = 40 + 13 * 8;
const RIP: usize = 40 + 16 * 8;

/// Lets an interrupted system call be made again, if it is one of those that would return `EINTR`.
///
/// # Safety
/// `context` is the third argument of a handler with `SA_SIGINFO` that has not returned yet.
pub(super) unsafe fn repeat_interrupted_call(context: *mut u8) {
    const EINTR: i64 = 4;
    let (rax, rip) = (context.wrapping_add(RAX).cast::<i64>(), context.wrapping_add(RIP).cast::<u64>());
    // SAFETY: the kernel wrote a whole struct ucontext there.
    if unsafe { rax.read() } != -EINTR {
        return;
    }
    // SAFETY: as above.
    let at = unsafe { rip.read() };
    let mut code = [0; CODE_BYTES];
    let got = read_own(at.wrapping_sub(CODE_BYTES as u64), &mut code);
    let Some(number) = restart::call_of(code).filter(|_| got == Ok(CODE_BYTES)) else { return };
    // SAFETY: the handler may change the context that it returns to; the call's arguments are in it untouched.
    unsafe { rax.write(i64::from(number)) };
    // SAFETY: as above; two bytes back is the `syscall` instruction that was just read.
    unsafe { rip.write(at.wrapping_sub(2)) };
}
