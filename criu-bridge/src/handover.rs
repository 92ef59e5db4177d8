//! How CRIU's restore hands over the memory of a tree: `lazy-pages.socket`.
//!
//! For each process its id as four bytes, then one byte with its userfaultfd; a negative id for a zombie, which has
//! none; a word of its own when the restore is done. Everything goes through one connection.

use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use sys::uffd::Uffd;

/// Where CRIU looks for whoever serves memory, in its working directory.
pub(crate) const SOCKET_NAME: &str = "lazy-pages.socket";
/// The closing word, "RSTF".
const FINISHED: i32 = 0x5253_5446;

/// What CRIU has said.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// The memory of the process with this id in the images.
    Memory(u32, Uffd),
    /// The processes are about to run, all of them.
    Finished,
    /// CRIU has hung up.
    Ended,
}

/// The socket, and CRIU on it once it has connected.
#[derive(Debug)]
pub(crate) struct Handover {
    listener: UnixListener,
    line: Option<UnixStream>,
    /// What has come of a word.
    word: Vec<u8>,
    /// Whose userfaultfd comes next.
    awaited: Option<u32>,
}

impl Handover {
    /// Listens in `directory`.
    pub(crate) fn listen(directory: &Path) -> io::Result<Self> {
        let path = directory.join(SOCKET_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // By way of the descriptor: the name of a socket is short.
        let directory = std::fs::File::open(directory)?;
        let short = format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd());
        let listener = UnixListener::bind(short)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, line: None, word: Vec::new(), awaited: None })
    }

    /// Waits until CRIU has connected.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.listener.set_nonblocking(false)?;
        let (line, _) = self.listener.accept()?;
        self.take(line)
    }

    /// Descriptors that are readable when there is something to [`hear`](Self::hear).
    pub(crate) fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        let mut readiness = vec![self.listener.as_fd()];
        readiness.extend(self.line.as_ref().map(AsFd::as_fd));
        readiness
    }

    /// The next thing that CRIU has said, without waiting.
    pub(crate) fn hear(&mut self) -> io::Result<Option<Arrival>> {
        if self.line.is_none() {
            match self.listener.accept() {
                Ok((line, _)) => self.take(line)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        loop {
            let wanted = if self.awaited.is_some() { 1 } else { 4 - self.word.len() };
            let Some((bytes, uffd)) = self.receive(wanted)? else { return Ok(None) };
            if bytes.is_empty() {
                return Ok(Some(Arrival::Ended));
            }
            if let Some(pid) = self.awaited.take() {
                let uffd = uffd.ok_or_else(|| malformed("a process without its userfaultfd"))?;
                return Ok(Some(Arrival::Memory(pid, uffd)));
            }
            self.word.extend(bytes);
            let Some(word) = self.word.first_chunk().map(|word| i32::from_le_bytes(*word)) else { continue };
            self.word.clear();
            if word == FINISHED {
                return Ok(Some(Arrival::Finished));
            }
            // A zombie has no memory, and needs nothing.
            self.awaited = u32::try_from(word).ok();
        }
    }

    fn take(&mut self, line: UnixStream) -> io::Result<()> {
        line.set_nonblocking(true)?;
        self.line = Some(line);
        Ok(())
    }

    /// At most `wanted` bytes, and the descriptor that came with them; `None` if there are none yet.
    fn receive(&self, wanted: usize) -> io::Result<Option<(Vec<u8>, Option<Uffd>)>> {
        let Some(line) = &self.line else { return Ok(None) };
        let mut bytes = vec![0; wanted];
        let mut control = nix::cmsg_space!([i32; 1]);
        let (count, numbers) = {
            let mut vector = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(line.as_raw_fd(), &mut vector, Some(&mut control), flags) {
                Ok(message) => message,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::ECONNRESET) => return Ok(Some((Vec::new(), None))),
                Err(errno) => return Err(errno.into()),
            };
            let mut numbers = Vec::new();
            for part in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(more) = part {
                    numbers.extend(more);
                }
            }
            (message.bytes, numbers)
        };
        bytes.truncate(count);
        let mut received = None;
        for number in numbers {
            let fd = sys::fd::received(number).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
            received = Some(Uffd::from(fd));
        }
        Ok(Some((bytes, received)))
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
