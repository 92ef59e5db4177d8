//! What the kernel keeps for the calling process: children, limits, flags, timers.

use alloc::vec::Vec;

use protocol::{PROCESS_SETTINGS, ResourceLimit, TimerTimes};

use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, file, thread};

/// Whether the process has children, dead ones that nobody has waited for among them.
///
/// # Errors
/// Those of waitid(2), `ECHILD` excepted.
pub fn has_children() -> Result<bool, Errno> {
    const P_ALL: usize = 0;
    const WNOHANG: usize = 1;
    const WEXITED: usize = 4;
    const WNOWAIT: usize = 0x0100_0000;
    const ALL_KINDS: usize = 0x4000_0000;
    // The flags look without taking: no child is reaped.
    let flags = WNOHANG | WEXITED | WNOWAIT | ALL_KINDS;
    // SAFETY: without a siginfo_t the kernel writes nothing.
    match unsafe { syscall(nr::WAITID, [P_ALL, 0, 0, flags, 0, 0]) } {
        Ok(_) => Ok(true),
        Err(Errno::ECHILD) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Soft and hard limit of every resource, by number, 0 to 15.
///
/// # Errors
/// Those of prlimit64(2).
pub fn limits() -> Result<Vec<ResourceLimit>, Errno> {
    let mut limits = Vec::with_capacity(16);
    for resource in 0..16 {
        limits.push(limit(resource)?);
    }
    Ok(limits)
}

fn limit(resource: usize) -> Result<ResourceLimit, Errno> {
    let mut values = [0_u64; 2];
    let pointer = values.as_mut_ptr().expose_provenance();
    // SAFETY: nothing is set; the kernel writes one struct rlimit64 through the pointer.
    unsafe { syscall(nr::PRLIMIT64, [0, resource, 0, pointer, 0, 0]) }?;
    let [soft, hard] = values;
    Ok(ResourceLimit { soft, hard })
}

/// The session and the process group that the process is in; 0 for one whose leader is outside of its PID namespace.
#[must_use]
pub fn session_and_group() -> [u32; 2] {
    session_and_group_of(0)
}

/// The same of process `pid`, or of this one for 0.
#[must_use]
pub fn session_and_group_of(pid: u32) -> [u32; 2] {
    [nr::GETSID, nr::GETPGID].map(|number| {
        // SAFETY: plain numbers; nothing changes.
        let id = unsafe { syscall3(number, pid as usize, 0, 0) };
        id.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0)
    })
}

/// personality(2).
///
/// # Errors
/// None that are known.
pub fn personality() -> Result<u32, Errno> {
    const QUERY: usize = 0xffff_ffff;
    // SAFETY: a plain number that changes nothing.
    let persona = unsafe { syscall3(nr::PERSONALITY, QUERY, 0, 0) }?;
    u32::try_from(persona).map_err(|_| Errno::EOVERFLOW)
}

/// The end of the heap.
///
/// # Errors
/// None that are known.
pub fn program_break() -> Result<u64, Errno> {
    // SAFETY: a break of 0 is out of range, so that nothing changes.
    unsafe { syscall3(nr::BRK, 0, 0, 0) }.map(|end| end as u64)
}

/// The commands of membarrier(2) that the process is registered for, as bits; none where the kernel does not tell.
#[must_use]
pub fn barrier_registrations() -> u32 {
    const GET_REGISTRATIONS: usize = 1 << 9;
    // SAFETY: plain numbers; nothing changes.
    let bits = unsafe { syscall3(nr::MEMBARRIER, GET_REGISTRATIONS, 0, 0) };
    bits.ok().and_then(|bits| u32::try_from(bits).ok()).unwrap_or(0)
}

/// A flag that prctl(2) reads back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flag {
    /// `PR_GET_DUMPABLE`
    Dumpable,
    /// `PR_GET_KEEPCAPS`
    KeepCapabilities,
    /// `PR_GET_THP_DISABLE`
    ThpDisable,
    /// `PR_GET_CHILD_SUBREAPER`
    ChildSubreaper,
    /// `PR_GET_SECCOMP`, of the calling thread: 0 for none. One under strict seccomp does not survive the question.
    Seccomp,
}

/// The value of `flag`.
///
/// # Errors
/// Those of prctl(2).
pub fn flag(flag: Flag) -> Result<u32, Errno> {
    const PR_GET_DUMPABLE: usize = 3;
    const PR_GET_KEEPCAPS: usize = 7;
    const PR_GET_SECCOMP: usize = 21;
    const PR_GET_CHILD_SUBREAPER: usize = 37;
    const PR_GET_THP_DISABLE: usize = 42;
    let mut value = 0_u32;
    let pointer = (&raw mut value).expose_provenance();
    let (option, argument) = match flag {
        Flag::Dumpable => (PR_GET_DUMPABLE, 0),
        Flag::KeepCapabilities => (PR_GET_KEEPCAPS, 0),
        Flag::ThpDisable => (PR_GET_THP_DISABLE, 0),
        Flag::Seccomp => (PR_GET_SECCOMP, 0),
        Flag::ChildSubreaper => (PR_GET_CHILD_SUBREAPER, pointer),
    };
    // SAFETY: only PR_GET_CHILD_SUBREAPER takes a pointer, to one int that the kernel writes.
    let result = unsafe { syscall(nr::PRCTL, [option, argument, 0, 0, 0, 0]) }?;
    if argument == 0 { u32::try_from(result).map_err(|_| Errno::EOVERFLOW) } else { Ok(value) }
}

