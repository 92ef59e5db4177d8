//! A child process that kernel tests drive command by command: it maps, touches, moves, drops and forks.
//!
//! For tests only. After the fork the child makes raw system calls and nothing else, so that
//! locks which other test threads held do not matter. It dies with its [`TestChild`].

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr;
use std::time::Duration;

use memory::{Addr, PageRange};

use crate::raw::{nr, syscall, syscall3};
use crate::uffd::{Uffd, open_in_this_process};
use crate::{Errno, Fd};

const MREMAP: usize = 25;
const EXECVE: usize = 59;
const WAIT4: usize = 61;
const PIDFD_OPEN: usize = 434;
const CLOSE_RANGE: usize = 436;
const PIDFD_GETFD: usize = 438;
const SIGCHLD: usize = 17;
const SIGKILL: usize = 9;

/// What the child shall do. Each is answered by one number; `u64::MAX - errno` is an error.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Maps anonymous private memory there.
    Map(PageRange),
    /// Answers the byte there.
    Load(Addr),
    /// Writes the byte there.
    Store(Addr, u8),
    /// Moves the range to the address by mremap(2).
    Move(PageRange, Addr),
    /// Drops the content of the range (`MADV_DONTNEED`).
    Drop(PageRange),
    /// Unmaps the range.
    Unmap(PageRange),
    /// Forks; the grandchild reads the byte there and exits with it, which is the answer.
    ForkAndLoad(Addr),
    /// Becomes another program; there is no answer.
    Exec,
    /// Opens a userfaultfd; the answer is its number in the child.
    OpenUffd,
    /// Closes a descriptor of the child.
    Close(u32),
    /// Forked children get the range empty (`MADV_WIPEONFORK`).
    WipeOnFork(PageRange),
}

impl Command {
    fn words(self) -> [u64; 4] {
        match self {
            Self::Map(range) => [0, range.start().0, range.len(), 0],
            Self::Load(addr) => [1, addr.0, 0, 0],
            Self::Store(addr, byte) => [2, addr.0, u64::from(byte), 0],
            Self::Move(from, to) => [3, from.start().0, from.len(), to.0],
            Self::Drop(range) => [4, range.start().0, range.len(), 0],
            Self::Unmap(range) => [5, range.start().0, range.len(), 0],
            Self::ForkAndLoad(addr) => [6, addr.0, 0, 0],
            Self::Exec => [7, 0, 0, 0],
            Self::OpenUffd => [8, 0, 0, 0],
            Self::Close(fd) => [9, u64::from(fd), 0, 0],
            Self::WipeOnFork(range) => [10, range.start().0, range.len(), 0],
        }
    }
}

/// The child. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct TestChild {
    pid: usize,
    socket: UnixStream,
}

