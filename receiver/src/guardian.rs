//! The guardian: the first process of a migrated program's PID namespace.
//!
//! It starts the blank child, reaps every process of the namespace, tells the session how the child ended,
//! and kills all of them when the session is gone before the migration is complete, and deletes the files that were made
//! for a process that does not come. It holds a duplicate of every userfaultfd, so that no missing page turns into zeros between the session's death and that kill.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use sys::birth::{self, Birth, Kind};

mod first;
mod message;

pub use first::{Blank, Identity, Namespaces};
use message::{Order, Word};

/// How long starting the child, and ending everything, may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no guarded child.
#[derive(Debug, thiserror::Error)]
pub enum GuardianError {
    /// The socket between session and guardian.
    #[error("talking to the guardian process")]
    Talk(#[source] io::Error),
    /// The guardian itself.
    #[error(
        "starting a process in new PID and mount namespaces: run as root, grant CAP_SYS_ADMIN or permit user \
         namespaces"
    )]
    Start(#[source] birth::BirthError),
    /// `/proc` of the new namespace.
    #[error("mounting /proc in a new mount namespace")]
    MountProc(#[source] io::Error),
    /// `/dev/pts` of the new namespace.
    #[error(
        "mounting /dev/pts for the program's pseudo-terminals: make the directory, and give it no mount of its own"
    )]
    MountTerminals(#[source] io::Error),
    /// The child with the wanted id.
    #[error("starting a process with id {pid}")]
    Child {
        /// The id that it was to have.
        pid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Whoever builds the processes.
    #[error("starting who builds the processes in new namespaces")]
    Begin(#[source] io::Error),
    /// The guardian has ended or hangs.
    #[error("the guardian process ended or gave no answer in {} s", DEADLINE.as_secs())]
    Silent,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// `exit(2)` with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// What the guardian tells on its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuardianEvent {
    /// The migrated process has ended.
    ChildExited(ExitStatus),
    /// No process is left in the namespace; the guardian ends.
    Empty,
}

/// The session's end of a guardian. Dropped before [`Guardian::complete`], it has everything in the namespace
/// killed and waits for that.
#[derive(Debug)]
pub struct Guardian {
    socket: Option<OwnedFd>,
    process: OwnedFd,
    released: bool,
    making: OsString,
}

/// The blank child as its guardian presents it.
#[derive(Debug)]
pub struct GuardedChild {
    /// Refers to the child.
    pub pidfd: OwnedFd,
    /// The child's id in this process's PID namespace.
    pub pid: u32,
}

impl Guardian {
    /// Starts a guardian, and by it the blank child.
    ///
    /// # Errors
    /// See [`GuardianError`].
    pub fn start(blank: &Blank<'_>) -> Result<(Self, GuardedChild), GuardianError> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(talk)?;
        let kind = if blank.namespaces.user { Kind::FirstOfOwnNamespaces } else { Kind::FirstOfNamespaces };
        let ids = first::Ids::own();
        let making = making_name()?;
        let process = match birth::birth(kind).map_err(GuardianError::Start)? {
            Birth::Child => first::run(&theirs, blank, ids, &making),
            Birth::Parent(child) => child.pidfd,
        };
        drop(theirs);
        let guardian = Self { socket: Some(ours), process, released: false, making };
        guardian.wait_readable()?;
        match guardian.receive()? {
            Some((Word::Ready, Some(pidfd))) => {
                let pid = pid_behind(&pidfd).map_err(GuardianError::Talk)?;
                Ok((guardian, GuardedChild { pidfd, pid }))
            }
            Some((Word::NoProc(errno), _)) => {
                Err(GuardianError::MountProc(io::Error::from_raw_os_error(errno)))
            }
            Some((Word::NoTerminals(errno), _)) => {
                Err(GuardianError::MountTerminals(io::Error::from_raw_os_error(errno)))
            }
            Some((Word::NoChild(errno), _)) => Err(GuardianError::Child {
                pid: blank.identity.pid,
                source: io::Error::from_raw_os_error(errno),
            }),
            _ => Err(GuardianError::Silent),
        }
    }

    /// Starts a guardian in whose namespaces `begin` starts whoever builds the processes there; `begin` runs in the
    /// guardian, which keeps the descriptors `kept` open, and what it returns is handed to the caller. With `terminals` there
    /// are no pseudo-terminals there but its own. [`Self::follow`] says whose end is told.
    ///
    /// # Errors
    /// See [`GuardianError`].
    pub fn start_over(
        terminals: bool,
        kept: &[BorrowedFd<'_>],
        begin: &dyn Fn() -> io::Result<OwnedFd>,
    ) -> Result<(Self, OwnedFd), GuardianError> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(talk)?;
        let making = making_name()?;
        let process = match birth::birth(Kind::FirstOfNamespaces).map_err(GuardianError::Start)? {
            Birth::Child => first::run_over(&theirs, terminals, kept, begin, &making),
            Birth::Parent(guardian) => guardian.pidfd,
        };
        drop(theirs);
        let guardian = Self { socket: Some(ours), process, released: false, making };
        guardian.wait_readable()?;
        match guardian.receive()? {
            Some((Word::Ready, Some(begun))) => Ok((guardian, begun)),
            Some((Word::NoProc(errno), _)) => {
                Err(GuardianError::MountProc(io::Error::from_raw_os_error(errno)))
            }
            Some((Word::NoTerminals(errno), _)) => {
                Err(GuardianError::MountTerminals(io::Error::from_raw_os_error(errno)))
            }
            Some((Word::NoChild(errno), _)) => Err(GuardianError::Begin(io::Error::from_raw_os_error(errno))),
            _ => Err(GuardianError::Silent),
        }
    }

    /// Its process id, as this process's PID namespace numbers it.
    ///
    /// # Errors
    /// It has ended.
    pub fn pid(&self) -> io::Result<u32> {
        pid_behind(&self.process)
    }

    /// Hands a duplicate of a userfaultfd over for safe keeping.
    ///
    /// # Errors
    /// [`GuardianError::Talk`]
    pub fn hold(&self, uffd: BorrowedFd<'_>) -> Result<(), GuardianError> {
        self.order(Order::Hold, &[uffd.as_raw_fd()])
    }

    /// Has the end of a process told that lives in the guardian's namespaces, or in others within them.
    ///
    /// # Errors
    /// [`GuardianError::Talk`]
    pub fn follow(&self, process: BorrowedFd<'_>) -> Result<(), GuardianError> {
        self.order(Order::Follow, &[process.as_raw_fd()])
    }

    /// A name that is given to nothing but what this guardian is to know of.
    #[must_use]
    pub fn making_name(&self) -> &OsStr {
        &self.making
    }

    /// Has what is found under [`Self::making_name`] in `directory` deleted if the session dies before the next
    /// [`Self::entrust`].
    ///
    /// # Errors
    /// [`GuardianError::Talk`]
    pub fn expect(&self, directory: BorrowedFd<'_>) -> Result<(), GuardianError> {
        self.order(Order::Making, &[directory.as_raw_fd()])
    }

    /// Has a file or directory deleted, under whatever name it has then, if the session dies before [`Self::keep`].
    ///
    /// # Errors
    /// [`GuardianError::Talk`]
    pub fn entrust(&self, made: BorrowedFd<'_>) -> Result<(), GuardianError> {
        self.order(Order::Made, &[made.as_raw_fd()])
    }

    /// Says that the process comes: what was made for it stays.
    ///
    /// # Errors
    /// [`GuardianError::Talk`]
    pub fn keep(&self) -> Result<(), GuardianError> {
        self.order(Order::Keep, &[])
    }

    /// Says that nothing is missing any more: from here on the program survives the session, and the guardian
    /// lets go of the userfaultfds.
    ///
    /// # Errors
    /// [`GuardianError::Talk`]
    pub fn complete(&mut self) -> Result<(), GuardianError> {
        self.order(Order::Complete, &[])?;
        self.released = true;
        Ok(())
    }

    /// Has every process of the namespace killed.
    ///
    /// # Errors
    /// [`GuardianError::Talk`]
    pub fn kill(&self) -> Result<(), GuardianError> {
        self.order(Order::Kill, &[])
    }

    /// The next event that has arrived, if any; never blocks. A guardian that is gone counts as
    /// [`GuardianEvent::Empty`]: the kernel ends a namespace with its first process.
    ///
    /// # Errors
    /// [`GuardianError::Talk`]
    pub fn event(&mut self) -> Result<Option<GuardianEvent>, GuardianError> {
        if self.socket.is_none() {
            return Ok(None);
        }
        match self.receive() {
            Ok(Some((Word::Exited(code), _))) => Ok(Some(GuardianEvent::ChildExited(ExitStatus::Code(code)))),
            Ok(Some((Word::Killed(signal), _))) => {
                Ok(Some(GuardianEvent::ChildExited(ExitStatus::Signal(signal))))
            }
            Ok(Some((Word::Empty, _))) | Err(GuardianError::Silent) => {
                self.socket = None;
                Ok(Some(GuardianEvent::Empty))
            }
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Becomes readable when [`Self::event`] has something to tell; `None` once it has told the last thing.
    #[must_use]
    pub fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Its descriptors here.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.readiness().into_iter().chain([self.process.as_fd()]).collect()
    }

    fn order(&self, order: Order, fds: &[i32]) -> Result<(), GuardianError> {
        let socket = self.socket.as_ref().ok_or(GuardianError::Silent)?;
        let byte = [order.byte()];
        let rights = [ControlMessage::ScmRights(fds)];
        let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&byte)], control, MsgFlags::MSG_NOSIGNAL, None)
            .map(|_| ())
            .map_err(talk)
    }

    fn wait_readable(&self) -> Result<(), GuardianError> {
        let socket = self.socket.as_ref().ok_or(GuardianError::Silent)?;
        match wait_for(socket.as_fd(), DEADLINE).map_err(GuardianError::Talk)? {
            true => Ok(()),
            false => Err(GuardianError::Silent),
        }
    }

    /// One message, without blocking; [`GuardianError::Silent`] when the guardian has closed its end.
    fn receive(&self) -> Result<Option<(Word, Option<OwnedFd>)>, GuardianError> {
        let socket = self.socket.as_ref().ok_or(GuardianError::Silent)?;
        let mut received = receive(socket.as_fd(), MsgFlags::MSG_DONTWAIT);
        if matches!(&received, Err(error) if error.kind() == io::ErrorKind::ConnectionReset) {
            // It ended before it had read an order. The kernel says so once, ahead of what it had to tell.
            received = receive(socket.as_fd(), MsgFlags::MSG_DONTWAIT);
        }
        match received {
            Ok((bytes, fd)) if !bytes.is_empty() => Ok(Word::decode(&bytes).map(|word| (word, fd))),
            Ok(_) => Err(GuardianError::Silent),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(GuardianError::Talk(error)),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let empty = self.socket.is_none();
        self.socket = None;
        if self.released && !empty {
            return;
        }
        // The guardian ends as soon as all are dead; if it hangs, the kernel still has our closed socket.
        if wait_for(self.process.as_fd(), DEADLINE).unwrap_or(false) {
            let _ = waitid(Id::PIDFd(self.process.as_fd()), WaitPidFlag::WEXITED);
        }
    }
}

/// A name for what is being made, which nothing else has.
fn making_name() -> Result<OsString, GuardianError> {
    let random = sys::random::sixteen_bytes()
        .map_err(|errno| GuardianError::Talk(io::Error::from_raw_os_error(errno.0)))?;
    Ok(format!(".posthaste-{:032x}", u128::from_le_bytes(random)).into())
}

fn talk(errno: nix::errno::Errno) -> GuardianError {
    GuardianError::Talk(errno.into())
}

/// Waits until `fd` can be read or its other side is gone; `false` when the time is over.
///
/// # Errors
/// Those of poll(2).
pub fn wait_for(fd: BorrowedFd<'_>, at_most: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
    loop {
        match nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one packet of at most 16 bytes, and the descriptor that came with it; empty at the end.
fn receive(socket: BorrowedFd<'_>, flags: MsgFlags) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = [0; 16];
    let mut control = nix::cmsg_space!([i32; 1]);
    let mut vector = [IoSliceMut::new(&mut bytes)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut vector, Some(&mut control), flags)?;
    let mut passed = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            passed = fds.first().copied();
        }
    }
    let len = message.bytes;
    let fd = passed.map(sys::fd::received).transpose()?;
    Ok((bytes.get(..len).unwrap_or_default().to_vec(), fd))
}

/// The process that a pidfd refers to, as this process's PID namespace numbers it (proc(5), `fdinfo`).
fn pid_behind(pidfd: &OwnedFd) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or_else(|| io::Error::other("a pidfd without a process"))
}
