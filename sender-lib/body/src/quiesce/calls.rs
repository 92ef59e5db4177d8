//! Which system call each thread is in and since when, and whether it is anything but a plain one, looked up before it is
//! interrupted; and which of these calls the program itself interrupts.
//!
//! A thread that sleeps has last run when its call began. `/proc` tells when that was, by the clock of the processor that
//! it ran on; how that clock stands to `CLOCK_MONOTONIC` is found by running on that processor.

use alloc::vec::Vec;

use protocol::{SignalInfo, ThreadRecord};
use sender_seam::restart::{self, Call, Place};
use sys::number::{decimal, hexadecimal, words};
use sys::path::KernelPath;
use sys::proc::stat::processor;
use sys::proc::status::{self, Status};
use sys::{clock, file, signal, thread};

use crate::arena::Header;
use crate::ffi;

/// What was found out of the threads that sleep while the program ran.
#[derive(Default)]
pub(crate) struct Clocks {
    /// How the processors' clocks stand to `CLOCK_MONOTONIC`, as far as that was asked.
    ahead: Vec<(u32, u64)>,
    /// In the order of the list of threads.
    asleep: Vec<Sleeper>,
    /// How many of these have been asked for.
    asked: usize,
}

/// A thread in a call.
#[derive(Clone, Copy)]
pub(super) struct Sleeper {
    tid: u32,
    /// How long it had run by then, in nanoseconds; `None` if that is not known.
    has_run: Option<u64>,
    pub(super) call: Call,
    /// It was who the helper is, and had not given up new privileges.
    is_plain: bool,
}

impl Sleeper {
    /// Whether it is known to be who the helper is. Right behind the signal that interrupts it: who has not run by then runs
    /// no instruction of the program any more, but for a handler of signal 33 that was sent before (`State::host_signals`).
    pub(super) fn is_still_plain(self) -> bool {
        self.is_plain && self.has_run.is_some() && clock::run_time_ns(self.tid) == self.has_run
    }
}

impl Clocks {
    /// Remembers the call that thread `tid` sleeps in, and who it is beside `own`, the helper, if that will be asked.
    pub(super) fn look_at(&mut self, tid: u32, own: Option<&Status>) {
        let has_run = clock::run_time_ns(tid);
        let Some(call) = self.find_call_of(tid) else { return };
        let is_plain = own.is_some_and(|own| {
            status::of_thread(tid).is_ok_and(|status| {
                !status.no_new_privileges && capture::credentials_beside(&status, own).is_none()
            })
        });
        self.asleep.push(Sleeper { tid, has_run, call, is_plain });
    }

    /// Thread `tid` if it sleeps in a call. Whoever has not run since it was looked at sleeps in the same one.
    pub(super) fn sleeper(&mut self, tid: u32) -> Option<Sleeper> {
        let rest = self.asleep.get(self.asked..).unwrap_or_default();
        if let Some(at) = rest.iter().position(|sleeper| sleeper.tid == tid) {
            self.asked += at + 1;
            let has_run = clock::run_time_ns(tid);
            if let Some(known) = rest.get(at).filter(|known| has_run.is_some() && known.has_run == has_run) {
                return Some(*known);
            }
        }
        let call = self.find_call_of(tid)?;
        Some(Sleeper { tid, has_run: None, call, is_plain: false })
    }

    fn find_call_of(&mut self, tid: u32) -> Option<Call> {
        let line = read(tid, "/syscall");
        let line = line.trim_ascii_end();
        let number = u32::try_from(decimal(words(line).next()?)?).ok()?;
        let behind = hexadecimal(words(line).last()?.strip_prefix(b"0x")?)?;
        let is_timed = restart::place(number).is_some_and(|place| place != Place::Nowhere);
        let since = if is_timed { self.asleep_since(tid) } else { None };
        Some(Call { number, behind, since: since.unwrap_or(0) })
    }

    fn asleep_since(&mut self, tid: u32) -> Option<u64> {
        let processor = processor(&read(tid, "/stat"))?;
        let known = self.ahead.iter().find(|(of, _)| *of == processor).map(|(_, ahead)| *ahead);
        let ahead = match known {
            Some(ahead) => ahead,
            None => {
                let ahead = thread::on_processor(processor, || {
                    Some(clock::monotonic_ns().wrapping_sub(last_run(thread::thread_id())?))
                })?;
                self.ahead.push((processor, ahead));
                ahead
            }
        };
        Some(last_run(tid)?.wrapping_add(ahead))
    }
}

/// When thread `tid` has last run, in nanoseconds of its processor's clock.
fn last_run(tid: u32) -> Option<u64> {
    let text = read(tid, "/sched");
    let line = text.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"se.exec_start "))?;
    // Milliseconds with six decimals.
    let digits: Vec<u8> = words(line).last()?.iter().copied().filter(|byte| *byte != b'.').collect();
    decimal(&digits)
}

fn read(tid: u32, what: &str) -> Vec<u8> {
    const LIMIT: usize = 16 << 10;
    file::read_file(KernelPath::numbered("/proc/self/task/", tid, what).as_c_str(), LIMIT).unwrap_or_default()
}

/// Gives up the calls that the program's own signals interrupt: those that came while the threads came to rest wait for
/// them, and a call that is made again would not see them. `threads` are in the order of their seats.
pub(super) fn interrupt(header: &Header, threads: &[ThreadRecord], shared: &[SignalInfo]) {
    const SA_RESTART: u64 = 0x1000_0000;
    let mut shared = shared;
    for ((_, seat), record) in header.seats_in_use().zip(threads) {
        let (frame, was) = seat.interrupted();
        let blocked = ffi::blocked_at(frame);
        let handler = |info: &SignalInfo| {
            let number = u32::try_from(info.number()).ok()?;
            let is_blocked = blocked >> (number - 1) & 1 != 0;
            signal::action(number).ok().filter(|action| !is_blocked && action.handler > 1)
        };
        let is_shared = shared.iter().any(|info| handler(info).is_some());
        let Some(action) = record.pending.iter().chain(shared).find_map(handler) else { continue };
        if is_shared {
            // One thread takes them.
            shared = &[];
        }
        if let Some(was) = was.filter(|was| !was.by_kernel || action.flags & SA_RESTART == 0) {
            ffi::interrupt(frame, was);
        }
    }
}
