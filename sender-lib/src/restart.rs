//! Hiding the parasite's signals from system calls.
//!
//! `SA_RESTART` repeats most interrupted calls, but some return `EINTR` whatever the flag says (signal(7)): sleeps,
//! poll and its kin, waits with a time-out. The program asked for none of these signals, so the call is made again:
//! the instruction pointer goes back to the `syscall` instruction and the number back into `rax`. The kernel does
//! not say which call it was; where the compiler put `mov eax, NUMBER` right in front, as glibc has it in every
//! wrapper, the code does.
//!
//! A sleep that notes its rest where it read its length goes on for that rest; other time-outs begin anew. Calls
//! that wait for a signal (pause, sigsuspend) are left alone: a signal of the program's own may have come as well.

/// Bytes of `mov eax, imm32` and `syscall`.
pub(crate) const CODE_BYTES: usize = 7;

/// Calls that may simply be made again, by number (`asm/unistd_64.h`).
const REPEATABLE: [u32; 23] = [
    0,   // read, with SO_RCVTIMEO
    1,   // write, with SO_SNDTIMEO
    7,   // poll
    23,  // select
    35,  // nanosleep
    43,  // accept, with SO_RCVTIMEO
    44,  // sendto, with SO_SNDTIMEO
    45,  // recvfrom, with SO_RCVTIMEO
    46,  // sendmsg, with SO_SNDTIMEO
    47,  // recvmsg, with SO_RCVTIMEO
    65,  // semop
    69,  // msgsnd
    70,  // msgrcv
    128, // rt_sigtimedwait
    202, // futex
    220, // semtimedop
    230, // clock_nanosleep
    232, // epoll_wait
    270, // pselect6
    271, // ppoll
    281, // epoll_pwait
    288, // accept4, with SO_RCVTIMEO
    441, // epoll_pwait2
];

/// The number of the call that `code`, up to the interrupted instruction's end, made; `None` if it must not be
/// made again or cannot be told.
pub(crate) fn call_of(code: [u8; CODE_BYTES]) -> Option<u32> {
    const MOV_EAX: u8 = 0xb8;
    let [MOV_EAX, n0, n1, n2, n3, 0x0f, 0x05] = code else { return None };
    let number = u32::from_le_bytes([n0, n1, n2, n3]);
    REPEATABLE.contains(&number).then_some(number)
}
