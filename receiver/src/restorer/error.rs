//! Why a process cannot be rebuilt here, in words for the user at the source.

use std::io;

use memory::{Addr, PageRange};
use sys::Errno;
use sys::uffd::UffdError;

use super::ChildError;
use crate::peer::NotEntitled;

/// What could not be had, to what, and how to cure it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The process under construction.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The userfaultfd.
    #[error(transparent)]
    Uffd(#[from] UffdError),
    /// Something of this machine could not be found out.
    #[error("reading {what} of this machine")]
    Host {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The processor lacks register state that the program's frames hold.
    #[error(
        "the program's extended registers ({components:#x}, {size} bytes) do not fit this processor's ({here:#x}, \
         {here_size} bytes): start it on, or move it to, a machine with the same XSAVE features"
    )]
    Registers {
        /// State components of the source.
        components: u64,
        /// Bytes of the source's area.
        size: u32,
        /// State components here.
        here: u64,
        /// Bytes of the area here.
        here_size: u32,
    },
    /// The processor lacks instructions that the program may use.
    #[error("this processor lacks instructions that the source has (CPUID word {word}: {missing:#x})")]
    Instructions {
        /// Index into `XsaveLayout::features`.
        word: usize,
        /// The missing bits.
        missing: u32,
    },
    /// The kernel's code page is another build whose functions cannot be led elsewhere.
    #[error(
        "the source's vDSO is another build and not like any known: boot both machines with the same kernel"
    )]
    Vdso,
    /// The kernel put its code page elsewhere.
    #[error("the vDSO could not be mapped at {0}")]
    VdsoPlace(Addr),
    /// A process or thread id that cannot be given.
    #[error("a process or thread with id {0} cannot be made: 1 is the guardian's, and each id is given once")]
    Id(u32),
    /// An id that shall be kept outside of the process's own PID namespace too.
    #[error(
        "process or thread id {0} is taken here: end what has it, or run the receiver without --pid keep"
    )]
    IdTaken(u32),
    /// Ids that only root may choose.
    #[error(
        "process ids are kept (--pid keep) for root, or over a link with a key: run a receiver without --pid keep"
    )]
    IdsNotKept,
    /// No thread, or the first one is not the process.
    #[error("the image's main thread is missing")]
    NoMainThread,
    /// It has begun or joined another session or process group since it was looked at.
    #[error("the process has changed its session or process group meanwhile: move it again")]
    SessionChanged,
    /// The image has no mapping or more than the restorer takes.
    #[error("no gap of the address space is free on both sides for the restorer")]
    NoHole,
    /// The program has mapped what the restorer uses.
    #[error("the program has mapped {0} meanwhile, where the restorer is: try again")]
    HoleTaken(PageRange),
    /// The program has opened the number that the restorer uses.
    #[error("the program has opened descriptor {0} meanwhile, which the restorer uses: try again")]
    NumberTaken(u32),
    /// A path of the program.
    #[error("{what} {path} is not here: provide it, as the program had it")]
    File {
        /// What the program has it for.
        what: &'static str,
        /// Its path.
        path: String,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// A file that is mapped and must be the very same one.
    #[error("{path} differs from the file that the program has mapped at {range}: provide the same file")]
    Different {
        /// Its path.
        path: String,
        /// Where it is mapped.
        range: PageRange,
    },
    /// What was deleted at the source cannot be made here.
    #[error("what was {path} and is deleted cannot be made here")]
    Ghost {
        /// Where it was.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A lock of a kind that cannot be taken again.
    #[error("the file of descriptor {fd} is locked in a way that cannot be moved ({line}): unlock it first")]
    Lock {
        /// The descriptor.
        fd: u32,
        /// What the kernel says of the lock.
        line: String,
    },
    /// A file that is to come along cannot be had under its path.
    #[error("the open file {path} cannot come along")]
    Ship {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Content that comes by itself.
    #[error("{what}")]
    Content {
        /// What is wrong.
        what: &'static str,
    },
    /// A path that leads out of `--root`, or cannot be followed.
    #[error("{path} leads out of what this receiver may use (--root)")]
    Outside {
        /// Its path.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A path that leads to something else here.
    #[error("{path} is neither a file nor a directory here")]
    NotAFile {
        /// Its path.
        path: String,
    },
    /// Nobody brings a process with more rights than its own.
    #[error("{0}: a receiver of root's takes such a process from root, or over a link with a key")]
    NotEntitled(#[from] NotEntitled),
    /// Rights that the receiver does not have itself.
    #[error(
        "the program acts as user {user}, group {group} with capabilities {capabilities:#x}, which the receiver cannot \
         give it: run the receiver as root"
    )]
    Credentials {
        /// The program's user id.
        user: u32,
        /// The program's group id.
        group: u32,
        /// The program's effective capabilities.
        capabilities: u64,
    },
    /// A limit that is lower here.
    #[error(
        "{name} is limited to {here} here, and the program needs {needed}: raise the hard limit of the receiver"
    )]
    Limit {
        /// Which.
        name: &'static str,
        /// The hard limit here.
        here: u64,
        /// What the program has.
        needed: u64,
    },
    /// Less than the program needs is left.
    #[error(
        "the program needs {needed} {what}, and there is room for {room} here: make room, or move it elsewhere"
    )]
    NoRoom {
        /// Of what.
        what: &'static str,
        /// What the program has.
        needed: u64,
        /// What is left here.
        room: u64,
    },
    /// An address that a socket of the program is bound to.
    #[error("the address of the socket at descriptor {fd} cannot be had: {errno}")]
    Address {
        /// The descriptor.
        fd: u32,
        /// What the kernel said.
        errno: Errno,
    },
    /// An open connection that does not go on here.
    #[error("the connection at descriptor {fd} cannot go on here")]
    Connection {
        /// The descriptor.
        fd: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image does not fit together.
    #[error("the image refers to {what} {index}, which it does not have")]
    Dangling {
        /// What kind of thing.
        what: &'static str,
        /// Which one.
        index: u32,
    },
    /// An image whose mappings are not what a process can have.
    #[error("the image maps {0} twice, or maps nothing there")]
    Overlap(PageRange),
    /// A descriptor that could not be made again.
    #[error("making descriptor {fd} ({what}) again")]
    Descriptor {
        /// Its number.
        fd: u32,
        /// What it is open on.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A pipe.
    #[error("making pipe {index} again")]
    Pipe {
        /// Its index.
        index: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A descriptor of a kind that cannot be made here.
    #[error("descriptor {fd} is {what}: not moved in this version, close it first")]
    NotMoved {
        /// Its number.
        fd: u32,
        /// What it is.
        what: &'static str,
    },
    /// A shared-memory object.
    #[error("making shared-memory object {index} again")]
    Object {
        /// Its index.
        index: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What the source says of a System V segment.
    #[error("System V shared memory, semaphores or messages are told of in a way that is not known: {line}")]
    Segment {
        /// What it says.
        line: String,
    },
    /// A System V segment that is not what it was.
    #[error("System V shared memory {0} cannot be made as it was")]
    SegmentId(u32),
    /// System V semaphores or messages that are not what they were.
    #[error("System V semaphores or message queue {0} cannot be made as they were")]
    SystemVId(u32),
    /// The process was made without an IPC namespace of its own.
    #[error(
        "the program has come to use System V shared memory, semaphores or messages meanwhile: try again"
    )]
    SegmentMeanwhile,
    /// Something has touched memory whose pages are still to come.
    #[error("memory at {0} was touched before its pages could come: move again")]
    NotMissing(PageRange),
    /// A pseudo-terminal with the number that it had.
    #[error(
        "the pseudo-terminal /dev/pts/{index} cannot be made here: raise kernel.pty.max, or give /dev/pts to the receiver"
    )]
    Terminal {
        /// Its number.
        index: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The process was made without a `/dev/pts` of its own.
    #[error("the program has opened a pseudo-terminal meanwhile: try again")]
    TerminalMeanwhile,
    /// Threads were made that have what the program has given up or changed since.
    #[error("the program has changed its capabilities, or how it keeps them, meanwhile: try again")]
    CapabilitiesMeanwhile,
    /// Pages that came ahead, for something else than private memory.
    #[error("pages {0} came ahead and have no place here")]
    NoPlaceAhead(PageRange),
    /// Pages that are written directly.
    #[error("writing pages {range} of the new process")]
    Write {
        /// Where.
        range: PageRange,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl RestoreError {
    /// Everything in one line, causes included.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}

/// A path as text.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
