//! Syscall programs: operations and their data, made and checked here, run in the blank child.

use memory::{Addr, PageRange};
use nix::libc;

use super::Step;
use super::layout::OP_BYTES;
use super::trampoline::{COPY, JUMP, LEAVE, MUST_NOT_BE_ZERO, MUST_SUCCEED, OR_END, THREAD};

/// One operation; the layout that the trampoline reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Op {
    number: i32,
    flags: u32,
    arguments: [u64; 6],
    step: Step,
}

/// Names one operation of one program, to ask for its result or to fill in an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(usize);

impl Slot {
    /// Its place in the program, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// A list of operations that will stand at one address, and data that will stand at another.
#[derive(Clone, Debug)]
pub struct Program {
    ops_at: Addr,
    data_at: Addr,
    ops: Vec<Op>,
    data: Vec<u8>,
    step: Step,
}

impl Program {
    /// An empty program whose operations and data will be at these addresses of the child.
    #[must_use]
    pub const fn at(ops_at: Addr, data_at: Addr) -> Self {
        Self { ops_at, data_at, ops: Vec::new(), data: Vec::new(), step: Step::Probe }
    }

    /// Says what the operations from here on are for.
    pub const fn step(&mut self, step: Step) -> &mut Self {
        self.step = step;
        self
    }

    /// Where the first operation will be.
    #[must_use]
    pub const fn start(&self) -> Addr {
        self.ops_at
    }

    /// How many operations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// What operation `index` is for.
    #[must_use]
    pub fn step_of(&self, index: usize) -> Option<Step> {
        self.ops.get(index).map(|op| op.step)
    }

    /// The data so far.
    #[must_use]
    pub fn data_bytes(&self) -> &[u8] {
        &self.data
    }

    /// Where the data will be.
    #[must_use]
    pub const fn data_start(&self) -> Addr {
        self.data_at
    }

    /// Puts `bytes` among the data, aligned to 16, and returns their address.
    pub fn data(&mut self, bytes: &[u8]) -> Addr {
        self.data.resize(self.data.len().next_multiple_of(16), 0);
        let at = Addr(self.data_at.0 + self.data.len() as u64);
        self.data.extend_from_slice(bytes);
        at
    }

    /// Puts `bytes` and a closing zero byte among the data.
    pub fn c_string(&mut self, bytes: &[u8]) -> Addr {
        let at = self.data(bytes);
        self.data.push(0);
        at
    }

    /// Puts `words` among the data.
    pub fn words(&mut self, words: &[u64]) -> Addr {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.data(&bytes)
    }

    fn push(&mut self, number: i32, flags: u32, arguments: [u64; 6]) -> Slot {
        self.ops.push(Op { number, flags, arguments, step: self.step });
        Slot(self.ops.len() - 1)
    }

    /// A system call that must succeed.
    pub fn call<const N: usize>(&mut self, number: libc::c_long, arguments: [u64; N]) -> Slot {
        self.push(call_number(number), MUST_SUCCEED, six(arguments))
    }

    /// A system call whose error ends the process at once: behind the point where a program can fail.
    pub fn call_or_end<const N: usize>(&mut self, number: libc::c_long, arguments: [u64; N]) -> Slot {
        self.push(call_number(number), MUST_SUCCEED | OR_END, six(arguments))
    }

    /// A system call whose error is no failure.
    pub fn attempt<const N: usize>(&mut self, number: libc::c_long, arguments: [u64; N]) -> Slot {
        self.push(call_number(number), 0, six(arguments))
    }

    /// A system call that must return more than zero.
    pub fn call_nonzero<const N: usize>(&mut self, number: libc::c_long, arguments: [u64; N]) -> Slot {
        self.push(call_number(number), MUST_SUCCEED | MUST_NOT_BE_ZERO, six(arguments))
    }

    /// Goes on at another operation.
    pub fn jump(&mut self, to: Addr) -> Slot {
        self.push(JUMP, 0, six([to.0]))
    }

