//! New processes by `clone3(2)`: in namespaces of their own, or with a chosen process id.
//!
//! Only for single-threaded processes: the child is a copy of the calling thread alone, and a lock that
//! another thread holds would stay locked in it for ever.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, file};

/// Who returned from [`birth`].
#[derive(Debug)]
pub enum Birth {
    /// The caller.
    Parent(Child),
    /// The new process; it has copies of all memory and descriptors.
    Child,
}

/// A process that was just made.
#[derive(Debug)]
pub struct Child {
    /// Its id in the caller's PID namespace.
    pub pid: i32,
    /// A descriptor that becomes readable when it ends; close-on-exec.
    pub pidfd: OwnedFd,
}

/// Why there is no new process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BirthError {
    /// The caller has more than one thread.
    #[error("the process has {0} threads, and only the calling one would live on in its child")]
    Threads(usize),
    /// The threads of the caller could not be counted.
    #[error("counting the threads of this process in /proc/self/task")]
    Count(#[source] Errno),
    /// `clone3(2)`
    #[error("clone3")]
    Clone(#[source] Errno),
}

/// What is special about a new process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The first process of a new PID namespace, in a new mount namespace (`CAP_SYS_ADMIN`).
    FirstOfNamespaces,
    /// The same in a new user namespace, where it has every capability.
    FirstOfOwnNamespaces,
    /// A process with this id in the caller's PID namespace (Linux 5.5, `CAP_CHECKPOINT_RESTORE`).
    WithId(u32),
    /// A process with this id in the caller's PID namespace and in the one around that (in both `CAP_CHECKPOINT_RESTORE`).
    WithIdInBoth(u32),
    /// A copy of the caller, with nothing of its own.
    Copy,
    /// A sibling of the caller: a child of its parent, which shares the caller's descriptors from here on.
    Sibling,
    /// A process with this id that shares the caller's descriptors from here on. [`reap`] does not see it, [`end`] does.
    Keeper(u32),
}

/// Puts the children that the caller makes from now on into a time namespace of their own (Linux 5.6), with clocks that
/// are ahead of the machine's by `offsets`, written as `/proc/self/timens_offsets` takes them.
///
/// # Errors
/// Those of unshare(2) and of writing the file: without `CAP_SYS_TIME` `EPERM`.
pub fn new_time_namespace(offsets: &str) -> Result<(), Errno> {
    const CLONE_NEWTIME: usize = 0x80;
    const WRITE_ONLY: usize = 1;
    // SAFETY: a plain number; nothing of the caller itself changes.
    unsafe { syscall3(nr::UNSHARE, CLONE_NEWTIME, 0, 0) }?;
    file::write_all(&file::open(c"/proc/self/timens_offsets", WRITE_ONLY)?, offsets.as_bytes())
}

/// Moves the calling process, and the children that it makes, into an IPC namespace of its own.
///
/// # Errors
/// Those of unshare(2): without `CAP_SYS_ADMIN` `EPERM`, in a kernel without such namespaces `EINVAL`.
pub fn new_ipc_namespace() -> Result<(), Errno> {
    const CLONE_NEWIPC: usize = 0x800_0000;
    // SAFETY: a plain number; no memory changes.
    unsafe { syscall3(nr::UNSHARE, CLONE_NEWIPC, 0, 0) }.map(|_| ())
}

/// Moves the calling process into a network namespace of its own; if it has no right to that, into one of a user namespace
/// of its own. Its sockets stay where they are.
///
/// # Errors
/// Those of unshare(2).
pub fn new_network_namespace() -> Result<(), Errno> {
    const CLONE_NEWUSER: usize = 0x1000_0000;
    const CLONE_NEWNET: usize = 0x4000_0000;
    let attempt = |flags: usize| {
        // SAFETY: a plain number; no memory changes.
        unsafe { syscall3(nr::UNSHARE, flags, 0, 0) }
    };
    attempt(CLONE_NEWNET).or_else(|_| attempt(CLONE_NEWNET | CLONE_NEWUSER)).map(|_| ())
}

const WAIT4: usize = 61;

/// `struct clone_args`, as far as Linux 5.5 knows it.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 80, "CLONE_ARGS_SIZE_VER1");

/// As [`birth`], but the new process is the caller's sibling, and its end is signalled to their parent as the caller's will
/// be.
///
/// # Errors
/// Those of [`birth`].
pub fn birth_beside(kind: Kind) -> Result<Birth, BirthError> {
    make(kind, true)
}