impl TestChild {
    /// Forks the child, which waits for commands.
    ///
    /// # Errors
    /// Those of socketpair(2) and fork(2).
    pub fn spawn() -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(Duration::from_secs(20)))?;
        // SAFETY: without CLONE_VM this is fork(2); the child goes into `obey` and never returns from it.
        let pid = unsafe { syscall3(nr::CLONE, SIGCHLD, 0, 0) }?;
        if pid == 0 {
            obey(theirs.as_raw_fd().cast_unsigned() as usize);
        }
        Ok(Self { pid, socket: ours })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> usize {
        self.pid
    }

    /// Sends a command and does not wait for the answer.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn begin(&mut self, command: Command) -> io::Result<()> {
        let bytes: Vec<u8> = command.words().iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.socket.write_all(&bytes)
    }

    /// Waits at most 20 s for the next answer.
    ///
    /// # Errors
    /// `UnexpectedEof` when the child has ended, `WouldBlock` when the time is over.
    pub fn answer(&mut self) -> io::Result<u64> {
        let mut word = [0; 8];
        self.socket.read_exact(&mut word)?;
        Ok(u64::from_ne_bytes(word))
    }

    /// The answer, if it has come.
    ///
    /// # Errors
    /// As [`Self::answer`], but `None` instead of waiting.
    pub fn try_answer(&mut self) -> io::Result<Option<u64>> {
        self.socket.set_nonblocking(true)?;
        let answer = self.answer();
        self.socket.set_nonblocking(false)?;
        match answer {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// As [`Self::begin`] and [`Self::answer`].
    pub fn ask(&mut self, command: Command) -> io::Result<u64> {
        self.begin(command)?;
        self.answer()
    }

    /// A userfaultfd of the child's address space; the child keeps no copy.
    ///
    /// # Errors
    /// Those of the system calls; `EPERM` when this user may not.
    pub fn uffd(&mut self) -> io::Result<Uffd> {
        let number = self.ask(Command::OpenUffd)?;
        let number = u32::try_from(number).map_err(|_| Errno::EPERM)?;
        // SAFETY: plain numbers.
        let pidfd = Fd::from_result(unsafe { syscall3(PIDFD_OPEN, self.pid, 0, 0) }?)?;
        // SAFETY: plain numbers.
        let copy = Fd::from_result(unsafe { syscall3(PIDFD_GETFD, pidfd.arg(), number as usize, 0) }?)?;
        self.ask(Command::Close(number))?;
        Ok(Uffd::from(std::os::fd::OwnedFd::from(copy)))
    }

    /// Waits until the child has ended; its status as wait(2) gives it.
    ///
    /// # Errors
    /// Those of wait4(2).
    pub fn wait(&mut self) -> io::Result<i32> {
        let mut status = 0_i32;
        let arguments = [self.pid, ptr::from_mut(&mut status).expose_provenance(), 0, 0, 0, 0];
        // SAFETY: the status is valid for the write of an int.
        unsafe { syscall(WAIT4, arguments) }?;
        Ok(status)
    }
}

impl Drop for TestChild {
    fn drop(&mut self) {
        // SAFETY: plain numbers; the child is not reaped before this or has been waited for, and a number is
        // not given out again so soon.
        let _ = unsafe { syscall3(nr::KILL, self.pid, SIGKILL, 0) };
        let _ = self.wait();
    }
}

/// The child's life: commands in, answers out, until the socket ends.
fn obey(socket: usize) -> ! {
    // SAFETY: closing descriptors that this process never uses.
    let _ = unsafe { syscall3(CLOSE_RANGE, 3, socket - 1, 0) };
    // SAFETY: as above.
    let _ = unsafe { syscall3(CLOSE_RANGE, socket + 1, u32::MAX as usize, 0) };
    loop {
        let mut words = [0_u64; 4];
        // SAFETY: the array is valid for the write of its 32 bytes.
        let got = unsafe { syscall3(nr::READ, socket, words.as_mut_ptr().expose_provenance(), 32) };
        if got != Ok(32) {
            exit(0);
        }
        let [code, rest @ ..] = words;
        let answer = carry_out(code, rest.map(number))
            .unwrap_or_else(|errno| usize::MAX - errno.0.cast_unsigned() as usize);
        // SAFETY: the word is valid for the read of its eight bytes.
        let _ = unsafe { syscall3(nr::WRITE, socket, ptr::from_ref(&answer).expose_provenance(), 8) };
    }
}

fn carry_out(code: u64, [a, b, c]: [usize; 3]) -> Result<usize, Errno> {
    const FIXED_PRIVATE_ANONYMOUS: usize = 0x10 | 0x2 | 0x20;
    const MAYMOVE_FIXED: usize = 3;
    const DONTNEED: usize = 4;
    const WIPEONFORK: usize = 18;
    match code {
        0 => raw(nr::MMAP, [a, b, 3, FIXED_PRIVATE_ANONYMOUS, usize::MAX, 0]),
        1 => Ok(usize::from(load(a))),
        2 => store(a, b),
        3 => raw(MREMAP, [a, b, b, MAYMOVE_FIXED, c, 0]),
        4 => raw(nr::MADVISE, [a, b, DONTNEED, 0, 0, 0]),
        5 => raw(nr::MUNMAP, [a, b, 0, 0, 0, 0]),
        6 => fork_and_load(a),
        7 => raw(EXECVE, [c"/bin/true".as_ptr().expose_provenance(), 0, 0, 0, 0, 0]),
        8 => open_in_this_process().map(|fd| fd.into_raw().cast_unsigned() as usize),
        9 => raw(nr::CLOSE, [a, 0, 0, 0, 0, 0]),
        10 => raw(nr::MADVISE, [a, b, WIPEONFORK, 0, 0, 0]),
        _ => Err(Errno::EINVAL),
    }
}

fn fork_and_load(addr: usize) -> Result<usize, Errno> {
    let pid = raw(nr::CLONE, [SIGCHLD, 0, 0, 0, 0, 0])?;
    if pid == 0 {
        exit(usize::from(load(addr)));
    }
    let mut status = 0_u32;
    raw(WAIT4, [pid, ptr::from_mut(&mut status).expose_provenance(), 0, 0, 0, 0])?;
    Ok((status >> 8) as usize)
}

fn load(addr: usize) -> u8 {
    // SAFETY: the test names an address that it has mapped in this process.
    unsafe { ptr::with_exposed_provenance::<u8>(addr).read_volatile() }
}

fn store(addr: usize, byte: usize) -> Result<usize, Errno> {
    let byte = u8::try_from(byte).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the test names an address that it has mapped in this process.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(addr).write_volatile(byte) };
    Ok(0)
}

fn raw(number: usize, arguments: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the test names only memory that it has mapped for this, never what the code here lives in.
    unsafe { syscall(number, arguments) }
}

fn exit(status: usize) -> ! {
    // SAFETY: does not return, so nothing relies on anything afterwards.
    let _ = unsafe { syscall3(nr::EXIT_GROUP, status, 0, 0) };
    unreachable!("exit_group does not return")
}

fn number(word: u64) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}
