//! What System V segments, semaphores and message queues have in common: the line that the kernel writes of each, their ids,
//! and their owners.

use memory::Addr;
use nix::libc;

use super::{BlankChild, Program, RestoreError, Step};

/// `IPC_CREAT` and `IPC_EXCL`
pub(super) const CREATE_NEW: u64 = 0o3000;
/// `IPC_SET` of shmctl(2), semctl(2) and msgctl(2).
pub(super) const IPC_SET: u64 = 1;
/// What of a mode says who may do what.
pub(super) const PERMISSIONS: u32 = 0o777;

/// What the kernel said of one at the source, in a file of `/proc/sysvipc`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) key: i32,
    pub(super) id: u32,
    /// With flags, as some have them.
    pub(super) mode: u32,
    /// Bytes of a segment or in a queue, semaphores of a set.
    pub(super) size: u64,
    pub(super) user: u32,
    pub(super) group: u32,
}

impl Line {
    /// Reads `line`, whose owner is in the column `owner` and the next one.
    pub(super) fn read(line: &[u8], owner: usize) -> Result<Self, RestoreError> {
        let text = String::from_utf8_lossy(line);
        let columns: Vec<&str> = text.split_ascii_whitespace().collect();
        let column = |index: usize| columns.get(index).copied().unwrap_or_default();
        let number = |index: usize| column(index).parse::<u32>().ok();
        let read = || {
            Some(Self {
                key: column(0).parse().ok()?,
                id: number(1)?,
                mode: u32::from_str_radix(column(2), 8).ok()?,
                size: column(3).parse().ok()?,
                user: number(owner)?,
                group: number(owner + 1)?,
            })
        };
        read().ok_or_else(|| RestoreError::Segment { line: text.trim().to_owned() })
    }

    /// The key as an argument.
    pub(super) fn key(&self) -> u64 {
        u64::from(self.key.cast_unsigned())
    }

    /// The id as an argument, and as a result.
    pub(super) fn id(&self) -> u64 {
        u64::from(self.id)
    }

    /// What makes a new one with its permissions.
    pub(super) fn flags(&self) -> u64 {
        CREATE_NEW | u64::from(self.mode & PERMISSIONS)
    }

    /// `struct shmid64_ds`, `struct semid64_ds` or `struct msqid64_ds` for [`IPC_SET`], of 15 words at most: its first words
    /// are key and user, group and creator, creator's group and mode.
    pub(super) fn status(&self) -> [u64; 15] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let mut words = [0; 15];
        words[..3].copy_from_slice(&[
            pair(0, self.user),
            pair(self.group, 0),
            pair(0, self.mode & PERMISSIONS),
        ]);
        words
    }
}

/// Proves that the file `next_id` can be written, by which the next one gets a chosen id.
pub(super) fn prove(child: &BlankChild, step: Step, next_id: &[u8]) -> Result<(), RestoreError> {
    let mut program = child.program();
    program.step(step);
    let opened = open(&mut program, next_id);
    program.call_with(libc::SYS_close, [0], &[(0, opened)]);
    child.run(program, &[])?;
    Ok(())
}

/// Writes `number` to a file of the IPC namespace.
pub(super) fn write_number(program: &mut Program, path: &[u8], number: u64) {
    let opened = open(program, path);
    let number = number.to_string();
    let (text, len) = (program.data(number.as_bytes()), number.len() as u64);
    program.call_with(libc::SYS_write, [0, text.0, len], &[(0, opened)]);
    program.call_with(libc::SYS_close, [0], &[(0, opened)]);
}

/// Opens a file of the IPC namespace to write.
fn open(program: &mut Program, path: &[u8]) -> Addr {
    const AT_FDCWD: u64 = (-100_i64).cast_unsigned();
    const WRITE_ONLY: u64 = 1;
    let path = program.c_string(path);
    let opened = program.call(libc::SYS_openat, [AT_FDCWD, path.0, WRITE_ONLY, 0]);
    program.result(opened)
}