    /// `clone3` with the arguments at `clone_args`; the new thread goes on at `first`.
    pub fn thread(&mut self, clone_args: Addr, len: u64, first: Addr) -> Slot {
        self.push(THREAD, MUST_SUCCEED, six([clone_args.0, len, first.0]))
    }

    /// Copies the word at `from` to `to`.
    pub fn copy(&mut self, from: Addr, to: Addr) -> Slot {
        self.push(COPY, 0, six([from.0, to.0]))
    }

    /// A system call that must succeed, some of whose arguments are words of the hole when it is made: each
    /// `(index, from)` copies the word at `from` into argument `index` first.
    pub fn call_with<const N: usize>(
        &mut self,
        number: libc::c_long,
        arguments: [u64; N],
        words: &[(usize, Addr)],
    ) -> Slot {
        self.fill_in(words);
        self.call(number, arguments)
    }

    /// As [`Self::call_with`], but an error is no failure.
    pub fn attempt_with<const N: usize>(
        &mut self,
        number: libc::c_long,
        arguments: [u64; N],
        words: &[(usize, Addr)],
    ) -> Slot {
        self.fill_in(words);
        self.attempt(number, arguments)
    }

    /// Copies words of the hole into arguments of the operation behind the copies.
    fn fill_in(&mut self, words: &[(usize, Addr)]) {
        let call = Slot(self.ops.len() + words.len());
        for &(index, from) in words {
            self.copy(from, self.argument(call, index));
        }
    }

    /// Leaves by the gate, with what the gate expects in its registers.
    pub fn leave(&mut self, counter: Addr, hole: PageRange, frame: Addr, gate: Addr) -> Slot {
        self.push(LEAVE, 0, six([counter.0, hole.start().0, hole.len(), frame.0, gate.0]))
    }

    const fn argument(&self, slot: Slot, index: usize) -> Addr {
        Addr(self.ops_at.0 + slot.0 as u64 * OP_BYTES + 8 + index as u64 * 8)
    }

    /// Address of an operation's result, for [`Self::call_with`].
    #[must_use]
    pub const fn result(&self, slot: Slot) -> Addr {
        Addr(self.ops_at.0 + slot.0 as u64 * OP_BYTES + 56)
    }

    /// The operations as the trampoline reads them.
    #[must_use]
    pub fn op_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.ops.len() * 64);
        for op in &self.ops {
            bytes.extend_from_slice(&op.number.to_le_bytes());
            bytes.extend_from_slice(&op.flags.to_le_bytes());
            bytes.extend(op.arguments.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend_from_slice(&0_u64.to_le_bytes());
        }
        bytes
    }
}

/// System calls that need more than a list of numbers.
impl Program {
    /// `munmap(2)`
    pub fn unmap(&mut self, range: PageRange) -> Slot {
        self.call(libc::SYS_munmap, [range.start().0, range.len()])
    }

    /// `close(2)`
    pub fn close(&mut self, fd: u32) -> Slot {
        self.call(libc::SYS_close, [u64::from(fd)])
    }

    /// `recvmsg(2)`: receives one descriptor from the control socket, at the lowest free number. Returns where
    /// that number will stand, for [`Self::call_with`] (the upper half is zero).
    pub fn receive(&mut self, control: u32, close_on_exec: bool) -> Addr {
        const MSG_CMSG_CLOEXEC: u64 = 0x4000_0000;
        /// `CMSG_SPACE(sizeof(int))`: a header of 16 bytes, then the number.
        const CONTROL_BYTES: u64 = 24;
        let buffer = self.words(&[0]);
        let rights = self.words(&[0, 0, 0, 0]);
        let vector = self.words(&[buffer.0, 1]);
        let message = self.words(&[0, 0, vector.0, 1, rights.0, CONTROL_BYTES, 0]);
        let flags = if close_on_exec { MSG_CMSG_CLOEXEC } else { 0 };
        self.call_nonzero(libc::SYS_recvmsg, [u64::from(control), message.0, flags]);
        Addr(rights.0 + 16)
    }

