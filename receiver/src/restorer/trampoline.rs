//! The only code that runs inside a process under construction: an interpreter of syscall programs.
//!
//! ```text
//! hole:  page 0  this code, mapped read and execute
//!        page 1  { first failed op: u64, where failures continue: u64 }, written by the parent beforehand
//!        then    whatever the parent lays out (see `layout`)
//! ```
//!
//! A new thread takes the address of its operations along in a register: by the time that it first runs, its
//! creator may be through, and the parent may have written the next program over the one that made it.
//!
//! Position independent, without stack, data or calls: rbx points to the next operation, everything else is
//! scratch. It never changes with what is restored; order, errors and tests live in Rust.
#![allow(unsafe_code, reason = "one of the three places for it: assembly, and the jump into it")]

use std::arch::{asm, global_asm};
use std::os::fd::{AsRawFd, BorrowedFd};

use memory::{Addr, PAGE_SIZE};
use sys::Errno;
use sys::raw::{nr, syscall};

/// Operation: a system call. Numbers from 0 up are the kernel's.
pub const JUMP: i32 = -1;
/// Operation: `clone3`; the new thread goes on at another operation.
pub const THREAD: i32 = -2;
/// Operation: copies a word.
pub const COPY: i32 = -3;
/// Operation: leaves for good, by the leaving gate.
pub const LEAVE: i32 = -4;
/// Flag: an error result is a failure of the whole program.
pub const MUST_SUCCEED: u32 = 1;
/// Flag: a result of zero is a failure too (a read at its end).
pub const MUST_NOT_BE_ZERO: u32 = 2;

/// Flag, beside the others: a failure ends the process with status 125.
pub const OR_END: u32 = 4;

/// Offset of the status page in the hole.
pub const STATUS: u64 = PAGE_SIZE;
/// Offset of the word that holds the address of the first failed operation, or 0.
pub const STATUS_FAILED: u64 = STATUS;
/// Offset of the word that holds the address of the operations to go on with after a failure.
pub const STATUS_ON_FAILURE: u64 = STATUS + 8;

// Layout of an operation, 64 bytes: number i32, flags u32, six arguments, result.
global_asm!(
    r#"
    .pushsection .text.posthaste_trampoline,"ax",@progbits
    .balign 4096
    .globl posthaste_trampoline_begin, posthaste_trampoline_end
    .hidden posthaste_trampoline_begin, posthaste_trampoline_end
posthaste_trampoline_begin:
20: movsxd rax, dword ptr [rbx]
    test eax, eax
    js 50f
    mov rdi, [rbx+8]
    mov rsi, [rbx+16]
    mov rdx, [rbx+24]
    mov r10, [rbx+32]
    mov r8,  [rbx+40]
    mov r9,  [rbx+48]
    syscall
30: mov [rbx+56], rax
    test rax, rax
    jz 35f
    cmp rax, -4096
    jbe 40f
    test byte ptr [rbx+4], 1
    jnz 80f
    jmp 40f
35: test byte ptr [rbx+4], 2
    jnz 80f
40: add rbx, 64
    jmp 20b

50: cmp eax, -1
    jne 60f
    mov rbx, [rbx+8]
    jmp 20b
60: cmp eax, -2
    jne 65f
    mov rdi, [rbx+8]
    mov rsi, [rbx+16]
    mov r12, [rbx+24]
    mov eax, 435
    syscall
    test rax, rax
    jnz 30b
    mov rbx, r12
    jmp 20b
65: cmp eax, -3
    jne 70f
    mov rax, [rbx+8]
    mov rax, [rax]
    mov rcx, [rbx+16]
    mov [rcx], rax
    jmp 40b
70: mov rdi, [rbx+16]
    mov rsi, [rbx+24]
    mov r12, [rbx+32]
    mov rax, [rbx+40]
    mov rbx, [rbx+8]
    jmp rax

80: test byte ptr [rbx+4], 4
    jnz 90f
    lea rcx, [rip + posthaste_trampoline_begin + 4096]
    xor eax, eax
    lock cmpxchg [rcx], rbx
    mov rbx, [rcx+8]
    jmp 20b

90: mov edi, 125
    mov eax, 231
    syscall
    jmp 90b
posthaste_trampoline_end:
    .popsection
"#
);

// SAFETY: the two labels above; only their addresses are used.
unsafe extern "C" {
    static posthaste_trampoline_begin: u8;
    static posthaste_trampoline_end: u8;
}

/// The interpreter's instructions, for the first page of a hole.
#[must_use]
pub fn code() -> &'static [u8] {
    let begin = &raw const posthaste_trampoline_begin;
    let len = (&raw const posthaste_trampoline_end).addr() - begin.addr();
    // SAFETY: both symbols bound the section above, which is mapped for as long as the program runs and is
    // never written.
    unsafe { std::slice::from_raw_parts(begin, len) }
}

/// Maps `memfd` at `hole` (its first page executable) and goes on with the operation at `first`; nothing of
/// this program runs in this process any more.
///
/// # Errors
/// Why the hole could not be mapped: `EEXIST` when something is there already. Success does not return.
pub fn enter(memfd: BorrowedFd<'_>, hole: Addr, len: u64, first: Addr) -> Errno {
    const READ_EXECUTE: usize = 1 | 4;
    const READ_WRITE: usize = 1 | 2;
    for (offset, len, protection) in [(0, STATUS, READ_EXECUTE), (STATUS, len - STATUS, READ_WRITE)] {
        if let Err(errno) = map(memfd, Addr(hole.0 + offset), len, protection, offset) {
            return errno;
        }
    }
    // SAFETY: the hole holds the interpreter (written by the parent before this process was made) and `first`
    // points to operations in it; this process gives itself up, so nothing of it has to stay valid.
    unsafe {
        asm!("mov rbx, {first}", "jmp rax", first = in(reg) first.0, in("rax") hole.0, options(noreturn));
    }
}

fn map(memfd: BorrowedFd<'_>, at: Addr, len: u64, protection: usize, offset: u64) -> Result<(), Errno> {
    const SHARED_EXACTLY_THERE: usize = 0x1 | 0x10_0000;
    let word = |value: u64| usize::try_from(value).map_err(|_| Errno::EINVAL);
    let fd = memfd.as_raw_fd().cast_unsigned() as usize;
    let arguments = [word(at.0)?, word(len)?, protection, SHARED_EXACTLY_THERE, fd, word(offset)?];
    // SAFETY: MAP_FIXED_NOREPLACE maps where nothing was, so no memory that Rust knows of changes.
    unsafe { syscall(nr::MMAP, arguments) }.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_fits_in_its_page_and_starts_it() {
        assert!(!code().is_empty());
        assert!(code().len() < 512, "{} bytes", code().len());
        assert!(code().as_ptr().addr().is_multiple_of(4096));
    }
}
