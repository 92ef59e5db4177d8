//! Locks on files that the original of a tree has until its end, on this very machine.
//!
//! CRIU would wait for them before anything stands, and the original does not end before everything does. So they are
//! taken out of the images, and the tree gets to no instruction of its own, behind a stop signal, until all of its memory is here, the
//! original has ended, and each process has taken its locks again ([`Tracee`]). Who waits for one of them is faster, and is told
//! of; who tries now and then may be, and nobody can know.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;
use nix::poll::{PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::config::{LOCKS_DEADLINE, LOCKS_PAUSE_MS, RIVAL_DEADLINE};
use crate::holder::{Duty, Holder};
use crate::images::{self, FileLock, ImageError};
use crate::instance::Instance;
use crate::locks;
use crate::members::{self, Member};
use crate::tracee::Tracee;

/// `FL_FLOCK` and `FL_OFD`.
const BY_FLOCK: u32 = 2;
const BY_DESCRIPTION: u32 = 4;

/// They, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct LateLocks {
    locks: Vec<FileLock>,
    /// By their ids in the images: those that a signal had stopped before the tree was moved.
    stopped: BTreeSet<u32>,
    /// Every process that is to go on, once the tree is about to.
    halted: BTreeMap<u32, Member>,
    /// Has them go on if this process dies.
    holder: Option<Holder>,
    /// Somebody waits for one of the locks, and gets it first.
    has_rival: bool,
}

impl LateLocks {
    /// Takes those of `instance` out of the images, if its original is on this machine and ends.
    ///
    /// # Errors
    /// An image cannot be read or written, or is malformed.
    pub(super) fn of(directory: &Path, instance: &Instance) -> Result<Self, ImageError> {
        if sys::identity::boot_id() != Ok(instance.ends_on) {
            return Ok(Self::default());
        }
        let locks = images::take_locks(directory)?;
        let mut stopped = BTreeSet::new();
        for task in instance.tasks.iter().filter(|_| !locks.is_empty()) {
            if images::is_stopped(directory, task.pid)? {
                stopped.insert(task.pid);
            }
        }
        Ok(Self { locks, stopped, ..Self::default() })
    }

    /// Sees to it that the processes below `guardian`, which stand, do not go on before [`Self::settle`]. Those that are in
    /// none of the images are not the tree's.
    pub(super) fn halt(&mut self, guardian: u32, instance: &Instance) {
        if self.locks.is_empty() {
            return;
        }
        let tree: BTreeSet<u32> = instance.tasks.iter().map(|task| task.pid).collect();
        for (id, pid) in members::there_now(guardian) {
            // One that has ended has no memory, and no lock.
            if let Some(member) = tree.get(&id).and_then(|_| Member::hold(pid).ok()) {
                if !self.stopped.contains(&id) {
                    member.signal(Signal::SIGSTOP);
                }
                self.halted.insert(id, member);
            }
        }
    }

    /// Those that go on, children before their parents: whoever waits for a child to stop shall not see it.
    fn waiting(&self) -> Vec<&Member> {
        let goes_on = self.halted.iter().rev().filter(|(id, _)| !self.stopped.contains(id));
        goes_on.map(|(_, member)| member).collect()
    }

    /// The original has its locks yet, but not for long, and from here on nobody ends the tree if this process dies: it
    /// shall not stand still for ever then.
    pub(super) fn outlive(&mut self) {
        if self.locks.is_empty() {
            return;
        }
        self.look_for_rivals();
        let waiting = self.waiting();
        let members: Vec<BorrowedFd<'_>> = waiting.iter().map(|member| member.as_fd()).collect();
        let (here, gone) = (Signal::SIGCONT, Signal::SIGCONT);
        match Holder::start(Duty::Signal { members: &members, here, gone }) {
            Ok(holder) => self.holder = Some(holder),
            Err(error) => crate::tell(format_args!(
                "the tree stands still until its original has ended, and for ever if this process is killed before that: {error}"
            )),
        }
    }

    /// The process whose lock, or whose descriptor, it is.
    fn member_of(&self, lock: &FileLock) -> Option<&Member> {
        u32::try_from(lock.pid).ok().and_then(|id| self.halted.get(&id))
    }