    /// `futex(2)`: waits until the word at `word` is not zero.
    pub fn wait_for(&mut self, word: Addr) -> Slot {
        const FUTEX_WAIT_PRIVATE: u64 = 128;
        self.attempt(libc::SYS_futex, [word.0, FUTEX_WAIT_PRIVATE, 0, 0])
    }

    /// `futex(2)`: sets the word at `word` to one and wakes everybody who waits for it, in one call.
    pub fn set_and_wake(&mut self, word: Addr) -> Slot {
        self.set_and_wake_some(word, EVERYBODY)
    }

    /// The same, but wakes one: who is woken has to [`Self::wake`] the others.
    pub fn set_and_wake_one(&mut self, word: Addr) -> Slot {
        self.set_and_wake_some(word, 1)
    }

    fn set_and_wake_some(&mut self, word: Addr, count: u64) -> Slot {
        const FUTEX_WAKE_OP_PRIVATE: u64 = 5 | 128;
        /// `FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0)`
        const SET_TO_ONE: u64 = 1 << 12;
        self.call(libc::SYS_futex, [word.0, FUTEX_WAKE_OP_PRIVATE, count, 0, word.0, SET_TO_ONE])
    }

    /// `futex(2)`: wakes everybody who waits for the word at `word`.
    pub fn wake(&mut self, word: Addr) -> Slot {
        const FUTEX_WAKE_PRIVATE: u64 = 1 | 128;
        self.call(libc::SYS_futex, [word.0, FUTEX_WAKE_PRIVATE, EVERYBODY])
    }

    /// `futex(2)`: waits while the word at `word`, which the kernel sets to zero at a thread's end, is one.
    pub fn wait_for_end(&mut self, word: Addr) -> Slot {
        const FUTEX_WAIT: u64 = 0;
        self.attempt(libc::SYS_futex, [word.0, FUTEX_WAIT, 1, 0])
    }
}

/// As many as there are.
const EVERYBODY: u64 = i32::MAX as u64;

fn call_number(number: libc::c_long) -> i32 {
    i32::try_from(number).expect("the kernel's system call numbers are three digits")
}

fn six<const N: usize>(arguments: [u64; N]) -> [u64; 6] {
    const { assert!(N <= 6, "a system call has six arguments") };
    let mut all = [0; 6];
    for (slot, argument) in all.iter_mut().zip(arguments) {
        *slot = argument;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_laid_out_as_the_trampoline_reads_it() {
        let mut program = Program::at(Addr(0x10000), Addr(0x20000));
        let slot = program.call(libc::SYS_munmap, [0x1000, 0x2000]);
        program.jump(Addr(0x9000));
        let bytes = program.op_bytes();
        assert_eq!(bytes.len(), 128);
        assert_eq!(bytes[..4], 11_i32.to_le_bytes());
        assert_eq!(bytes[4..8], 1_u32.to_le_bytes());
        assert_eq!(bytes[16..24], 0x2000_u64.to_le_bytes());
        assert_eq!(bytes[64..68], (-1_i32).to_le_bytes());
        assert_eq!(program.argument(slot, 1), Addr(0x10010));
        assert_eq!(program.result(slot), Addr(0x10038));
    }

    #[test]
    fn data_is_aligned_and_keeps_its_address() {
        let mut program = Program::at(Addr(0x10000), Addr(0x20000));
        assert_eq!(program.c_string(b"abc"), Addr(0x20000));
        assert_eq!(program.words(&[7]), Addr(0x20010));
        assert_eq!(program.data_bytes()[..4], *b"abc\0");
        assert_eq!(program.data_bytes()[16..], 7_u64.to_le_bytes());
    }
}
