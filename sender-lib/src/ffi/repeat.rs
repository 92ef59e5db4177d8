//! An interrupted system call is made again: the changes to the signal frame of its thread.

use sender_seam::restart::{self, CODE_BYTES, Call, Interrupted};
use sys::own_memory::read_own;
use sys::signal_frame::{Register, get, set};

use super::continuation;

const EINTR: u64 = (-4_i64).cast_unsigned();

/// Lets an interrupted system call be made again, if it is one of those that would return `EINTR`; then says how it is
/// given up. `call` is what the thread was seen in.
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
