//! Whose a namespace is.

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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

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
