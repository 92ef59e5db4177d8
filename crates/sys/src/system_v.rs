//! System V semaphores and message queues as the kernel shows them: who used them last, and what is in them.

use alloc::vec::Vec;

use crate::Errno;
use crate::raw::{nr, syscall};

const IPC_RMID: usize = 0;

/// Which process of this PID namespace has changed semaphore `index` of a set last; 0 for none.
///
/// # Errors
/// Those of semctl(2): `EACCES`, `EINVAL` for one that is gone.
pub fn last_user(set: u32, index: u32) -> Result<u32, Errno> {
    const GETPID: usize = 11;
    control(set, index, GETPID, 0)
}

/// The values of a set of `count` semaphores, two bytes for each.
///
/// # Errors
/// As for [`last_user`]; `EINVAL` if it is one of another size by now.
pub fn values(set: u32, count: u32) -> Result<Vec<u8>, Errno> {
    const GETALL: usize = 13;
    /// The kernel gives no set more (`SEMMSL`), however large this one has become.
    const MOST: usize = 65_536;
    if count as usize > MOST {
        return Err(Errno::EINVAL);
    }
    let mut values = alloc::vec![0; MOST * 2];
    control(set, 0, GETALL, values.as_mut_ptr().expose_provenance())?;
    values.truncate(count as usize * 2);
    Ok(values)
}

/// Removes a set, if its owner or creator asks for that.
pub fn remove_semaphores(set: u32) {
    let _ = control(set, 0, IPC_RMID, 0);
}

fn control(set: u32, index: u32, what: usize, argument: usize) -> Result<u32, Errno> {
    // SAFETY: plain numbers but for the argument, whose callers say that it is large enough.
    let result = unsafe { syscall(nr::SEMCTL, [set as usize, index as usize, what, argument, 0, 0]) }?;
    u32::try_from(result).map_err(|_| Errno::EINVAL)
}

/// How many bytes a queue may hold.
///
/// # Errors
/// Those of msgctl(2): `EACCES`, `EINVAL` for one that is gone.
pub fn queue_capacity(queue: u32) -> Result<u64, Errno> {
    const IPC_STAT: usize = 2;
    /// Words of `struct msqid64_ds`, and which of them is `msg_qbytes`.
    const WORDS: usize = 15;
    const CAPACITY: usize = 11;
    let mut status = [0_u64; WORDS];
    let at = status.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel writes a struct msqid64_ds there, of that many words.
    unsafe { syscall(nr::MSGCTL, [queue as usize, IPC_STAT, at, 0, 0, 0]) }?;
    Ok(status.get(CAPACITY).copied().unwrap_or(0))
}

/// Copies message `index` of a queue into `buffer`, its type in front, and leaves it there; how many bytes that are, or
/// `None` if there are not so many messages.
///
/// # Errors
/// Those of msgrcv(2) with `MSG_COPY`: `ENOSYS` without `CONFIG_CHECKPOINT_RESTORE`, `E2BIG` if the buffer is too small.
pub fn message(queue: u32, index: usize, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    const COPY_NO_WAIT: usize = 0o40000 | 0o4000;
    const TYPE_BYTES: usize = 8;
    let room = buffer.len().checked_sub(TYPE_BYTES).ok_or(Errno::EINVAL)?;
    let at = buffer.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel writes the type and at most `room` bytes behind it.
    match unsafe { syscall(nr::MSGRCV, [queue as usize, at, room, index, COPY_NO_WAIT, 0]) } {
        Ok(bytes) => Ok(Some(bytes + TYPE_BYTES)),
        Err(Errno::ENOMSG) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Removes a queue, if its owner or creator asks for that.
pub fn remove_queue(queue: u32) {
    // SAFETY: plain numbers.
    let _ = unsafe { syscall(nr::MSGCTL, [queue as usize, IPC_RMID, 0, 0, 0, 0]) };
}
