//! A process that stands still and makes system calls for this one, which traces it meanwhile. Its memory, registers and signal
//! mask are as before behind each of them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::poll::{PollTimeout, poll};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sys::proc::maps;

use crate::config::{TRACEE_ATTEMPTS, TRACEE_PAUSE_MS, TRACEE_SPINS};

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Code of one mapping that is searched for it, in bytes.
const MOST_CODE: u64 = 1 << 20;
/// `__USER_CS`: 64-bit code.
const WIDE: u64 = 0x33;
/// Stops at calls are told from those for signals.
const TELL_CALLS: ptrace::Options = ptrace::Options::PTRACE_O_TRACESYSGOOD;
/// `PTRACE_O_SUSPEND_SECCOMP`: filters are not asked about what is not the program's own doing.
const SUSPEND_SECCOMP: ptrace::Options = ptrace::Options::from_bits_retain(1 << 21);
/// Below the stack pointer, beyond what a function may use there without moving it.
const BELOW_STACK: u64 = 1024;

/// It. Dropped, it is let go, and goes on or stands still as it would without this.
#[derive(Debug)]
pub(crate) struct Tracee {
    thread: Thread,
    memory: File,
    /// Where it can make a call.
    gate: u64,
    registers: user_regs_struct,
    mask: u64,
}

impl Tracee {
    /// Takes the first thread of a process.
    ///
    /// # Errors
    /// It cannot be traced, has no 64-bit code, or its first thread has ended.
    pub(crate) fn seize(pid: u32) -> io::Result<Self> {
        let thread = Thread::seize(pid)?;
        let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
        let registers = ptrace::getregs(thread.0)?;
        if registers.cs != WIDE {
            return Err(io::Error::other("it runs 32-bit code"));
        }
        let (gate, mask) = (gate(pid, &memory)?, sys::tracee::signal_mask(pid)?);
        Ok(Self { thread, memory, gate, registers, mask })
    }

    /// Makes a call that does not wait. Behind it the thread is as it was found: if this process dies then, it goes on.
    ///
    /// # Errors
    /// Its own, and that the process has ended.
    pub(crate) fn call(&self, number: i64, arguments: [u64; 3]) -> io::Result<()> {
        let result = self.result_of(number, arguments);
        if self.restore().is_err() {
            // It has not come back from the call in all that time.
            ptrace::interrupt(self.thread.0)?;
            self.thread.stop()?;
            self.restore()?;
        }
        match i32::try_from(-result?) {
            Ok(errno @ 1..=4095) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn result_of(&self, number: i64, [first, second, third]: [u64; 3]) -> io::Result<i64> {
        // Whatever waits for it is none of this call's business.
        sys::tracee::set_signal_mask(self.thread.id(), u64::MAX)?;
        let registers = user_regs_struct {
            rip: self.gate,
            rax: number.cast_unsigned(),
            // It is not in the middle of another one.
            orig_rax: u64::MAX,
            rdi: first,
            rsi: second,
            rdx: third,
            r10: 0,
            ..self.registers
        };
        ptrace::setregs(self.thread.0, registers)?;
        self.thread.to_call()?;
        self.thread.to_call()?;
        Ok(ptrace::getregs(self.thread.0)?.rax.cast_signed())
    }

    fn restore(&self) -> io::Result<()> {
        ptrace::setregs(self.thread.0, self.registers)?;
        Ok(sys::tracee::set_signal_mask(self.thread.id(), self.mask)?)
    }

    /// The same, with the address of `bytes` as the third argument.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub(crate) fn call_with(&self, number: i64, [first, second]: [u64; 2], bytes: &[u8]) -> io::Result<()> {
        let at = self.registers.rsp.saturating_sub(BELOW_STACK) & !63;
        let mut before = vec![0; bytes.len()];
        self.memory.read_exact_at(&mut before, at)?;
        self.memory.write_all_at(bytes, at)?;
        let done = self.call(number, [first, second, at]);
        self.memory.write_all_at(&before, at)?;
        done
    }
}

/// A thread that is traced.
#[derive(Debug)]
struct Thread(Pid);

impl Thread {
    /// Takes it and has it stand still.
    fn seize(thread: u32) -> io::Result<Self> {
        let thread = Pid::from_raw(thread.cast_signed());
        ptrace::seize(thread, TELL_CALLS | SUSPEND_SECCOMP).or_else(|_| ptrace::seize(thread, TELL_CALLS))?;
        let taken = Self(thread);
        ptrace::interrupt(thread)?;
        taken.stop()?;
        Ok(taken)
    }

