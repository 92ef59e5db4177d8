//! What a signal frame says of itself (`arch/x86/include/uapi/asm/sigcontext.h`), and the changes to it.

use sys::own_memory::read_own;

use super::continuation;
use crate::restart::{self, CODE_BYTES, Call};

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

/// Registers of the interrupted code, by their place in `uc_mcontext`.
#[derive(Clone, Copy)]
pub(super) enum Register {
    Fifth = 0,
    Fourth = 2,
    First = 8,
    Second = 9,
    Third = 12,
    Result = 13,
    Stack = 15,
    Instruction = 16,
    /// Not in `uc_mcontext` but behind it: the signals that were blocked.
    Mask = 32,
}

const fn slot(context: *mut u8, register: Register) -> *mut u64 {
    const REGISTERS: usize = 40;
    context.wrapping_add(REGISTERS + register as usize * 8).cast()
}

/// Reads a register.
///
/// # Safety
/// As for [`repeat_interrupted_call`].
pub(super) unsafe fn get(context: *mut u8, register: Register) -> u64 {
    // SAFETY: the kernel wrote a whole struct ucontext there.
    unsafe { slot(context, register).read() }
}

/// Changes a register.
///
/// # Safety
/// As for [`repeat_interrupted_call`].
pub(super) unsafe fn set(context: *mut u8, register: Register, value: u64) {
    // SAFETY: a handler may change the context that it returns to.
    unsafe { slot(context, register).write(value) };
}

/// What has to be put back into a context so that its call has returned `EINTR` after all.
#[derive(Clone, Copy)]
pub(crate) struct Interrupted {
    pub(crate) instruction: u64,
    pub(crate) stack: u64,
    /// The kernel makes the call again where every handler wants that (`SA_RESTART`).
    pub(crate) by_kernel: bool,
}

const EINTR: u64 = (-4_i64).cast_unsigned();

/// Lets an interrupted system call be made again, if it is one of those that would return `EINTR`. `call` is what the
/// thread was seen in.
///
/// # Safety
/// `context` is the third argument of a handler with `SA_SIGINFO` that has not returned yet.
pub(super) unsafe fn repeat_interrupted_call(context: *mut u8, call: Option<Call>) -> Option<Interrupted> {
    // SAFETY: handed on to the caller.
    let read = |register| unsafe { get(context, register) };
    // SAFETY: handed on to the caller.
    let write = |register, value| unsafe { set(context, register, value) };
    let (instruction, stack) = (read(Register::Instruction), read(Register::Stack));
    let was = Interrupted { instruction, stack, by_kernel: false };
    let (begin, end) = continuation::addresses();
    let returned_eintr = read(Register::Result) == EINTR;
    if (begin..end).contains(&instruction) || instruction == end && returned_eintr {
        write(Register::Instruction, begin);
        return Some(Interrupted { instruction: end, ..was });
    }
    let call = call.filter(|call| call.behind == instruction || call.behind == instruction.wrapping_add(2));
    if !returned_eintr {
        let is_repeated = call.is_some_and(|call| call.behind != instruction);
        let behind = instruction.wrapping_add(2);
        return is_repeated.then_some(Interrupted { instruction: behind, by_kernel: true, ..was });
    }
    let (number, since) = match call {
        Some(call) => (call.number, call.since),
        None => (by_code(instruction)?, 0),
    };
    let place = restart::place(number)?;
    let arguments =
        [Register::First, Register::Second, Register::Third, Register::Fourth, Register::Fifth].map(read);
    match restart::deadline(number, place, arguments, since) {
        // SAFETY: handed on to the caller.
        Some(deadline) => unsafe { continuation::wait_on(context, number, place, deadline) },
        None => {
            write(Register::Result, u64::from(number));
            // The `syscall` instruction has two bytes.
            write(Register::Instruction, instruction.wrapping_sub(2));
        }
    }
    Some(was)
}

/// The call that the code before `instruction` made.
fn by_code(instruction: u64) -> Option<u32> {
    let mut code = [0; CODE_BYTES];
    let got = read_own(instruction.wrapping_sub(CODE_BYTES as u64), &mut code);
    restart::call_of(code).filter(|_| got == Ok(CODE_BYTES))
}

/// The signals that were blocked where the frame at `at` was made.
///
/// # Safety
/// A thread rests in the handler whose frame this is.
pub(super) unsafe fn mask(at: u64) -> u64 {
    // SAFETY: handed on to the caller.
    unsafe { get(context_at(at), Register::Mask) }
}

/// Lets the call that was interrupted at the frame `at` have returned `EINTR`.
///
/// # Safety
/// As for [`mask`].
pub(super) unsafe fn interrupt(at: u64, was: Interrupted) {
    for (register, value) in
        [(Register::Instruction, was.instruction), (Register::Stack, was.stack), (Register::Result, EINTR)]
    {
        // SAFETY: handed on to the caller.
        unsafe { set(context_at(at), register, value) };
    }
}

fn context_at(at: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(usize::try_from(at).unwrap_or(0))
}
