//! Hiding the parasite's signals from system calls.
//!
//! `SA_RESTART` repeats most interrupted calls, but some return `EINTR` whatever the flag says (signal(7)): sleeps,
//! poll and its kin, waits with a time-out. The program asked for none of these signals, so the call is made again. One
//! that began its time-out before is made again for what is left of it, by the resident half's continuation (`sender-lib/src/ffi/continuation.rs`).
//!
//! Which call a thread was in is looked up before it gets its signal (`sender-lib/body/src/quiesce/calls.rs`). Where nobody looked, the code
//! says it, in the forms of glibc and musl ([`number_before`]). Such a time-out begins anew.

use sys::clock;
use sys::descriptor::socket;
use sys::own_memory::{can_be_written, own_words, read_own};

/// Where a call has its time-out; the numbers are those that the continuation branches on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Place {
    /// A pointer, the first argument.
    First = 0,
    /// A pointer, the third argument.
    Third = 1,
    /// A pointer, the fourth argument.
    Fourth = 2,
    /// Milliseconds, the third argument.
    ThirdMilliseconds = 3,
    /// Milliseconds, the fourth argument.
    FourthMilliseconds = 4,
    /// `SO_RCVTIMEO` of the socket that is the first argument.
    Receiving = 5,
    /// `SO_SNDTIMEO` of the socket that is the first argument.
    Sending = 6,
    /// None, or none that has to be told again: an absolute one.
    Nowhere = 7,
    /// A pointer, the third argument, to a time that the kernel counts down in place.
    ThirdCounted = 8,
    /// A pointer, the fifth argument, to a time that the kernel counts down in place.
    FifthCounted = 9,
}

/// What has to be put back into a context so that its call has returned `EINTR` after all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Interrupted {
    /// Where the thread goes on then; 0 if no call is made again.
    pub instruction: u64,
    /// With which stack pointer.
    pub stack: u64,
    /// The kernel makes the call again where every handler wants that (`SA_RESTART`).
    pub by_kernel: bool,
}

const NANOSLEEP: u32 = 35;
const FUTEX: u32 = 202;
const CLOCK_NANOSLEEP: u32 = 230;

/// A call that a thread was seen in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: u32,
    /// The address behind its `syscall` instruction.
    pub behind: u64,
    /// When it went to sleep, by `CLOCK_MONOTONIC`; 0 if that is not known.
    pub since: u64,
}

/// Calls that return `EINTR` although they could be made again, by number (`asm/unistd_64.h`).
const CALLS: [(u16, Place); 25] = [
    (0, Place::Receiving),            // read
    (1, Place::Sending),              // write
    (7, Place::ThirdMilliseconds),    // poll
    (23, Place::Nowhere),             // select
    (34, Place::Nowhere),             // pause
    (35, Place::First),               // nanosleep
    (43, Place::Receiving),           // accept
    (44, Place::Sending),             // sendto
    (45, Place::Receiving),           // recvfrom
    (46, Place::Sending),             // sendmsg
    (47, Place::Receiving),           // recvmsg
    (65, Place::Nowhere),             // semop
    (69, Place::Nowhere),             // msgsnd
    (70, Place::Nowhere),             // msgrcv
    (128, Place::Third),              // rt_sigtimedwait
    (130, Place::Nowhere),            // rt_sigsuspend
    (202, Place::Fourth),             // futex
    (220, Place::Fourth),             // semtimedop
    (230, Place::Third),              // clock_nanosleep
    (232, Place::FourthMilliseconds), // epoll_wait
    (270, Place::FifthCounted),       // pselect6
    (271, Place::ThirdCounted),       // ppoll
    (281, Place::FourthMilliseconds), // epoll_pwait
    (288, Place::Receiving),          // accept4
    (441, Place::Fourth),             // epoll_pwait2
];

