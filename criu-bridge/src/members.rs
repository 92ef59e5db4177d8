//! The processes of a tree as they live here: found in `/proc`, held by descriptor.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use memory::{PAGE_SIZE, PageRange};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::config::MOST_PROCESSES;

/// One process.
#[derive(Debug)]
pub(crate) struct Member {
    pid: u32,
    pidfd: OwnedFd,
    memory: File,
}

impl Member {
    /// Holds the process with this id.
    pub(crate) fn hold(pid: u32) -> io::Result<Self> {
        let pidfd = sys::pidfd::open(pid)?;
        Ok(Self { pid, pidfd, memory: File::open(format!("/proc/{pid}/mem"))? })
    }

    /// Reads its pages, from the first one on, and returns how many; `None` if the first one cannot be read.
    pub(crate) fn read(&self, at: PageRange, buffer: &mut [u8]) -> Option<u64> {
        let whole = usize::try_from(at.len()).ok()?;
        let mut got = 0;
        while got < whole {
            let offset = at.start().0 + got as u64;
            match self.memory.read_at(buffer.get_mut(got..whole)?, offset) {
                Ok(0) | Err(_) => break,
                Ok(more) => got += more,
            }
        }
        Some(got as u64 / PAGE_SIZE).filter(|pages| *pages > 0)
    }

    /// Its id, which may be another process's when it has ended.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The process, as a descriptor.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends it a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = sys::pidfd::send_signal(self.pidfd.as_fd(), signal as u32);
    }

    /// Waits until it has ended, and returns whether it has.
    pub(crate) fn has_ended(&self, patience: PollTimeout) -> bool {
        poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], patience).is_ok_and(|ready| ready > 0)
    }
}

/// The processes of the tree below `root`, which stands still: by their innermost ids, those that they have here.
pub(crate) fn of_tree(root: u32) -> io::Result<BTreeMap<u32, u32>> {
    let mut found = BTreeMap::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        if let Some(other) = found.insert(innermost(pid)?, pid) {
            return Err(io::Error::other(format!(
                "processes {other} and {pid} have the same id in their tree"
            )));
        }
        if found.len() > MOST_PROCESSES {
            return Err(io::Error::other(format!("it has more than {MOST_PROCESSES} processes")));
        }
        next.extend(children_of(pid)?);
    }
    Ok(found)
}

/// The processes below `root`, which come and go, in the same way: who has gone meanwhile is not there.
pub(crate) fn there_now(root: u32) -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop().filter(|_| found.len() < MOST_PROCESSES) {
        next.extend(children_of(pid).unwrap_or_default());
        found.extend(innermost(pid).ok().map(|id| (id, pid)));
    }
    found
}

/// Whether all of a process has ended, and only its status waits for somebody.
pub(crate) fn is_zombie(pid: u32) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let has_ended = status.lines().any(|line| line.starts_with("State:\tZ"));
    Ok(has_ended && fs::read_dir(format!("/proc/{pid}/task"))?.count() == 1)
}

/// The child of `parent` whose innermost id is `wanted`.
pub(crate) fn child_of(parent: u32, wanted: u32) -> io::Result<u32> {
    let mut all = children_of(parent)?.into_iter();
    all.find(|pid| innermost(*pid).is_ok_and(|id| id == wanted)).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The children of all threads of a process.
pub(crate) fn children_of(parent: u32) -> io::Result<Vec<u32>> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        let text = fs::read_to_string(thread?.path().join("children"))?;
        all.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(all)
}

/// Its id in the innermost of its PID namespaces.
pub(crate) fn innermost(pid: u32) -> io::Result<u32> {
    ids(pid)?.pop().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Its ids in all of its PID namespaces, from this process's on inwards.
pub(crate) fn ids(pid: u32) -> io::Result<Vec<u32>> {
    numbers(pid, "NSpid:")
}

/// The process that it is a child of; 0 if that is not visible here.
pub(crate) fn parent_of(pid: u32) -> io::Result<u32> {
    numbers(pid, "PPid:")?.pop().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What a line of its status says.
fn numbers(pid: u32, name: &str) -> io::Result<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let numbers = line.split_ascii_whitespace().map(|number| number.parse().map_err(io::Error::other));
    numbers.collect()
}