/// Makes a child process. The child's end is signalled to the caller by SIGCHLD; a sibling's to their parent, as the
/// caller's own will be.
///
/// # Errors
/// See [`BirthError`]; `EPERM` without `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`, `EEXIST` when the id is
/// taken.
pub fn birth(kind: Kind) -> Result<Birth, BirthError> {
    make(kind, false)
}

fn make(kind: Kind, beside: bool) -> Result<Birth, BirthError> {
    const CLONE_FILES: u64 = 0x400;
    const CLONE_PIDFD: u64 = 0x1000;
    const CLONE_PARENT: u64 = 0x8000;
    const CLONE_NEWNS: u64 = 0x2_0000;
    const CLONE_NEWUSER: u64 = 0x1000_0000;
    const CLONE_NEWPID: u64 = 0x2000_0000;
    const SIGCHLD: u64 = 17;
    const CLONE3: usize = 435;
    let threads = file::numeric_entries(c"/proc/self/task").map_err(BirthError::Count)?.len();
    if threads != 1 {
        return Err(BirthError::Threads(threads));
    }
    let mut pidfd = -1_i32;
    let mut arguments = CloneArgs {
        flags: CLONE_PIDFD,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: SIGCHLD,
        ..CloneArgs::default()
    };
    let ids;
    match kind {
        Kind::FirstOfNamespaces => arguments.flags |= CLONE_NEWPID | CLONE_NEWNS,
        Kind::FirstOfOwnNamespaces => arguments.flags |= CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUSER,
        Kind::WithId(wanted) | Kind::WithIdInBoth(wanted) | Kind::Keeper(wanted) => {
            ids = [wanted; 2];
            arguments.set_tid = (&raw const ids).expose_provenance() as u64;
            arguments.set_tid_size = if matches!(kind, Kind::WithIdInBoth(_)) { 2 } else { 1 };
        }
        Kind::Copy | Kind::Sibling => {}
    }
    let shares = matches!(kind, Kind::Sibling | Kind::Keeper(_));
    let is_sibling = beside || kind == Kind::Sibling;
    if shares {
        arguments.flags |= CLONE_FILES;
    }
    if is_sibling {
        arguments.flags |= CLONE_PARENT;
    }
    if shares || is_sibling {
        arguments.exit_signal = 0;
    }
    let address = (&raw const arguments).expose_provenance();
    // SAFETY: the structure and what it points to live until the call returns; without CLONE_VM the child
    // gets a copy of this thread's whole world, and there is no other thread (counted above).
    let pid = unsafe { syscall3(CLONE3, address, size_of::<CloneArgs>(), 0) }.map_err(BirthError::Clone)?;
    if pid == 0 {
        return Ok(Birth::Child);
    }
    // SAFETY: CLONE_PIDFD has stored a new descriptor that nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Birth::Parent(Child { pid: i32::try_from(pid).unwrap_or(i32::MAX), pidfd }))
}

/// Duplicates descriptor `number` of the process behind `pidfd` into this one (`pidfd_getfd(2)`, Linux 5.6);
/// close-on-exec.
///
/// # Errors
/// `EPERM` without ptrace access to that process, `EBADF` when it has no such descriptor, `ESRCH` when it
/// has ended.
pub fn fetch_descriptor(pidfd: BorrowedFd<'_>, number: u32) -> Result<OwnedFd, Errno> {
    const PIDFD_GETFD: usize = 438;
    // SAFETY: plain numbers.
    let raw = unsafe { syscall3(PIDFD_GETFD, argument(pidfd), number as usize, 0) }?;
    crate::Fd::from_result(raw).map(Into::into)
}

/// Closes every descriptor above 2 that is not in `keep` (`close_range(2)`, Linux 5.9).
///
/// For a child right after [`birth`] that leaves everything else of its parent's behind: other values that
/// own descriptors must never be used or dropped again in this process.
///
/// # Errors
/// Those of close_range(2).
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    const CLOSE_RANGE: usize = 436;
    const LAST: usize = u32::MAX as usize;
    let mut kept: Vec<usize> = keep.iter().map(|fd| argument(*fd)).collect();
    kept.sort_unstable();
    let mut from = 3;
    for number in kept.into_iter().chain([LAST]) {
        if number > from {
            let to = if number == LAST { LAST } else { number - 1 };
            // SAFETY: touches no memory; the caller has given up the descriptors, as demanded above.
            unsafe { syscall3(CLOSE_RANGE, from, to, 0) }?;
        }
        from = from.max(number.saturating_add(1));
    }
    Ok(())
}

