//! Signal actions, pending signals and queued signals, by raw system calls: a libc hides the numbers 32 and
//! 33 and changes the layout.

use crate::raw::{nr, syscall};
use crate::{Errno, Fd};

/// Bytes of the kernel's signal set.
const SET_BYTES: usize = 8;
/// `SI_QUEUE`: sent by sigqueue(3) and its kin.
pub const SI_QUEUE: i32 = -1;

/// `struct kernel_sigaction` of `x86_64`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Action {
    /// Address of the handler; 0 for the default, 1 for ignore.
    pub handler: u64,
    /// `SA_*`
    pub flags: u64,
    /// Address of the function that the handler returns to.
    pub restorer: u64,
    /// Signals blocked in the handler, bit n-1 for signal n.
    pub mask: u64,
}

const _: () = assert!(size_of::<Action>() == 32, "struct kernel_sigaction has four words");

/// What happens on `signal`.
///
/// # Errors
/// `EINVAL` for a number that is no signal.
pub fn action(signal: u32) -> Result<Action, Errno> {
    let mut action = Action::default();
    let arguments = [signal as usize, 0, (&raw mut action).expose_provenance(), SET_BYTES, 0, 0];
    // SAFETY: the pointer is valid for the kernel's write of one action.
    unsafe { syscall(nr::RT_SIGACTION, arguments) }?;
    Ok(action)
}

/// Sets what happens on `signal`.
///
/// # Errors
/// `EINVAL` for a number that is no signal, and for SIGKILL and SIGSTOP.
///
/// # Safety
/// Handler and restorer are functions of the right kind for as long as the action stands, and the rest of
/// the program can live with them.
pub unsafe fn set_action(signal: u32, action: &Action) -> Result<(), Errno> {
    let arguments = [signal as usize, core::ptr::from_ref(action).expose_provenance(), 0, SET_BYTES, 0, 0];
    // SAFETY: the pointer is valid for reads of one action; the caller answers for its content.
    unsafe { syscall(nr::RT_SIGACTION, arguments) }.map(|_| ())
}

/// Signals that wait for the calling thread or its process and are blocked, bit n-1 for signal n.
///
/// # Errors
/// None that are known.
pub fn pending() -> Result<u64, Errno> {
    let mut set = 0_u64;
    // SAFETY: the pointer is valid for the kernel's write of one signal set.
    unsafe { syscall(nr::RT_SIGPENDING, [(&raw mut set).expose_provenance(), SET_BYTES, 0, 0, 0, 0]) }?;
    Ok(set)
}

/// What became of a signal that was to be queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// It will reach the thread.
    Queued,
    /// There is no such thread (any more).
    ThreadGone,
    /// `RLIMIT_SIGPENDING` is used up.
    QueueFull,
    /// The kernel or a filter of the program does not allow it.
    Forbidden(Errno),
}

/// What a queued signal carries, as a handler reads it from `siginfo_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload {
    /// `si_errno`, which the kernel hands on untouched.
    pub mark: i32,
    /// `si_value`.
    pub value: u64,
}

/// `siginfo_t` with the fields of `SI_QUEUE`, padded to the kernel's 128 bytes.
#[repr(C)]
struct QueuedInfo {
    signal: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pid: u32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<QueuedInfo>() == 128, "siginfo_t has 128 bytes");

/// Queues `signal` for thread `tid` of the process `pid` (rt_tgsigqueueinfo(2)).
#[must_use]
pub fn queue_to_thread(pid: u32, tid: u32, signal: u32, payload: Payload) -> Delivery {
    let info = QueuedInfo {
        signal: signal.cast_signed(),
        errno: payload.mark,
        code: SI_QUEUE,
        pad: 0,
        pid,
        uid: 0,
        value: payload.value,
        rest: [0; 12],
    };
    let pointer = (&raw const info).expose_provenance();
    let arguments = [pid as usize, tid as usize, signal as usize, pointer, 0, 0];
    // SAFETY: the pointer is valid for reads of one siginfo_t.
    match unsafe { syscall(nr::RT_TGSIGQUEUEINFO, arguments) } {
        Ok(_) => Delivery::Queued,
        Err(Errno::ESRCH) => Delivery::ThreadGone,
        Err(Errno::EAGAIN) => Delivery::QueueFull,
        Err(errno) => Delivery::Forbidden(errno),
    }
}

