//! Why a process cannot be moved: one line, without a path or a byte of the program: the reason, a colon, the cure.

use alloc::boxed::Box;
use alloc::string::String;

use memory::Addr;
use protocol::{Piece, Text, put};
use sys::Errno;
use sys::proc::ProcError;

/// Gives an enum its texts, with the number of each. They stand in one string: a table of pointers would cost two
/// relocations a line.
macro_rules! texts {
    ($($variant:pat => $line:literal $text:literal,)*) => {
        fn text(self) -> &'static str {
            const LINES: &str = concat!($($text, "\n"),*);
            sys::number::nth_line(LINES, match self { $($variant => $line,)* })
        }
    };
}

/// What capture was doing when the kernel said no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doing {
    Threads,
    Children,
    BootId,
    Root,
    WorkingDirectory,
    Program,
    Auxv,
    Heap,
    Flags,
    Limits,
    Actions,
    Timers,
    Descriptors,
    Content,
    Pipe,
    Socket,
    Pages,
    SystemV,
}

impl Doing {
    texts! {
        Self::Threads => 0 "listing the threads",
        Self::Children => 1 "asking for child processes",
        Self::BootId => 2 "reading the boot id",
        Self::Root => 3 "looking at the root directory",
        Self::WorkingDirectory => 4 "looking at the working directory",
        Self::Program => 5 "looking at the program's file",
        Self::Auxv => 6 "reading the auxiliary vector",
        Self::Heap => 7 "asking for the end of the heap",
        Self::Flags => 8 "reading flags of the process",
        Self::Limits => 9 "reading resource limits",
        Self::Actions => 10 "reading signal actions",
        Self::Timers => 11 "reading timers",
        Self::Descriptors => 12 "listing the descriptors",
        Self::Content => 13 "reading shared memory or a file",
        Self::Pipe => 14 "looking at a pipe",
        Self::Socket => 15 "looking at a socket",
        Self::Pages => 16 "looking for changed pages",
        Self::SystemV => 17 "reading System V semaphores or messages",
    }
}

/// What stands in the way. Boxed, because every function here returns one on its rare way out, and the parasite
/// counts every byte of code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal(Box<Obstacle>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Obstacle {
    /// A system call or a file under `/proc` did not work.
    Kernel {
        /// What capture was doing.
        doing: Doing,
        /// Why it did not work.
        errno: Errno,
    },
    /// A file under `/proc`.
    Proc(ProcError),
    /// The process as a whole.
    Process(ProcessTrait),
    /// One mapping.
    Mapping {
        /// Where it begins.
        at: Addr,
        /// What it is.
        what: MappingTrait,
    },
    /// One descriptor.
    Descriptor {
        /// Its number.
        fd: u32,
        /// What it is.
        what: DescriptorTrait,
    },
}

/// What a process as a whole may be that cannot be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProcessTrait {
    /// It has children, dead or alive.
    Children,
    /// A debugger or tracer is attached.
    Traced(u32),
    /// It runs under seccomp.
    Seccomp,
    /// A thread is stopped by a signal.
    Stopped(u32),
    /// A thread has ended but its process has not: the main thread called `pthread_exit`.
    DeadMainThread,
    /// A thread has id 1.
    Init,
    /// It has asked for AMX tiles.
    Tiles,
    /// Its root directory is not `/`.
    Chroot,
    /// Its working directory cannot be reached.
    NoWorkingDirectory,
    /// Its program file is deleted or cannot be reached.
    NoExecutable,
    /// The vDSO was moved apart.
    Vdso,
    /// The descriptors hold more bytes than a manifest takes.
    TooMuchContent,
    /// Another process uses its System V semaphores or messages too.
    SystemV(u32),
    /// Its pages lie too far apart for the memory that the parasite got.
    TooScattered,
}

/// What a mapping may be that cannot be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MappingTrait {
    /// A device's memory.
    Device,
    /// Huge TLB pages of a file, or of a memfd that is not open.
    HugePages,
    /// Registered with a userfaultfd of the program.
    Userfaultfd,
    /// System V shared memory that others have attached too.
    SystemV,
    /// Linux asynchronous I/O.
    Aio,
    /// An anonymous inode: `io_uring`, perf, BPF.
    AnonymousInode,
    /// A shadow stack.
    ShadowStack,
    /// A shared mapping of a deleted file.
    DeletedShared,
    /// A shared mapping of a file that is not the same at the destination.
    SharedFileDiffers,
    /// A private mapping of shared memory that is not open.
    SharedToo,
    /// A label that this version does not know.
    Unknown,
}

