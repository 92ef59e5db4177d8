//! System calls without a libc.

use core::arch::asm;

use crate::Errno;

/// Numbers of the system calls of `x86_64` that this crate makes (`asm/unistd_64.h`).
pub mod nr {
    #![allow(missing_docs, reason = "each name is the system call's own")]
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const OPEN: usize = 2;
    pub const CLOSE: usize = 3;
    pub const FSTAT: usize = 5;
    pub const POLL: usize = 7;
    pub const LSEEK: usize = 8;
    pub const MMAP: usize = 9;
    pub const MPROTECT: usize = 10;
    pub const MUNMAP: usize = 11;
    pub const BRK: usize = 12;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const RT_SIGRETURN: usize = 15;
    pub const IOCTL: usize = 16;
    pub const PREAD64: usize = 17;
    pub const PWRITE64: usize = 18;
    pub const WRITEV: usize = 20;
    pub const SCHED_YIELD: usize = 24;
    pub const MREMAP: usize = 25;
    pub const MINCORE: usize = 27;
    pub const MADVISE: usize = 28;
    pub const SHMAT: usize = 30;
    pub const SHMCTL: usize = 31;
    pub const GETITIMER: usize = 36;
    pub const GETPID: usize = 39;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const RECVFROM: usize = 45;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const SHUTDOWN: usize = 48;
    pub const BIND: usize = 49;
    pub const GETSOCKNAME: usize = 51;
    pub const GETPEERNAME: usize = 52;
    pub const SETSOCKOPT: usize = 54;
    pub const GETSOCKOPT: usize = 55;
    pub const CLONE: usize = 56;
    pub const EXIT: usize = 60;
    pub const KILL: usize = 62;
    pub const SEMCTL: usize = 66;
    pub const SHMDT: usize = 67;
    pub const MSGRCV: usize = 70;
    pub const MSGCTL: usize = 71;
    pub const FCNTL: usize = 72;
    pub const FLOCK: usize = 73;
    pub const READLINK: usize = 89;
    pub const GETEUID: usize = 107;
    pub const GETPGID: usize = 121;
    pub const GETSID: usize = 124;
    pub const CAPGET: usize = 125;
    pub const CAPSET: usize = 126;
    pub const RT_SIGPENDING: usize = 127;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const RT_SIGQUEUEINFO: usize = 129;
    pub const PERSONALITY: usize = 135;
    pub const GETPRIORITY: usize = 140;
    pub const PRCTL: usize = 157;
    pub const ARCH_PRCTL: usize = 158;
    pub const GETTID: usize = 186;
    pub const FUTEX: usize = 202;
    pub const SCHED_SETAFFINITY: usize = 203;
    pub const SCHED_GETAFFINITY: usize = 204;
    pub const GETDENTS64: usize = 217;
    pub const TIMER_GETTIME: usize = 224;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
    pub const TGKILL: usize = 234;
    pub const GET_MEMPOLICY: usize = 239;
    pub const WAITID: usize = 247;
    pub const OPENAT: usize = 257;
    pub const READLINKAT: usize = 267;
    pub const GET_ROBUST_LIST: usize = 274;
    pub const TEE: usize = 276;
    pub const TIMERFD_GETTIME: usize = 287;
    pub const SIGNALFD4: usize = 289;
    pub const UNSHARE: usize = 272;
    pub const PIPE2: usize = 293;
    pub const RT_TGSIGQUEUEINFO: usize = 297;
    pub const PRLIMIT64: usize = 302;
    pub const NAME_TO_HANDLE_AT: usize = 303;
    pub const OPEN_BY_HANDLE_AT: usize = 304;
    pub const PROCESS_VM_READV: usize = 310;
    pub const PROCESS_VM_WRITEV: usize = 311;
    pub const KCMP: usize = 312;
    pub const USERFAULTFD: usize = 323;
    pub const GETRANDOM: usize = 318;
    pub const MEMFD_CREATE: usize = 319;
    pub const MEMBARRIER: usize = 324;
    pub const STATX: usize = 332;
    pub const IOPRIO_GET: usize = 252;
    pub const SCHED_SETATTR: usize = 314;
    pub const SCHED_GETATTR: usize = 315;
    pub const GETCPU: usize = 309;
    pub const RSEQ: usize = 334;
}

/// Makes system call `number` with `arguments`.
///
/// # Errors
/// The kernel's error number.
///
/// # Safety
/// The arguments must satisfy what that system call's manual page demands of them: pointers are valid for
/// what the kernel reads and writes, and no memory that Rust code relies on is changed behind its back.
#[inline]
pub unsafe fn syscall(number: usize, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [a0, a1, a2, a3, a4, a5] = arguments;
    let result: isize;
    // SAFETY: the instruction clobbers rcx and r11 only, which is declared; the caller answers for the rest.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a0, in("rsi") a1, in("rdx") a2, in("r10") a3, in("r8") a4, in("r9") a5,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&result) {
        Err(Errno(i32::try_from(-result).unwrap_or(i32::MAX)))
    } else {
        Ok(result.cast_unsigned())
    }
}

/// Makes system call `number`, which touches no memory of this process (its arguments are plain numbers).
///
/// # Errors
/// The kernel's error number.
///
/// # Safety
/// As for [`syscall`]; this form only shortens calls with at most three plain arguments.
#[inline]
pub unsafe fn syscall3(number: usize, a0: usize, a1: usize, a2: usize) -> Result<usize, Errno> {
    // SAFETY: handed on to the caller.
    unsafe { syscall(number, [a0, a1, a2, 0, 0, 0]) }
}