    fn look_for_rivals(&mut self) {
        let text = fs::read_to_string("/proc/locks").unwrap_or_default();
        for lock in &self.locks {
            let FileLock { pid, fd, .. } = lock;
            let file = self.member_of(lock).and_then(|member| fs::metadata(path_of(lock, member)).ok());
            if let Some(rival) = file.and_then(|file| locks::waiting(&text, file.ino())) {
                self.has_rival = true;
                crate::tell(format_args!(
                    "process {rival} waits for a lock on the file that descriptor {fd} of process {pid} is of, and gets it first"
                ));
            }
        }
    }

    /// Takes the locks again, when the original has let go of them, and has the tree go on.
    pub(super) fn settle(&mut self) {
        let until = Instant::now() + if self.has_rival { RIVAL_DEADLINE } else { LOCKS_DEADLINE };
        let mut tracees = BTreeMap::new();
        for lock in &self.locks {
            let taken = self.member_of(lock).map_or_else(
                || Err(io::Error::other("it is not there")),
                |member| take_in_time(lock, member, &mut tracees, until),
            );
            if let Err(error) = taken {
                let FileLock { pid, fd, .. } = lock;
                crate::tell(format_args!(
                    "process {pid} goes on without its lock on the file that its descriptor {fd} is of: {error}"
                ));
            }
        }
        drop(tracees);
        self.waiting().iter().for_each(|member| member.signal(Signal::SIGCONT));
        if let Some(holder) = self.holder.take() {
            holder.dismiss();
        }
        *self = Self::default();
    }
}

/// Has a process take a lock, as soon as nobody else has it.
fn take_in_time(
    lock: &FileLock,
    member: &Member,
    tracees: &mut BTreeMap<u32, Tracee>,
    until: Instant,
) -> io::Result<()> {
    let tracee = match tracees.entry(member.pid()) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => {
            let tracee = Tracee::seize(member.pid())?;
            if member.has_ended(PollTimeout::ZERO) {
                return Err(Errno::ESRCH.into());
            }
            new.insert(tracee)
        }
    };
    loop {
        // Asked of the process itself only then: if this one is killed in the middle of a call of its, it is lost.
        if is_free(lock, member) {
            match take(lock, tracee) {
                Err(error) if is_taken(&error) => {}
                taken => return taken,
            }
        }
        if Instant::now() >= until {
            return Err(Errno::EAGAIN.into());
        }
        let _ = poll(&mut [], PollTimeout::from(LOCKS_PAUSE_MS));
    }
}

/// The file, as that process has it open.
fn path_of(lock: &FileLock, member: &Member) -> String {
    format!("/proc/{}/fd/{}", member.pid(), lock.fd)
}

/// Whether nobody has a lock that is in the way of this one, or that cannot be told.
fn is_free(lock: &FileLock, member: &Member) -> bool {
    let Ok(file) = File::open(path_of(lock, member)) else { return true };
    if lock.how & BY_FLOCK != 0 {
        let wanted =
            if lock.access == 0 { FlockArg::LockSharedNonblock } else { FlockArg::LockExclusiveNonblock };
        return Flock::lock(file, wanted).is_ok();
    }
    let mut asked = libc::flock {
        l_type: i16::try_from(lock.access).unwrap_or(0),
        l_whence: 0,
        l_start: lock.start,
        l_len: lock.len,
        l_pid: 0,
    };
    let answer = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked));
    answer.is_err() || i32::from(asked.l_type) == libc::F_UNLCK
}

/// Whether somebody else has the lock (fcntl(2) may say either).
fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
}

fn take(lock: &FileLock, tracee: &Tracee) -> io::Result<()> {
    let argument = |value: i32| u64::from(value.cast_unsigned());
    let fd = argument(lock.fd);
    if lock.how & BY_FLOCK != 0 {
        let operation = if lock.access == 0 { libc::LOCK_SH } else { libc::LOCK_EX };
        return tracee.call(libc::SYS_flock, [fd, argument(operation | libc::LOCK_NB), 0]);
    }
    let command = if lock.how & BY_DESCRIPTION == 0 { libc::F_SETLK } else { libc::F_OFD_SETLK };
    // struct flock: type and whence, start, length, process.
    let words = [u64::from(lock.access), lock.start.cast_unsigned(), lock.len.cast_unsigned(), 0];
    let asked: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    tracee.call_with(libc::SYS_fcntl, [fd, argument(command)], &asked)
}