/// `siginfo_t` in words.
pub type Info = [u64; 16];

/// Becomes readable when a signal of `set` (bit n-1 for signal n) waits for the calling thread or for its process.
///
/// # Errors
/// Those of signalfd4(2).
pub fn descriptor(set: u64) -> Result<Fd, Errno> {
    /// `SFD_CLOEXEC | SFD_NONBLOCK`
    const FLAGS: usize = 0o2_004_000;
    let arguments = [usize::MAX, (&raw const set).expose_provenance(), SET_BYTES, FLAGS, 0, 0];
    // SAFETY: the kernel reads one signal set.
    Fd::from_result(unsafe { syscall(nr::SIGNALFD4, arguments) }?)
}

/// Takes the next signal of `set` (bit n-1 for signal n) that waits for the calling thread or, if none does, for
/// its process; does not wait for one.
#[must_use]
pub fn take(set: u64) -> Option<Info> {
    let mut info = Info::default();
    let at_once = [0_u64; 2];
    let pointers = [
        (&raw const set).expose_provenance(),
        (&raw mut info).expose_provenance(),
        at_once.as_ptr().expose_provenance(),
    ];
    let [set, pointer, timeout] = pointers;
    // SAFETY: the pointers are valid for one signal set, one siginfo_t and one struct timespec.
    unsafe { syscall(nr::RT_SIGTIMEDWAIT, [set, pointer, timeout, SET_BYTES, 0, 0]) }.ok()?;
    Some(info)
}

/// Queues `info`, as [`take`] gave it, for the calling thread `tid` or, without one, for its process `pid`. Only
/// the main thread may do the latter with signals that the kernel or kill(2) has sent.
///
/// # Errors
/// `EAGAIN` when `RLIMIT_SIGPENDING` is used up, `EPERM` as said above.
pub fn put_back(pid: u32, tid: Option<u32>, info: &Info) -> Result<(), Errno> {
    let [first, ..] = info;
    let number = usize::try_from(first & 0x7f).unwrap_or(0);
    let (pid, pointer) = (pid as usize, info.as_ptr().expose_provenance());
    let (call, arguments) = match tid {
        Some(tid) => (nr::RT_TGSIGQUEUEINFO, [pid, tid as usize, number, pointer, 0, 0]),
        None => (nr::RT_SIGQUEUEINFO, [pid, number, pointer, 0, 0, 0]),
    };
    // SAFETY: the pointer is valid for reads of one siginfo_t.
    unsafe { syscall(call, arguments) }.map(|_| ())
}

/// Sends `signal` to thread `tid` of the process `pid` as tgkill(2) does; whether the thread exists.
#[must_use]
pub fn send_to_thread(pid: u32, tid: u32, signal: u32) -> bool {
    // SAFETY: plain numbers; what the signal does is the program's own choice of action.
    let sent = unsafe { syscall(nr::TGKILL, [pid as usize, tid as usize, signal as usize, 0, 0, 0]) };
    sent != Err(Errno::ESRCH)
}

/// Whether there is a process with this id in the PID namespace.
#[must_use]
pub fn process_exists(pid: u32) -> bool {
    // SAFETY: plain numbers; signal 0 is none.
    let asked = unsafe { syscall(nr::KILL, [pid as usize, 0, 0, 0, 0, 0]) };
    asked != Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_signal_that_is_ignored_by_default_reaches_its_thread_and_nobody_else() {
        const SIGCHLD: u32 = 17;
        let (pid, tid) = (crate::thread::process_id(), crate::thread::thread_id());
        let payload = Payload { mark: 7, value: 9 };
        assert_eq!(queue_to_thread(pid, tid, SIGCHLD, payload), Delivery::Queued);
        assert_eq!(queue_to_thread(pid, 0x3fff_ffff, SIGCHLD, payload), Delivery::ThreadGone);
    }

    #[test]
    fn no_action_exists_beyond_the_last_signal() {
        assert_eq!(action(65), Err(Errno::EINVAL));
        assert!(action(64).is_ok());
    }
}
