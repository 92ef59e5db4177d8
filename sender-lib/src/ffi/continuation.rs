//! A call that waits, made again for what is left of its time.
//!
//! The thread comes here from the signal frame, with its stack pointer at a [`Record`] below everything that is its own.
//! When the call returns, all registers are as the `syscall` instruction would have left them, and the program goes on
//! behind that. A thread that is interrupted here can begin here again: nothing is changed before the call returns.

use core::arch::global_asm;

use sender_seam::restart::Place;
use sys::signal_frame::{Register, get, set};

global_asm!(
    ".hidden posthaste_wait_on",
    ".globl posthaste_wait_on",
    "posthaste_wait_on:",
    "mov eax, 228", // clock_gettime(CLOCK_MONOTONIC, time)
    "mov edi, 1",
    "lea rsi, [rsp + 32]",
    "syscall",
    "imul rax, [rsp + 32], 1000000000",
    "add rax, [rsp + 40]",
    "mov rcx, [rsp + 16]",
    "xor edx, edx",
    "sub rcx, rax",
    "cmovs rcx, rdx",
    "mov rax, rcx",
    "mov ecx, 1000000000",
    "div rcx",
    "mov [rsp + 32], rax",
    "mov [rsp + 40], rdx",
    "imul rcx, rax, 1000", // the same in milliseconds, rounded up
    "lea rax, [rdx + 999999]",
    "xor edx, edx",
    "mov esi, 1000000",
    "div rsi",
    "lea r11, [rcx + rax]",
    "mov rdi, [rsp + 56]",
    "mov rsi, [rsp + 64]",
    "mov rdx, [rsp + 72]",
    "mov r10, [rsp + 80]",
    "lea rax, [rsp + 32]",
    "mov ecx, [rsp + 24]",
    "cmp ecx, 1",
    "cmovb rdi, rax",
    "cmove rdx, rax",
    "cmp ecx, 2",
    "cmove r10, rax",
    "cmp ecx, 3",
    "cmove rdx, r11",
    "cmp ecx, 4",
    "cmove r10, r11",
    "jbe 2f",
    "cmp ecx, 8",
    "jb 3f",
    "cmove rdx, rax",
    "cmova r8, rax",
    "jmp 2f",
    "3:",
    "lea rdi, [rsp + 88]", // ppoll(descriptor, 1, time, nothing)
    "mov esi, 1",
    "mov rdx, rax",
    "xor r10d, r10d",
    "mov eax, 271",
    "syscall",
    "test rax, rax",
    "js posthaste_waited",
    "mov rdi, [rsp + 56]",
    "mov rsi, [rsp + 64]",
    "mov rdx, [rsp + 72]",
    "mov r10, [rsp + 80]",
    "jnz 2f",
    "mov rax, -11", // EAGAIN: what a time-out of a socket is
    "jmp posthaste_waited",
    "2:",
    "mov rax, [rsp + 48]",
    "syscall",
    ".hidden posthaste_waited",
    ".globl posthaste_waited",
    "posthaste_waited:",
    "mov rcx, [rsp + 96]",
    "test rcx, rcx",
    "jz 2f",
    "mov r8, [rsp + 32]", // the rest of the time, where the kernel would have left it
    "mov [rcx], r8",
    "mov r8, [rsp + 40]",
    "mov [rcx + 8], r8",
    "2:",
    "mov r8, [rsp + 104]",
    "mov rdi, [rsp + 56]",
    "mov rsi, [rsp + 64]",
    "mov rdx, [rsp + 72]",
    "mov r10, [rsp + 80]",
    "mov rcx, [rsp + 8]", // a system call leaves the address behind it in rcx
    "mov rsp, [rsp]",
    "jmp rcx",
);

// SAFETY: the labels above; only their addresses are used.
unsafe extern "C" {
    fn posthaste_wait_on();
    fn posthaste_waited();
}

/// Where the call is made, and where it has returned.
pub(super) fn addresses() -> (u64, u64) {
    let [from, to] = [posthaste_wait_on as *const (), posthaste_waited as *const ()];
    (from.addr() as u64, to.addr() as u64)
}

/// What the instructions above find at their stack pointer.
#[repr(C)]
struct Record {
    stack: u64,
    behind: u64,
    deadline: u64,
    place: u64,
    time: [u64; 2],
    number: u64,
    arguments: [u64; 4],
    /// `struct pollfd`
    poll: u64,
    /// Where the program wants to know the rest of the time, or 0.
    rest: u64,
    fifth: u64,
}

/// `siginfo_t` in a signal frame: behind the context, read by nobody when the frame is left.
const SIGNAL_INFO: u64 = 304;
const SIGNAL_INFO_BYTES: usize = 128;
const _: () = assert!(size_of::<Record>() <= SIGNAL_INFO_BYTES, "a record fits where siginfo_t was");

/// Lets the thread of `context` wait here until `deadline` in call `number`, whose time-out is at `place`.
///
/// # Safety
/// As for [`super::repeat::repeat_interrupted_call`].
pub(super) unsafe fn wait_on(context: *mut u8, number: u32, place: Place, deadline: u64) {
    const POLLIN: u64 = 1;
    const POLLOUT: u64 = 4;
    /// A frame on the same stack begins at most this far below; one with AMX tiles has 11 KiB.
    const SAME_STACK: u64 = 1 << 16;
    const RED_ZONE: u64 = 128;
    // SAFETY: handed on to the caller.
    let read = |register| unsafe { get(context, register) };
    let [stack, first] = [Register::Stack, Register::First].map(read);
    let frame = context.addr() as u64;
    let at = if stack.wrapping_sub(frame) < SAME_STACK {
        frame + SIGNAL_INFO
    } else {
        stack.wrapping_sub(RED_ZONE + size_of::<Record>() as u64) & !15
    };
    let event = if place == Place::Receiving { POLLIN } else { POLLOUT };
    let rest = match place {
        Place::ThirdCounted => read(Register::Third),
        Place::FifthCounted => read(Register::Fifth),
        _ => 0,
    };
    let record = Record {
        stack,
        behind: read(Register::Instruction),
        deadline,
        place: place as u64,
        time: [0; 2],
        number: u64::from(number),
        arguments: [Register::First, Register::Second, Register::Third, Register::Fourth].map(read),
        poll: first & 0xffff_ffff | event << 32,
        rest,
        fifth: read(Register::Fifth),
    };
    let Ok(record_at) = usize::try_from(at) else { return };
    // SAFETY: either the siginfo_t of this very frame, or the unused part of the interrupted stack.
    unsafe { core::ptr::with_exposed_provenance_mut::<Record>(record_at).write(record) };
    // SAFETY: as above.
    unsafe { set(context, Register::Stack, at) };
    // SAFETY: as above.
    unsafe { set(context, Register::Instruction, addresses().0) };
}