/// What a descriptor may be that cannot be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DescriptorTrait {
    /// A device.
    Device,
    /// A file with a lease on it.
    Leased,
    /// A pipe in packet mode.
    PacketPipe,
    /// A socket of a family that this version does not know.
    Socket(u32),
    /// A socket pair with messages or descriptors in flight.
    InFlight,
    /// `io_uring`
    IoUring,
    /// `userfaultfd`
    Userfaultfd,
    /// `fanotify`
    Watcher,
    /// Any other anonymous inode: perf, BPF, KVM.
    AnonymousInode,
    /// What it shares with another descriptor cannot be told.
    SharingUnknown(u32),
    /// A connection that cannot be relayed.
    Opening,
    /// A terminal in which something waits that cannot be told.
    HeldUpTerminal,
    /// A terminal that controls others, or this process in the background.
    TerminalOfOthers,
}

impl Refusal {
    /// Turns the error of a call that did not work into a refusal.
    pub(crate) fn kernel(doing: Doing) -> impl Fn(Errno) -> Self {
        move |errno| Self::boxed(Obstacle::Kernel { doing, errno })
    }

    /// Refuses the mapping that begins at `at`.
    pub(crate) fn mapping(at: Addr, what: MappingTrait) -> Self {
        Self::boxed(Obstacle::Mapping { at, what })
    }

    /// Refuses descriptor `fd`.
    pub(crate) fn descriptor(fd: u32, what: DescriptorTrait) -> Self {
        Self::boxed(Obstacle::Descriptor { fd, what })
    }

    /// Reason and cure; there is none where the kernel itself said no.
    #[must_use]
    pub fn reason_and_cure(&self) -> (String, String) {
        let words = self.in_words();
        match words.rsplit_once(": ") {
            Some((reason, cure)) if !matches!(*self.0, Obstacle::Kernel { .. } | Obstacle::Proc(_)) => {
                (reason.into(), cure.into())
            }
            _ => (words, String::new()),
        }
    }

    /// Whether a file under `/proc` was not as expected: while the program runs, what it is about may just have gone.
    pub(crate) fn is_of_proc(&self) -> bool {
        matches!(*self.0, Obstacle::Proc(_))
    }

    #[cold]
    #[inline(never)]
    fn boxed(obstacle: Obstacle) -> Self {
        Self(Box::new(obstacle))
    }
}

impl From<ProcError> for Refusal {
    fn from(error: ProcError) -> Self {
        Self::boxed(Obstacle::Proc(error))
    }
}

impl From<ProcessTrait> for Refusal {
    fn from(what: ProcessTrait) -> Self {
        Self::boxed(Obstacle::Process(what))
    }
}

impl Piece for Refusal {
    fn put_into(&self, text: &mut impl Text) {
        match &*self.0 {
            Obstacle::Kernel { doing, errno } => put!(text, doing.text(), ": ", errno),
            Obstacle::Proc(error) => error.put_into(text),
            Obstacle::Process(what) => what.put_into(text),
            Obstacle::Mapping { at, what } => {
                put!(text, "the mapping at ", at, " ", what.text());
            }
            Obstacle::Descriptor { fd, what } => {
                put!(text, "descriptor ", fd, " is ", what.text());
                match what {
                    DescriptorTrait::Socket(number) => put!(text, " ", number, CLOSE_IT),
                    DescriptorTrait::SharingUnknown(number) => {
                        put!(text, " ", number, ": use a kernel with CONFIG_KCMP or Linux 6.10");
                    }
                    DescriptorTrait::HeldUpTerminal => text.push_text(": read it first"),
                    _ => text.push_text(CLOSE_IT),
                }
            }
        }
    }
}

impl Piece for ProcessTrait {
    fn put_into(&self, text: &mut impl Text) {
        match self {
            Self::Traced(by) => put!(text, "process ", by, " traces this one: detach it first"),
            Self::SystemV(pid) => {
                put!(text, "process ", pid, " uses the same System V semaphores or messages: end it first");
            }
            Self::Stopped(tid) => put!(text, "thread ", tid, " is stopped: send SIGCONT first"),
            other => text.push_text(other.text()),
        }
    }
}

/// The cure for most descriptors.
const CLOSE_IT: &str = ": close it first";

impl ProcessTrait {
    texts! {
        Self::Children => 0 "the process has children: wait until they have ended",
        Self::Seccomp => 1 "the process runs under seccomp: start it without a filter",
        Self::DeadMainThread => 2 "the main thread has ended before its process: let the others end here",
        Self::Init => 3 "a thread has id 1, which cannot be given to a moved process: start the program below an init",
        Self::Tiles => 4 "the process may use AMX tiles: start it with AMX switched off in its libraries",
        Self::Chroot => 5 "the process has a root directory of its own: start it without",
        Self::NoWorkingDirectory => 6 "the working directory cannot be reached: change to another one first",
        Self::NoExecutable => 7 "the program's file is deleted: start the program anew",
        Self::Vdso => 8 "the vDSO is not where the kernel put it: start the program anew",
        Self::TooMuchContent => 9 "pipes, sockets and what is on its way in them hold more than 8 MiB: empty some first",
        Self::TooScattered => 10 "its memory is in more pieces than can be listed: free some, or raise a low ulimit -v",
        Self::Traced(_) | Self::Stopped(_) | Self::SystemV(_) => 11 "",
    }
}