    const fn id(&self) -> u32 {
        self.0.as_raw().cast_unsigned()
    }

    /// Lets it come to the next beginning or end of a call.
    fn to_call(&self) -> io::Result<()> {
        for _ in 0..TRACEE_ATTEMPTS {
            ptrace::syscall(self.0, None)?;
            // Another stop is of the one that it stands in already.
            if self.stop()? == Stop::Call {
                return Ok(());
            }
        }
        Err(Errno::ETIMEDOUT.into())
    }

    /// Waits until it stands still.
    fn stop(&self) -> io::Result<Stop> {
        for attempt in 0..TRACEE_ATTEMPTS {
            match waitpid(self.0, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))? {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Err(Errno::ESRCH.into()),
                WaitStatus::PtraceSyscall(_) => return Ok(Stop::Call),
                WaitStatus::StillAlive if attempt < TRACEE_SPINS => {}
                WaitStatus::StillAlive => _ = poll(&mut [], PollTimeout::from(TRACEE_PAUSE_MS)),
                _ => return Ok(Stop::Other),
            }
        }
        Err(Errno::ETIMEDOUT.into())
    }
}

impl Drop for Thread {
    /// Out of a stop as the one that it was found in: behind that the kernel makes the call again in which it was, if any.
    /// One that has ended needs nothing.
    fn drop(&mut self) {
        let _ = ptrace::interrupt(self.0);
        // It does not go on if it does not stand still.
        let _ = ptrace::cont(self.0, None);
        let _ = self.stop();
        let _ = ptrace::detach(self.0, None);
    }
}

/// Why a thread stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// At the beginning or the end of a call.
    Call,
    /// Anything else.
    Other,
}

/// Where there is a `syscall` in the code of a process; the vDSO has one, and it is short.
fn gate(pid: u32, memory: &File) -> io::Result<u64> {
    let text = fs::read(format!("/proc/{pid}/maps"))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mappings = lines.filter_map(|line| maps::parse_line(line).ok().flatten());
    let mut code: Vec<_> = mappings.filter(|mapping| mapping.protection.execute).collect();
    code.sort_by_key(|mapping| mapping.name != b"[vdso]");
    for mapping in code {
        let len = usize::try_from(mapping.range.len().min(MOST_CODE)).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        let start = mapping.range.start().0;
        let read = memory.read_at(&mut bytes, start).unwrap_or(0);
        let found =
            bytes.get(..read).unwrap_or_default().windows(SYSCALL.len()).position(|two| two == SYSCALL);
        if let Some(offset) = found {
            return Ok(start + offset as u64);
        }
    }
    Err(io::Error::other("it has no code that makes system calls"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use nix::libc;
    use nix::sys::signal::{SigSet, Signal};

    use super::*;

    #[test]
    fn it_makes_a_call_and_does_not_notice() {
        // It inherits what this thread blocks.
        let blocked = SigSet::from(Signal::SIGWINCH);
        blocked.thread_block().expect("a signal");
        let spawned = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        blocked.thread_unblock().expect("a signal");
        let mut child = spawned.expect("cat");
        let pid = child.id();
        let mask = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            status.lines().find_map(|line| line.strip_prefix("SigBlk:").map(str::to_owned))
        };
        let before = mask();
        assert!(before.as_ref().is_some_and(|mask| mask.contains('8')), "{before:?}");
        let state = || fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let tracee = Tracee::seize(pid).expect("our own child");
        // struct rlimit: RLIMIT_CORE is no more than 4096 bytes.
        let limit: Vec<u8> = [4096_u64, 4096].iter().flat_map(|word| word.to_le_bytes()).collect();
        let old = ptrace::getregs(Pid::from_raw(pid.cast_signed())).expect("it stands still").rsp;
        let asked = tracee.call_with(libc::SYS_prlimit64, [0, 4], &limit);
        asked.expect("it may have less");
        let error =
            tracee.call(libc::SYS_close, [u64::from(u32::MAX), 0, 0]).expect_err("no such descriptor");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert_eq!(tracee.registers.rsp, old);
        assert_eq!(sys::tracee::signal_mask(pid), Ok(tracee.mask));
        drop(tracee);
        assert_eq!(mask(), before);
        assert!(state().lines().any(|line| line.starts_with("Max core file size") && line.contains("4096")));
        // It was in the middle of read(2), and goes on with it.
        let mut input = child.stdin.take().expect("piped");
        io::Write::write_all(&mut input, b"on").expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.stdout.as_slice(), output.status.success()), (b"on".as_slice(), true));
    }
}