/// What prctl(2) reads back by each `PR_GET_*` of [`protocol::PROCESS_SETTINGS`]; 0 where the kernel does not know it.
#[must_use]
pub fn settings() -> Vec<u32> {
    let mut values = Vec::with_capacity(PROCESS_SETTINGS.len());
    for (get, _) in PROCESS_SETTINGS {
        // SAFETY: plain numbers: none of these takes a pointer.
        let value = unsafe { syscall(nr::PRCTL, [get as usize, 0, 0, 0, 0, 0]) };
        values.push(value.ok().and_then(|value| u32::try_from(value).ok()).unwrap_or(0));
    }
    values
}

/// Sets `PR_SET_DUMPABLE` to 0 or 1: with 0 the process's own files under `/proc` belong to root.
///
/// # Errors
/// `EINVAL` for another value.
pub fn set_dumpable(value: u32) -> Result<(), Errno> {
    const PR_SET_DUMPABLE: usize = 4;
    // SAFETY: plain numbers.
    unsafe { syscall(nr::PRCTL, [PR_SET_DUMPABLE, value as usize, 0, 0, 0, 0]) }.map(|_| ())
}

/// What setitimer(2) has armed: real, virtual and profiling timer.
///
/// # Errors
/// Those of getitimer(2).
pub fn interval_timers() -> Result<[TimerTimes; 3], Errno> {
    let mut timers = [TimerTimes::default(); 3];
    for (which, timer) in timers.iter_mut().enumerate() {
        // struct itimerval: interval and value, seconds and microseconds each.
        let mut times = [0_u64; 4];
        // SAFETY: the kernel writes one struct itimerval through the pointer.
        unsafe { syscall3(nr::GETITIMER, which, times.as_mut_ptr().expose_provenance(), 0) }?;
        *timer = pair(times, 1000);
    }
    Ok(timers)
}

/// Interval and time left of the timer that timer_create(2) called `id`.
///
/// # Errors
/// `EINVAL` when there is no such timer.
pub fn timer(id: u32) -> Result<TimerTimes, Errno> {
    let mut times = [0_u64; 4];
    // SAFETY: the kernel writes one struct itimerspec through the pointer.
    unsafe { syscall3(nr::TIMER_GETTIME, id as usize, times.as_mut_ptr().expose_provenance(), 0) }?;
    Ok(pair(times, 1))
}

/// Interval and value of a timer in nanoseconds; `unit` is how many of them its fractions count.
fn pair([interval, interval_fraction, value, value_fraction]: [u64; 4], unit: u64) -> TimerTimes {
    const SECOND: u64 = 1_000_000_000;
    let total = |seconds: u64, fraction: u64| {
        seconds.saturating_mul(SECOND).saturating_add(fraction.saturating_mul(unit))
    };
    TimerTimes { interval_ns: total(interval, interval_fraction), remaining_ns: total(value, value_fraction) }
}

/// Whether the process has asked for the AMX tile registers (`ARCH_GET_XCOMP_PERM`).
#[must_use]
pub fn may_use_tiles() -> bool {
    const ARCH_GET_XCOMP_PERM: usize = 0x1022;
    const TILE_DATA: u64 = 1 << 18;
    let mut components = 0_u64;
    let pointer = (&raw mut components).expose_provenance();
    // SAFETY: the kernel writes one word through the pointer.
    let asked = unsafe { syscall3(nr::ARCH_PRCTL, ARCH_GET_XCOMP_PERM, pointer, 0) };
    asked.is_ok() && components & TILE_DATA != 0
}

/// Whether the machine has swap space in which pages of shared memory may hide from mincore(2).
#[must_use]
pub fn machine_has_swap() -> bool {
    const LIMIT: usize = 1 << 20;
    // The first line is the heading.
    file::read_file(c"/proc/swaps", LIMIT)
        .is_ok_and(|list| list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() > 1)
}

/// The ids of all threads but the calling one, the main thread first, then ascending.
///
/// # Errors
/// Those of open(2) and getdents64(2).
pub fn other_threads() -> Result<Vec<u32>, Errno> {
    let (main, own) = (thread::process_id(), thread::thread_id());
    let tasks = file::numeric_entries(c"/proc/self/task")?;
    let mut threads = Vec::with_capacity(tasks.len());
    for is_main in [true, false] {
        for tid in &tasks {
            if *tid != own && (*tid == main) == is_main {
                threads.push(*tid);
            }
        }
    }
    Ok(threads)
}

/// From here on a panic ends the process, when it has been reported: nothing goes on, or is undone, behind a broken promise.
#[cfg(feature = "std")]
pub fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(std::boxed::Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_noticed_until_they_are_waited_for() {
        let mut child = std::process::Command::new("true").spawn().expect("true is everywhere");
        assert_eq!(has_children(), Ok(true));
        child.wait().expect("it ends");
    }

    #[test]
    fn limits_are_those_of_the_libc() {
        let limits = limits().expect("readable");
        assert_eq!(limits.len(), 16);
        assert!(limits.iter().all(|limit| limit.soft <= limit.hard));
    }

    #[test]
    fn an_ordinary_process_is_dumpable_and_has_no_timer() {
        assert_eq!(flag(Flag::Dumpable), Ok(1));
        assert_eq!(flag(Flag::ChildSubreaper), Ok(0));
        assert_eq!(interval_timers(), Ok([TimerTimes::default(); 3]));
        assert_eq!(timer(7), Err(Errno::EINVAL));
        assert!(!may_use_tiles());
        assert!(program_break().is_ok_and(|end| end != 0));
        assert!(personality().is_ok());
    }
}
