//! An interrupted system call is made again: the changes to the signal frame of its thread.

use sender_seam::restart::{self, Call, Interrupted};
use sys::own_memory::own_words;
use sys::signal_frame::{Register, get, set};

use super::continuation;

const EINTR: u64 = (-4_i64).cast_unsigned();

/// Lets an interrupted system call be made again, if it is one of those that would return `EINTR`; then says how it is
/// given up. `call` is what the thread was seen in, `signal` what the handler is for.
///
/// # Safety
/// `context` is the third argument of a handler with `SA_SIGINFO` that has not returned yet.
pub(super) unsafe fn repeat_interrupted_call(
    context: *mut u8,
    call: Option<Call>,
    signal: u32,
) -> Option<Interrupted> {
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
        None => (restart::number_before(instruction, stack, read(Register::R12))?, 0),
    };
    let place = restart::place(number)?;
    let mask = match number {
        130 => read(Register::First),                                 // rt_sigsuspend
        270 => own_words(read(Register::Sixth)).map_or(0, |[at]| at), // pselect6
        271 => read(Register::Fourth),                                // ppoll
        281 | 441 => read(Register::Fifth),                           // epoll_pwait, epoll_pwait2
        _ => 0,
    };
    if own_words(mask).is_some_and(|[blocked]| blocked >> signal.wrapping_sub(1) & 1 == 1) {
        // The call's own mask blocks this signal: another one has ended it, and this one came when it was over.
        return None;
    }
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
