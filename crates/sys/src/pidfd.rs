//! Processes by descriptor: a number may come to mean another process, a pidfd never does.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::raw::{syscall, syscall3};
use crate::{Errno, Fd};

const PIDFD_SEND_SIGNAL: usize = 424;
const PIDFD_OPEN: usize = 434;

/// A descriptor for process `pid` (`pidfd_open(2)`, Linux 5.3), close-on-exec.
///
/// # Errors
/// `ESRCH` if there is no such process, `EMFILE`, `ENOMEM`.
pub fn open(pid: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open touches no memory.
    let raw = unsafe { syscall3(PIDFD_OPEN, pid as usize, 0, 0) }?;
    Fd::from_result(raw).map(OwnedFd::from)
}

/// Sends `signal` to the process behind `pidfd` (`pidfd_send_signal(2)`, Linux 5.1).
///
/// # Errors
/// `ESRCH` if it has ended, `EPERM`, `EINVAL` for a signal that does not exist.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: u32) -> Result<(), Errno> {
    let raw = pidfd.as_raw_fd().cast_unsigned() as usize;
    // SAFETY: without a siginfo, pidfd_send_signal touches no memory of ours.
    unsafe { syscall(PIDFD_SEND_SIGNAL, [raw, signal as usize, 0, 0, 0, 0]) }.map(|_| ())
}

/// Kills the process behind `pidfd`: it runs no instruction more.
///
/// # Errors
/// As for [`send_signal`].
pub fn kill(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    const SIGKILL: u32 = 9;
    send_signal(pidfd, SIGKILL)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_signal_reaches_the_process_behind_the_descriptor() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pidfd = open(child.id()).unwrap();
        send_signal(pidfd.as_fd(), 15).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert_eq!(send_signal(pidfd.as_fd(), 15), Err(Errno::ESRCH));
    }
}
