//! The leaving gate: the last foreign instructions that a moved thread runs.
//!
//! Each thread is built in a mapping that belongs to the receiver ("the hole") and goes back to its own code by
//! rt_sigreturn(2). The last of them must unmap the hole, and cannot do so from within it. This code can: it
//! travels with the program.
//!
//! In: `rbx` = address of a `u32` in the hole that counts the threads still in it, `rdi` and `rsi` = start and
//! length of the hole, `r12` = address of the thread's `struct ucontext`.

use core::arch::global_asm;

global_asm!(
    ".pushsection .text.posthaste_leaving_gate, \"ax\", @progbits",
    // One cache line, so that the gate never crosses a page: the destination needs one page of it early.
    ".balign 64",
    ".hidden posthaste_leaving_gate",
    ".globl posthaste_leaving_gate",
    "posthaste_leaving_gate:",
    "lock dec dword ptr [rbx]",
    "jnz 2f",
    "mov eax, 11",
    "syscall",
    "2:",
    "mov rsp, r12",
    "mov eax, 15",
    "syscall",
    "ud2",
    ".popsection",
);

// SAFETY: the label above; only its address is used.
unsafe extern "C" {
    fn posthaste_leaving_gate();
}

/// Its address.
pub(crate) fn leaving_gate() -> u64 {
    (posthaste_leaving_gate as *const ()).addr() as u64
}
