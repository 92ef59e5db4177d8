//! A signal frame as the kernel writes it (`arch/x86/include/uapi/asm/sigcontext.h`): where it ends, and the registers
//! of the interrupted code in it.

/// Offset of `uc_mcontext.fpstate` in `struct ucontext`: flags 8, link 8, stack 24, then 23 registers.
const FPSTATE_POINTER: usize = 40 + 23 * 8;
/// Offset of the instruction pointer in it.
const INSTRUCTION: usize = 40 + Register::Instruction as usize * 8;
/// Offset of `struct _fpx_sw_bytes` in the FXSAVE area.
const SOFTWARE_BYTES: usize = 464;
/// Bytes of an FXSAVE area without extensions.
const FXSAVE_BYTES: u64 = 512;
/// `FP_XSTATE_MAGIC1`: an XSAVE area follows.
const EXTENDED: u32 = 0x4650_5853;
/// Bytes of `struct ucontext` up to and with its signal mask.
const CONTEXT_BYTES: u64 = 40 + 256 + 8;

/// Where a signal frame is and what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Address of its `struct ucontext`: what rt_sigreturn(2) wants in the stack pointer.
    pub at: u64,
    /// Bytes from there to the end of the extended register state.
    pub len: u64,
    /// XSAVE components that the frame has room for.
    pub components: u64,
    /// The next instruction of the interrupted code.
    pub instruction: u64,
}

/// Reads the facts of the frame whose context the kernel handed to a signal handler.
///
/// # Safety
/// `context` is the third argument of a handler with `SA_SIGINFO` that has not returned yet.
#[must_use]
pub unsafe fn facts(context: *const u8) -> Facts {
    let at = context.addr() as u64;
    // SAFETY: the kernel wrote a whole struct ucontext there.
    let instruction = unsafe { context.wrapping_add(INSTRUCTION).cast::<u64>().read() };
    // SAFETY: the kernel wrote a whole struct ucontext there.
    let fpstate = unsafe { context.wrapping_add(FPSTATE_POINTER).cast::<*const u8>().read() };
    if fpstate.is_null() {
        return Facts { at, len: CONTEXT_BYTES, components: 0, instruction };
    }
    let software = fpstate.wrapping_add(SOFTWARE_BYTES);
    // SAFETY: a register area has at least the 512 bytes of FXSAVE, the software bytes are within them.
    let [magic, extended_bytes] = unsafe { software.cast::<[u32; 2]>().read() };
    // SAFETY: as above.
    let components = unsafe { software.wrapping_add(8).cast::<u64>().read_unaligned() };
    let (bytes, components) =
        if magic == EXTENDED { (u64::from(extended_bytes), components) } else { (FXSAVE_BYTES, 0) };
    let len = (fpstate.addr() as u64).saturating_sub(at).saturating_add(bytes);
    Facts { at, len, components, instruction }
}

/// Registers of the interrupted code, by their place in `uc_mcontext`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// `r8`: a system call's fifth argument.
    Fifth = 0,
    /// `r9`: a system call's sixth argument.
    Sixth = 1,
    /// `r10`: a system call's fourth argument.
    Fourth = 2,
    /// `r12`
    R12 = 4,
    /// `rdi`: the first argument.
    First = 8,
    /// `rsi`: the second argument.
    Second = 9,
    /// `rdx`: the third argument.
    Third = 12,
    /// `rax`: the result.
    Result = 13,
    /// `rsp`
    Stack = 15,
    /// `rip`
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
/// `context` is the third argument of a handler with `SA_SIGINFO` that has not returned yet.
#[must_use]
pub unsafe fn get(context: *mut u8, register: Register) -> u64 {
    // SAFETY: the kernel wrote a whole struct ucontext there.
    unsafe { slot(context, register).read() }
}

/// Changes a register.
///
/// # Safety
/// As for [`get`], and the interrupted code can go on with it.
pub unsafe fn set(context: *mut u8, register: Register, value: u64) {
    // SAFETY: a handler may change the context that it returns to.
    unsafe { slot(context, register).write(value) };
}

/// The context at an address that was kept as a number.
#[must_use]
pub fn context_at(at: u64) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(usize::try_from(at).unwrap_or(0))
}
