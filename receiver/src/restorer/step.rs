//! What a syscall program is doing, for messages: *what, to what*.

use std::fmt;

use memory::{Addr, PageRange};

/// One step of rebuilding a process; every operation belongs to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Leaving the parent's image.
    BecomeBlank,
    /// Waiting for the parent.
    Idle,
    /// A mapping.
    Map(PageRange),
    /// Content that does not hold any more.
    Drop(PageRange),
    /// A mapping that is not wanted any more.
    Unmap(PageRange),
    /// The kernel's code page.
    MapVdso(Addr),
    /// The userfaultfd.
    CreateUffd,
    /// The program break, the arguments and the executable.
    SetMemoryFields,
    /// A signal's action.
    SetSignalAction(u32),
    /// The working directory.
    ChangeDirectory,
    /// umask, personality and the flags of prctl.
    SetProcessFlags,
    /// A resource limit.
    SetLimit(u32),
    /// A descriptor.
    Descriptor(u32),
    /// The controlling terminal.
    TakeTerminal,
    /// A lock on the file of a descriptor.
    Lock(u32),
    /// A segment of System V shared memory, by its id.
    Segment(u32),
    /// Making a System V semaphore set or message queue.
    SystemV(u32),
    /// Pages that must not be touched.
    Guard(PageRange),
    /// A command of membarrier(2), or a file below `/proc/self`.
    SetProcessValue,
    /// An address that a socket had.
    Bind(u32),
    /// A thread, by its id.
    Thread(u32),
    /// A thread's scheduling.
    Schedule(u32),
    /// A thread's restartable-sequences area.
    Rseq(u32),
    /// A pending signal.
    RaiseSignal(u32),
    /// A timer of timer_create, by its id.
    MakeTimer(u32),
    /// Setting a timer going.
    ArmTimer,
    /// The last steps.
    Leave,
    /// A probe by a test.
    Probe,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BecomeBlank => write!(f, "leaving the receiver's own image"),
            Self::Idle => write!(f, "waiting for the next program"),
            Self::Map(range) => write!(f, "mapping {range}"),
            Self::Drop(range) => write!(f, "dropping the content of {range}"),
            Self::Unmap(range) => write!(f, "unmapping {range}"),
            Self::MapVdso(addr) => write!(f, "mapping the vDSO at {addr}"),
            Self::CreateUffd => write!(f, "creating the userfaultfd"),
            Self::SetMemoryFields => write!(f, "setting program break, arguments and executable"),
            Self::SetSignalAction(signal) => write!(f, "setting the action of signal {signal}"),
            Self::ChangeDirectory => write!(f, "entering the working directory"),
            Self::SetProcessFlags => write!(f, "setting umask, personality and process flags"),
            Self::SetLimit(resource) => write!(f, "setting resource limit {resource}"),
            Self::Descriptor(fd) => write!(f, "opening descriptor {fd}"),
            Self::TakeTerminal => write!(f, "taking the controlling terminal"),
            Self::Lock(fd) => write!(f, "locking the file of descriptor {fd}"),
            Self::Segment(id) => write!(f, "making System V shared memory {id}"),
            Self::SystemV(id) => write!(f, "making System V semaphores or message queue {id}"),
            Self::Guard(range) => write!(f, "guarding {range}"),
            Self::SetProcessValue => write!(f, "setting values that /proc tells of the process"),
            Self::Bind(fd) => write!(f, "binding the socket of descriptor {fd}"),
            Self::Thread(tid) => write!(f, "creating thread {tid}"),
            Self::Schedule(tid) => write!(f, "scheduling thread {tid} as it was"),
            Self::Rseq(tid) => write!(f, "registering the rseq area of thread {tid}"),
            Self::RaiseSignal(signal) => write!(f, "raising pending signal {signal}"),
            Self::MakeTimer(id) => write!(f, "making timer {id}"),
            Self::ArmTimer => write!(f, "setting a timer going"),
            Self::Leave => write!(f, "leaving for the program"),
            Self::Probe => write!(f, "probing"),
        }
    }
}
