//! Locks on files: taken when the source has let go of them, so between `Run` and the first instruction.

use nix::libc;
use protocol::{LockRecord, Manifest};
use sys::Errno;
use sys::number::{decimal, words};

use super::{BlankChild, RestoreError, Step};

/// By which call a lock was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// flock(2): the open file description's.
    Flock,
    /// `F_SETLK`: the process's.
    Process,
    /// `F_OFD_SETLK`: the open file description's.
    Description,
}

/// A lock as the kernel describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lock {
    kind: Kind,
    is_exclusive: bool,
    start: u64,
    /// 0 to the end of the file, however long it grows.
    len: u64,
}

/// Refuses locks that cannot be taken again.
pub(super) fn prove(manifest: &Manifest) -> Result<(), RestoreError> {
    manifest.locks.iter().try_for_each(|record| parse(record).map(|_| ()))
}

/// Takes every lock of `manifest`. Returns the descriptors whose lock somebody else was faster to take.
pub(super) fn take_all(child: &BlankChild, manifest: &Manifest) -> Result<Vec<(u32, Errno)>, RestoreError> {
    let mut refused = Vec::new();
    for record in &manifest.locks {
        let lock = parse(record)?;
        let mut program = child.program();
        program.step(Step::Lock(record.fd));
        let fd = u64::from(record.fd);
        let taken = match lock.kind {
            Kind::Flock => {
                const SHARED: u64 = 1;
                const EXCLUSIVE: u64 = 2;
                const NOT_WAITING: u64 = 4;
                let operation = if lock.is_exclusive { EXCLUSIVE } else { SHARED };
                program.attempt(libc::SYS_flock, [fd, operation | NOT_WAITING])
            }
            Kind::Process | Kind::Description => {
                const F_SETLK: u64 = 6;
                const F_OFD_SETLK: u64 = 37;
                let command = if lock.kind == Kind::Process { F_SETLK } else { F_OFD_SETLK };
                // struct flock: type (F_RDLCK 0, F_WRLCK 1) and whence, start, length, process.
                let asked = program.words(&[u64::from(lock.is_exclusive), lock.start, lock.len, 0]);
                program.attempt(libc::SYS_fcntl, [fd, command, asked.0])
            }
        };
        if let Err(errno) = child.run(program, &[])?.of(taken) {
            refused.push((record.fd, errno));
        }
    }
    Ok(refused)
}

/// `1: FLOCK  ADVISORY  WRITE 402 fe:00:1234 0 EOF` (proc(5), `/proc/locks`).
fn parse(record: &LockRecord) -> Result<Lock, RestoreError> {
    parsed(&record.line).ok_or_else(|| RestoreError::Lock {
        fd: record.fd,
        line: String::from_utf8_lossy(&record.line).trim().to_owned(),
    })
}

fn parsed(line: &[u8]) -> Option<Lock> {
    let words: Vec<&[u8]> = words(line).collect();
    let [_, kind, b"ADVISORY", access, _, _, start, end] = words.as_slice() else { return None };
    let kind = match *kind {
        b"FLOCK" => Kind::Flock,
        b"POSIX" => Kind::Process,
        b"OFDLCK" => Kind::Description,
        _ => return None,
    };
    let is_exclusive = match *access {
        b"READ" => false,
        b"WRITE" => true,
        _ => return None,
    };
    let start = decimal(start)?;
    let len = match *end {
        b"EOF" => 0,
        end => decimal(end)?.checked_sub(start)?.checked_add(1)?,
    };
    Some(Lock { kind, is_exclusive, start, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_what_the_kernel_says() {
        let lock = parsed(b"\t1: POSIX  ADVISORY  WRITE 359 00:13:11691 10 19");
        assert_eq!(lock, Some(Lock { kind: Kind::Process, is_exclusive: true, start: 10, len: 10 }));
        let lock = parsed(b"\t1: OFDLCK ADVISORY  READ -1 fe:00:12 0 EOF");
        assert_eq!(lock, Some(Lock { kind: Kind::Description, is_exclusive: false, start: 0, len: 0 }));
        for line in [
            b"\t1: LEASE  ACTIVE    READ 3 00:13:1 0 EOF".as_slice(),
            b"",
            b"1: FLOCK MANDATORY READ 1 2 3 4",
        ] {
            assert_eq!(parsed(line), None);
        }
    }
}
