//! Hiding the parasite's signals from system calls.
//!
//! `SA_RESTART` repeats most interrupted calls, but some return `EINTR` whatever the flag says (signal(7)): sleeps,
//! poll and its kin, waits with a time-out. The program asked for none of these signals, so the call is made again. One
//! that began its time-out before is made again for what is left of it, by the resident half's continuation (`sender-lib/src/ffi/continuation.rs`).
//!
//! Which call a thread was in is looked up before it gets its signal (`sender-lib/body/src/quiesce/calls.rs`). Where nobody looked, the code
//! says it: glibc has `mov eax, NUMBER` in front of `syscall` in every wrapper. Such a time-out begins anew.

use sys::clock;
use sys::descriptor::socket;
use sys::own_memory::{can_be_written, read_own};

/// Bytes of `mov eax, imm32` and `syscall`.
pub const CODE_BYTES: usize = 7;

/// Where a call has its time-out; the numbers are those that the continuation branches on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
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
const CALLS: [(u32, Place); 25] = [
    (0, Place::Receiving),            // read
    (1, Place::Sending),              // write
    (7, Place::ThirdMilliseconds),    // poll
    (23, Place::Nowhere),             // select
    (34, Place::Nowhere),             // pause
    (NANOSLEEP, Place::First),        //
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
    (FUTEX, Place::Fourth),           //
    (220, Place::Fourth),             // semtimedop
    (CLOCK_NANOSLEEP, Place::Third),  //
    (232, Place::FourthMilliseconds), // epoll_wait
    (270, Place::FifthCounted),       // pselect6
    (271, Place::ThirdCounted),       // ppoll
    (281, Place::FourthMilliseconds), // epoll_pwait
    (288, Place::Receiving),          // accept4
    (441, Place::Fourth),             // epoll_pwait2
];

/// The number of the call that `code`, up to the interrupted instruction's end, made; `None` if it cannot be told.
pub fn call_of(code: [u8; CODE_BYTES]) -> Option<u32> {
    const MOV_EAX: u8 = 0xb8;
    let [MOV_EAX, n0, n1, n2, n3, 0x0f, 0x05] = code else { return None };
    Some(u32::from_le_bytes([n0, n1, n2, n3]))
}

/// Where call `number` has its time-out; `None` if the call must not be made again.
pub fn place(number: u32) -> Option<Place> {
    CALLS.iter().find(|(known, _)| *known == number).map(|(_, place)| *place)
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
    let mut bytes = [0; 16];
    if at == 0 || read_own(at, &mut bytes) != Ok(bytes.len()) {
        return None;
    }
    let [seconds, nanoseconds] = [0, 8].map(|from| bytes.iter().skip(from).take(8).rev().fold(0, fold));
    Some(nanoseconds.saturating_add(u64::saturating_mul(seconds, 1_000_000_000)))
}

const fn fold(sum: u64, byte: &u8) -> u64 {
    sum << 8 | *byte as u64
}
