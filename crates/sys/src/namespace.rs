//! Whose a namespace is, and who is in it.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::raw::{nr, syscall3};
use crate::{Errno, Fd};

/// The user namespace that owns the one behind `namespace` (`NS_GET_USERNS`, ioctl_nsfs(2), Linux 4.9); close-on-exec.
///
/// # Errors
/// `EPERM` if it is neither the caller's nor one within that.
pub fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const NS_GET_USERNS: usize = 0xb701;
    let number = namespace.as_raw_fd().cast_unsigned() as usize;
    // SAFETY: the request takes no argument and touches no memory.
    let raw = unsafe { syscall3(nr::IOCTL, number, NS_GET_USERNS, 0) }?;
    Fd::from_result(raw).map(OwnedFd::from)
}

/// By which id the caller knows the thread that has `id` in a PID namespace (`NS_GET_PID_FROM_PIDNS`, Linux 6.11).
///
/// # Errors
/// `ESRCH` if there is none, `ENOTTY` on older kernels.
pub fn thread_outside(namespace: BorrowedFd<'_>, id: u32) -> Result<u32, Errno> {
    const NS_GET_PID_FROM_PIDNS: usize = 0x8004_b706;
    let number = namespace.as_raw_fd().cast_unsigned() as usize;
    // SAFETY: the argument is a plain number.
    let found = unsafe { syscall3(nr::IOCTL, number, NS_GET_PID_FROM_PIDNS, id as usize) }?;
    u32::try_from(found).map_err(|_| Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use crate::{Errno, thread};

    #[test]
    fn a_thread_of_this_namespace_has_the_same_id_outside() {
        let own = File::open("/proc/self/ns/pid").expect("a namespace");
        let id = thread::thread_id();
        match super::thread_outside(own.as_fd(), id) {
            Ok(outside) => assert_eq!(outside, id),
            Err(errno) => assert_eq!(errno, Errno(25), "ENOTTY, before Linux 6.11"),
        }
    }

    #[test]
    fn a_namespace_of_this_process_is_its_user_namespace_s() {
        let own = File::open("/proc/self/ns/uts").expect("a namespace");
        let owner = match super::owner(own.as_fd()) {
            Ok(owner) => File::from(owner),
            Err(errno) => {
                // In a container the host name may be somebody else's.
                assert_eq!(errno, crate::Errno::EPERM);
                return;
            }
        };
        let user = fs::metadata("/proc/self/ns/user").expect("a namespace");
        let found = owner.metadata().expect("a namespace");
        assert_eq!(found.dev(), user.dev());
    }
}
