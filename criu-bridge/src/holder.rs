//! A small process that outlives this one, to put in order what this one leaves when it is killed.
//!
//! It is in a session of its own, takes no signal but SIGKILL, and holds nothing but what it needs. It notices the end of
//! this process by a socket that hangs up.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::{fs, io};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use receiver::guardian::wait_for;
use sys::birth::{self, Birth, Kind};

use crate::config::{DELETE_ATTEMPTS, DELETE_PAUSE_MS, HOLDER_DEADLINE};
use crate::quiet::Rules;

/// What it does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Duty<'a> {
    /// Deletes this directory with all that is in it, whenever it is not needed any more.
    Delete(&'a Path),
    /// Has rules for packets take effect, whenever others are not needed any more.
    Rules(&'a [Rules]),
    /// Sends processes a signal, unless it is dismissed.
    Signal {
        /// To whom.
        members: &'a [BorrowedFd<'a>],
        /// Which one while the processes belong here.
        here: Signal,
        /// Which one from [`Holder::gone`] on.
        gone: Signal,
    },
}

/// It. Dropped, it does its duty.
#[derive(Debug)]
pub(crate) struct Holder {
    line: Option<UnixStream>,
    process: OwnedFd,
}

/// What it is told.
const HERE: u8 = b'h';
const GONE: u8 = b'g';
const DISMISSED: u8 = b'd';

impl Holder {
    /// Starts it; this process has a single thread.
    pub(crate) fn start(duty: Duty<'_>) -> io::Result<Self> {
        let (ours, its) = UnixStream::pair()?;
        match birth::birth(Kind::Copy).map_err(io::Error::other)? {
            Birth::Child => live(&its, duty),
            Birth::Parent(child) => Ok(Self { line: Some(ours), process: child.pidfd }),
        }
    }

    /// The processes belong elsewhere.
    pub(crate) fn gone(&self) {
        self.tell(GONE);
    }

    /// The processes belong here again.
    pub(crate) fn here(&self) {
        self.tell(HERE);
    }

    /// There is nothing to do any more.
    pub(crate) fn dismiss(self) {
        self.tell(DISMISSED);
    }

    /// For another process: until that has ended too, it does nothing.
    pub(crate) fn line(&self) -> Stdio {
        let line = self.line.as_ref().and_then(|line| line.try_clone().ok());
        line.map_or_else(Stdio::null, |line| OwnedFd::from(line).into())
    }

    /// Has it do its duty; dropped, it is waited for.
    pub(crate) fn let_go(&mut self) {
        self.line = None;
    }

    fn tell(&self, word: u8) {
        // One that was killed does nothing any more.
        let _ = self.line.as_ref().map(|mut line| line.write_all(&[word]));
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.line = None;
        if wait_for(self.process.as_fd(), HOLDER_DEADLINE).unwrap_or(false) {
            let _ = waitid(Id::PIDFd(self.process.as_fd()), WaitPidFlag::WEXITED);
        }
    }
}

/// Its whole life.
fn live(line: &UnixStream, duty: Duty<'_>) -> ! {
    let _ = setsid();
    let _ = birth::block_all_signals();
    sys::thread::set_name(c"holder");
    let members: &[BorrowedFd<'_>] = match duty {
        Duty::Delete(_) | Duty::Rules(_) => &[],
        Duty::Signal { members, .. } => members,
    };
    let kept: Vec<_> = members.iter().copied().chain([line.as_fd()]).collect();
    let _ = birth::close_all_but(&kept);
    // Whoever reads what this process's parent says waits for the end of it.
    let _ = File::options().read(true).write(true).open("/dev/null").map(|nothing| {
        let _ = (dup2_stdin(&nothing), dup2_stdout(&nothing), dup2_stderr(&nothing));
    });
    let last = last_word(line);
    match duty {
        Duty::Delete(directory) => delete(directory),
        Duty::Rules(rules) => rules.iter().for_each(|rules| _ = rules.apply(&[], Stdio::null())),
        Duty::Signal { .. } if last == DISMISSED => {}
        Duty::Signal { members, here, gone } => {
            let signal = if last == GONE { gone } else { here };
            for member in members {
                // One that has ended needs none.
                let _ = sys::pidfd::send_signal(*member, signal as u32);
            }
        }
    }
    sys::thread::exit_process(0)
}

/// What it was told last before it was hung up on.
fn last_word(mut line: &UnixStream) -> u8 {
    let mut word = [HERE];
    let mut last = HERE;
    while line.read(&mut word).is_ok_and(|len| len > 0) {
        [last] = word;
    }
    last
}

fn delete(directory: &Path) {
    for _ in 0..DELETE_ATTEMPTS {
        match fs::remove_dir_all(directory) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.exists() => return,
            // Somebody has made something there meanwhile.
            Err(_) => _ = poll(&mut [], PollTimeout::from(DELETE_PAUSE_MS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_deleted_with_all_that_is_in_it() {
        let directory = std::env::temp_dir().join(format!("posthaste-holder-{}", std::process::id()));
        fs::create_dir_all(directory.join("in")).expect("a temporary directory");
        delete(&directory);
        assert!(!directory.exists());
    }

    #[test]
    fn the_last_word_counts() {
        let (mut ours, its) = UnixStream::pair().expect("a socket pair");
        ours.write_all(&[GONE, HERE, GONE]).expect("room");
        drop(ours);
        assert_eq!(last_word(&its), GONE);
    }
}