impl MappingTrait {
    texts! {
        Self::Device => 0 "is a device's memory: unmap it first",
        Self::HugePages => 1 "has huge TLB pages of a file: use MAP_ANONYMOUS or a memfd that stays open",
        Self::Userfaultfd => 2 "waits for pages, of an earlier move or of a userfaultfd of its own: wait until all are there",
        Self::SystemV => 3 "is System V shared memory that another process has attached too: detach it there first",
        Self::Aio => 4 "belongs to asynchronous I/O: destroy its context first",
        Self::AnonymousInode => 5 "belongs to io_uring, perf or the like: unmap it first",
        Self::ShadowStack => 6 "is a shadow stack: switch them off for the program",
        Self::SharedFileDiffers => 7 "is shared and of a file that the destination does not have: provide the same file",
        Self::DeletedShared => 8 "is shared and of a deleted file: keep it open, or unmap it first",
        Self::SharedToo => 9 "is private and of memory that is also mapped shared: keep it open, or unmap it first",
        Self::Unknown => 10 "is of a kind that is not known: unmap it first",
    }
}

impl DescriptorTrait {
    texts! {
        Self::Device => 0 "a device",
        Self::Leased => 1 "a file with a lease",
        Self::PacketPipe => 2 "a pipe in packet mode",
        Self::Socket(_) => 3 "a socket of domain",
        Self::InFlight => 4 "a socket or an inotify with more in flight than can be looked at",
        Self::IoUring => 5 "an io_uring",
        Self::Userfaultfd => 6 "a userfaultfd",
        Self::Watcher => 7 "a fanotify",
        Self::AnonymousInode => 8 "a kernel object of a kind that is not known",
        Self::SharingUnknown(_) => 9 "perhaps the same open file as",
        Self::Opening => 10 "a connection that is being opened, or has a filter or TLS in the kernel",
        Self::HeldUpTerminal => 11 "a terminal that is full or stopped, or tells of something in packet mode",
        Self::TerminalOfOthers => 12 "a terminal of another session, of a background process, or in flight",
    }
}

/// What is lost with the move and is said beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// A connection: reset at the destination.
    LostConnection(u32),
    /// A connection that moves or is relayed if the receiver takes it so; else it is lost.
    Connection(u32),
    /// One that is ending: it can be relayed only.
    HalfConnection(u32),
    /// A pipe whose other end is in another process.
    LostPipe(u32),
    /// Connections that nobody has accepted yet.
    QueuedConnections(u32),
    /// Standard input that another process still writes.
    LostInput,
    /// A terminal whose slave is not open here.
    HalfTerminal(u32),
}

impl Note {
    /// The descriptor that it is about.
    #[must_use]
    pub const fn fd(&self) -> u32 {
        match self {
            Self::LostConnection(fd)
            | Self::Connection(fd)
            | Self::HalfConnection(fd)
            | Self::LostPipe(fd)
            | Self::QueuedConnections(fd)
            | Self::HalfTerminal(fd) => *fd,
            Self::LostInput => 0,
        }
    }

    /// What is lost, of the descriptor.
    #[must_use]
    pub const fn loss(&self) -> &'static str {
        match self {
            Self::LostConnection(_) | Self::Connection(_) | Self::HalfConnection(_) => {
                "is connected to the outside: the connection will be reset"
            }
            Self::LostPipe(_) => "is a pipe to another process: its other end will be closed",
            Self::LostInput => {
                "is a pipe that another process writes: what comes from now on is lost, the receiver's input is read"
            }
            Self::QueuedConnections(_) => "listens: connections not yet accepted will be reset",
            Self::HalfTerminal(_) => {
                "is a terminal of which the other end was never opened, or by others only: what was written to it is lost"
            }
        }
    }

    /// How to lose nothing.
    #[must_use]
    pub const fn cure(&self) -> &'static str {
        match self {
            Self::Connection(_) => {
                "run the receiver with --tcp move, and move the address along, or with --tcp relay"
            }
            Self::HalfConnection(_) => "run the receiver with --tcp relay",
            Self::LostConnection(_) => "close it first",
            Self::LostPipe(_) => "use a FIFO or a file",
            Self::LostInput => "give it its input from a file",
            Self::QueuedConnections(_) => "move it when nobody connects",
            Self::HalfTerminal(_) => "open the other end too",
        }
    }
}

impl Piece for Note {
    fn put_into(&self, text: &mut impl Text) {
        put!(text, "descriptor ", self.fd(), " ", self.loss());
    }
}