/// The number of the call that the `syscall` before `instruction` made, with this stack pointer and `r12`; `None` if there is no
/// `syscall`, or the code before it is none of those that are known. What is told wrong would be another call, so what could be
/// something else is not told:
///
/// - `mov eax, NUMBER`, `xor eax, eax` or `mov rax, [rsp + N]`, then arguments that are fetched from the stack, `syscall`.
/// - The function that can be cancelled, of musl and since 2.41 of glibc. Its second argument is the number, which its caller
///   has got from the stack (glibc, behind its last `push`), or in `r12` (musl).
///
/// Not that of syscall(3): by then the number is nowhere.
#[must_use]
pub fn number_before(instruction: u64, stack: u64, r12: u64) -> Option<u32> {
    let code = code_before(instruction)?;
    let [code @ .., 0x0f, 0x05] = code.as_slice() else { return None };
    let mut code: &[u8] = code;
    let on_stack = |at: u8| small(word(stack.wrapping_add(u64::from(at)))?);
    loop {
        code = match code {
            // Behind a prefix with bit 0 it is a higher register's number, behind 8b and 8d no number at all.
            [.., before, 0xb8, low, high, 0, 0] if before & 0xf1 != 0x41 && before & 0xf9 != 0x89 => {
                return Some(u32::from(u16::from_le_bytes([*low, *high])));
            }
            [.., before, 0x31, 0xc0] if before & 0xf0 != 0x40 => return Some(0),
            // Behind a prefix with bit 2 it is r8 that is fetched; from 0x80 on it is from below the stack pointer.
            [.., before, 0x8b, 0x44, 0x24, at] if before & 0xf4 != 0x44 && *at < 0x80 => {
                return on_stack(*at);
            }
            [rest @ .., 0x8b, register, 0x24, _] if register & 0xc7 == 0x44 => match rest {
                [rest @ .., 0x40..=0x4f] => rest,
                _ => rest,
            },
            [.., 0x4c, 0x8b, 0x4c, 0x24, 0x10, 0x4c, 0x89, 0x5c, 0x24, 0x08] => break,
            _ => return None,
        }
    }
    let caller = code_before(word(stack)?)?;
    let is_known = |code: &&[u8]| {
        matches!(code, [0x4c, 0x89, 0xe6, 0x41, 0x51, ..] | [0x41, 0x50, 0x48, 0x8b, 0x74, 0x24, 0..0x78])
    };
    match caller.windows(7).rev().find(is_known)? {
        [0x4c, ..] => small(r12),
        [.., at] => on_stack(at.wrapping_add(8)),
        [] => None,
    }
}

/// The code that ends before `address`.
#[inline(never)]
fn code_before(address: u64) -> Option<[u8; 34]> {
    let mut code = [0; 34];
    (read_own(address.wrapping_sub(34), &mut code) == Ok(code.len())).then_some(code)
}

fn word(at: u64) -> Option<u64> {
    own_words(at).map(|[word]| word)
}

fn small(number: u64) -> Option<u32> {
    u32::try_from(number).ok()
}

/// Where call `number` has its time-out; `None` if the call must not be made again.
pub fn place(number: u32) -> Option<Place> {
    CALLS.iter().find(|(known, _)| u32::from(*known) == number).map(|(_, place)| *place)
}

/// When the time of a call is over, by `CLOCK_MONOTONIC`; `None` if it can be made again as it was made. `since` is
/// when it began, 0 if that is not known.
pub fn deadline(number: u32, place: Place, arguments: [u64; 5], since: u64) -> Option<u64> {
    const ABSOLUTE: u64 = 1;
    const OPERATION: u64 = 0x7f;
    /// Realtime, monotonic, boot time, atomic time: those that pass while nobody runs.
    const PASSING: u64 = 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11;
    let [first, second, third, fourth, fifth] = arguments;
    let rest = match place {
        Place::ThirdCounted => third,
        Place::FifthCounted => fifth,
        _ => 0,
    };
    if rest != 0 && !can_be_written(rest) {
        return None;
    }
    let rest = match number {
        // What the kernel noted as the rest is exact.
        NANOSLEEP => second,
        CLOCK_NANOSLEEP if second & ABSOLUTE != 0 || first > 63 || PASSING & (1 << first) == 0 => {
            return None;
        }
        CLOCK_NANOSLEEP => fourth,
        // FUTEX_WAIT alone has a relative time-out.
        FUTEX if second & OPERATION != 0 => return None,
        _ => rest,
    };
    if rest != 0 {
        return Some(clock::monotonic_ns().saturating_add(timespec(rest)?));
    }
    let milliseconds = |value: u64| {
        let value = u32::try_from(value & 0xffff_ffff).unwrap_or(0).cast_signed();
        u64::try_from(value).ok().map(|value| value * 1_000_000)
    };
    let descriptor = || u32::try_from(first & 0xffff_ffff).unwrap_or(0);
    let length = match place {
        Place::First => timespec(first),
        Place::Third => timespec(third),
        Place::Fourth => timespec(fourth),
        Place::ThirdMilliseconds => milliseconds(third),
        Place::FourthMilliseconds => milliseconds(fourth),
        Place::Receiving => socket::timeout_ns(descriptor(), false),
        Place::Sending => socket::timeout_ns(descriptor(), true),
        Place::Nowhere | Place::ThirdCounted | Place::FifthCounted => None,
    };
    length.filter(|_| since != 0).map(|length| since.saturating_add(length))
}

/// The time in the program's `struct timespec` at `at`, in nanoseconds.
fn timespec(at: u64) -> Option<u64> {
    let [seconds, nanoseconds] = own_words(at)?;
    Some(nanoseconds.saturating_add(u64::saturating_mul(seconds, 1_000_000_000)))
}