fn argument(fd: BorrowedFd<'_>) -> usize {
    fd.as_raw_fd().cast_unsigned() as usize
}

/// Where this thread's restartable-sequences area is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnRseq {
    /// Address of its `struct rseq`.
    pub address: u64,
    /// The length that was registered.
    pub len: u32,
    /// The signature that was registered.
    pub signature: u32,
}

/// The `rseq(2)` registration of this thread, if its libc (glibc from 2.35 on) has made one.
#[must_use]
pub fn own_rseq() -> Option<OwnRseq> {
    const SIGNATURE: u32 = 0x5305_3053;
    const SMALLEST: u32 = 32;
    let word = |name: &core::ffi::CStr| -> Option<*const i64> {
        // SAFETY: the name is a C string; dlsym only looks it up.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!found.is_null()).then(|| found.cast_const().cast())
    };
    let (offset, size) = (word(c"__rseq_offset")?, word(c"__rseq_size")?);
    // SAFETY: glibc documents `__rseq_offset` as a constant ptrdiff_t.
    let offset = unsafe { offset.read() };
    // SAFETY: glibc documents `__rseq_size` as a constant unsigned int.
    let size = unsafe { size.cast::<u32>().read() };
    let thread_pointer: i64;
    // SAFETY: the first word of a thread's control block is its own address (x86-64 psABI, TLS variant II).
    unsafe {
        core::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) thread_pointer, options(nostack, readonly));
    };
    let address = thread_pointer.checked_add(offset)?.cast_unsigned();
    (size != 0).then_some(OwnRseq { address, len: size.max(SMALLEST), signature: SIGNATURE })
}

/// Blocks every signal in this thread, those too that the libc keeps for itself.
///
/// # Errors
/// Those of rt_sigprocmask(2).
pub fn block_all_signals() -> Result<(), Errno> {
    const SIG_SETMASK: usize = 2;
    let all = u64::MAX;
    let arguments = [SIG_SETMASK, (&raw const all).expose_provenance(), 0, size_of::<u64>(), 0, 0];
    // SAFETY: the mask is valid for reads of eight bytes.
    unsafe { syscall(nr::RT_SIGPROCMASK, arguments) }.map(|_| ())
}

/// What [`reap`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaped {
    /// Process, exit code.
    Exited(i32, i32),
    /// Process, signal.
    Killed(i32, i32),
    /// There are children, but none has ended.
    NothingYet,
    /// There is no child.
    NoChild,
}

/// Kills a child, of whatever kind, and waits until it has ended.
///
/// # Errors
/// Those of pidfd_send_signal(2) and wait4(2).
pub fn end(child: &Child) -> Result<(), Errno> {
    const WALL: usize = 0x4000_0000;
    crate::pidfd::kill(child.pidfd.as_fd())?;
    let arguments = [child.pid.cast_unsigned() as usize, 0, WALL, 0, 0, 0];
    // SAFETY: no status and no usage is asked for.
    unsafe { syscall(WAIT4, arguments) }.map(|_| ())
}

/// Reaps one child that has ended, without waiting.
///
/// # Errors
/// Those of wait4(2), `ECHILD` excepted.
pub fn reap() -> Result<Reaped, Errno> {
    const ANY: usize = usize::MAX;
    const WNOHANG: usize = 1;
    let mut status = 0_i32;
    let arguments = [ANY, (&raw mut status).expose_provenance(), WNOHANG, 0, 0, 0];
    // SAFETY: the status is valid for writes of four bytes; no usage is asked for.
    let pid = match unsafe { syscall(WAIT4, arguments) } {
        Ok(0) => return Ok(Reaped::NothingYet),
        Ok(pid) => i32::try_from(pid).unwrap_or(i32::MAX),
        Err(Errno::ECHILD) => return Ok(Reaped::NoChild),
        Err(errno) => return Err(errno),
    };
    let signal = status & 0x7f;
    Ok(if signal == 0 { Reaped::Exited(pid, status >> 8 & 0xff) } else { Reaped::Killed(pid, signal) })
}
