//! The manifest: everything about a process but the bytes of its pages.
//!
//! Sent twice: in `Reserve` while the process still runs (so that refusal comes early), and in `Switchover`
//! when it stands still. Strings from the kernel are bytes: nothing says that a path is UTF-8.

use alloc::string::String;
use alloc::vec::Vec;

use memory::{Addr, PageRange, Vma};
use serde::{Deserialize, Serialize};

use crate::ghost::{GhostRecord, LockRecord, ProcValue};
use crate::terminal::{TerminalEnd, TerminalRecord};

/// A process image without its pages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// What the source machine is.
    pub host: HostFacts,
    /// What all threads share.
    pub process: ProcessRecord,
    /// Every thread; the first one is the main thread.
    pub threads: Vec<ThreadRecord>,
    /// Files that mappings, descriptors and `/proc/self/exe` refer to by index.
    pub files: Vec<FileRecord>,
    /// Shared-memory objects that mappings and descriptors refer to by index.
    pub objects: Vec<ObjectRecord>,
    /// Every mapping but vDSO, vvar and the parasite's arena; ascending, without overlap.
    pub vmas: Vec<Vma>,
    /// Pipes whose both ends are in the process, or whose other end is lost (nobody has it at the destination).
    pub pipes: Vec<PipeRecord>,
    /// Pseudo-terminals whose master is in the process.
    pub terminals: Vec<TerminalRecord>,
    /// Files without a name that objects, descriptions and the working directory refer to by index.
    pub ghosts: Vec<GhostRecord>,
    /// Locks on open files.
    pub locks: Vec<LockRecord>,
    /// System V semaphores and message queues that only this process uses.
    pub system_v: Vec<SystemVRecord>,
    /// Open file descriptions, referred to by index.
    pub descriptions: Vec<Description>,
    /// Descriptors, ascending.
    pub descriptors: Vec<Descriptor>,
    /// Pages that must be in place before the first instruction: signal frames, what the kernel reads when a
    /// thread exits, changed pages of private file mappings, objects that a descriptor can read.
    pub eager: Vec<PageRange>,
    /// Ranges whose pages come after `Run`.
    pub lazy: Vec<PageRange>,
    /// Pages that were sent while the process still ran and hold the same bytes; neither eager nor fetched later.
    pub kept: Vec<PageRange>,
    /// Pages that may not be touched (`MADV_GUARD_INSTALL`); ascending, in no other range here.
    pub guards: Vec<PageRange>,
    /// The parasite's state, all zero at rest: the destination leaves it zero instead of fetching it.
    pub parasite_state: PageRange,
    /// Address of the parasite's leaving gate (see `sender-lib`): the last instructions before the program's own.
    pub leaving_gate: Addr,
    /// For a tree of processes, which somebody else builds: what it is, in the words of both ends. Then nothing else
    /// here counts but `eager` and `lazy`.
    pub instance: Vec<u8>,
}

/// What must be equal, or at least wide enough, on both machines.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostFacts {
    /// `/proc/sys/kernel/random/boot_id`: equal on both sides only within one running kernel.
    pub boot_id: [u8; 16],
    /// Layout of the extended register state in signal frames.
    pub xsave: XsaveLayout,
    /// The kernel's code page.
    pub vdso: VdsoRecord,
    /// What its clocks showed.
    pub clocks: ClockRecord,
    /// `/sys/devices/system/cpu/online`: a thread that may run on all of these is bound to none.
    pub processors: Vec<u8>,
}

/// Clocks that begin with the machine, as the process sees them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClockRecord {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub boottime_ns: u64,
    /// `/proc/self/timens_offsets`: how far they are ahead of the machine's; empty where there is no such file.
    pub offsets: Vec<u8>,
}

/// CPUID leaf 0xd, as far as signal frames depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct XsaveLayout {
    /// XCR0: state components that the kernel has switched on.
    pub components: u64,
    /// Bytes of the standard-format area for those components (CPUID 0xd, 0, EBX).
    pub size: u32,
    /// Instruction-set words that programs choose code by: CPUID 1 (ECX, EDX) and 7.0 (EBX, ECX, EDX).
    pub features: [u32; 5],
}

/// Where vvar and vDSO are and which build the vDSO is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VdsoRecord {
    /// vvar, its clock pages and vDSO, which the kernel maps in one piece; empty if the program unmapped them.
    pub range: PageRange,
    /// Where the vDSO's code begins.
    pub code: Addr,
    /// The vDSO as the program has it, code and symbols; empty in `Switchover`.
    pub image: Vec<u8>,
}

/// State that all threads of the process share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Process id in its own PID namespace.
    pub pid: u32,
    /// `getsid(2)` and `getpgid(2)`; 0 for one whose leader is outside of that namespace.
    pub session_and_group: [u32; 2],
    /// Index into `files`: `/proc/self/exe`.
    pub executable: u32,
    /// Fields of `struct prctl_mm_map`.
    pub mm: MmFields,
    /// `/proc/self/auxv`, whole pairs of words.
    pub auxv: Vec<u8>,
    /// KiB of its memory that is in use and not of files, what is swapped out included.
    pub resident_kib: u64,
    /// Working directory.
    pub working_directory: Vec<u8>,
    /// Index into `ghosts`, if the working directory is deleted.
    pub working_ghost: Option<u32>,
    /// On whose behalf it acts.
    pub credentials: Credentials,
    /// `umask(2)`.
    pub umask: u32,
    /// `personality(2)`.
    pub personality: u32,
    /// `RLIMIT_*` by number, 0 to 15.
    pub limits: Vec<ResourceLimit>,
    /// Signals 1 to 64, as `rt_sigaction(2)` has them.
    pub actions: Vec<SignalAction>,
    /// Signals that wait for the whole process, in their order.
    pub pending: Vec<SignalInfo>,
    /// `setitimer(2)`: real, virtual, profiling.
    pub interval_timers: [TimerTimes; 3],
    /// `timer_create(2)`, ascending by id.
    pub timers: Vec<TimerRecord>,
    /// `PR_GET_DUMPABLE`
    pub dumpable: u8,
    /// `PR_GET_KEEPCAPS`
    pub keep_capabilities: bool,
    /// `PR_GET_CHILD_SUBREAPER`
    pub child_subreaper: bool,
    /// `PR_GET_THP_DISABLE`
    pub thp_disable: bool,
    /// `MEMBARRIER_CMD_GET_REGISTRATIONS`: bits of membarrier(2)'s commands.
    pub barriers: u32,
    /// What files below `/proc/self` say.
    pub proc_values: Vec<ProcValue>,
    /// What prctl(2) says, by their places in [`crate::PROCESS_SETTINGS`].
    pub settings: Vec<u32>,
}

/// Who a thread is to the kernel. The destination takes these on or refuses; it never lets it have more than here.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Credentials {
    /// Effective user id.
    pub user: u32,
    /// Effective group id.
    pub group: u32,
    /// Real and saved user id, and that for file access.
    pub other_users: [u32; 3],
    /// Real and saved group id, and that for file access.
    pub other_groups: [u32; 3],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// `CapEff`, bit n for capability n.
    pub capabilities: u64,
    /// `CapPrm`: what it can take on.
    pub permitted: u64,
    /// `CapInh`
    pub inheritable: u64,
    /// `CapBnd`: what a program that it starts can have at most.
    pub bounding: u64,
    /// `CapAmb`: what such a program keeps.
    pub ambient: u64,
}

/// Soft and hard value, `u64::MAX` for unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// What holds.
    pub soft: u64,
    /// Up to where it may be raised.
    pub hard: u64,
}

/// When a timer goes off; all zero while it is not armed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TimerTimes {
    /// Between two expiries, in nanoseconds; 0 for a timer that goes off once.
    pub interval_ns: u64,
    /// Until the next expiry, in nanoseconds; 0 for one that is not armed.
    pub remaining_ns: u64,
}

/// A timer made by `timer_create(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimerRecord {
    /// What the kernel calls it.
    pub id: u32,
    /// `CLOCK_*`
    pub clock: i32,
    /// `sigev_signo`
    pub signal: u32,
    /// `sigev_value`
    pub value: u64,
    /// `sigev_notify`: 0 signals the process, 1 nobody, 4 a thread.
    pub notify: u32,
    /// The thread to signal.
    pub thread: u32,
    /// When it goes off.
    pub times: TimerTimes,
}

/// `struct kernel_sigaction`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SignalAction {
    /// Handler, 0 for default, 1 for ignore.
    pub handler: u64,
    /// `SA_*`
    pub flags: u64,
    /// `SA_RESTORER`'s function.
    pub restorer: u64,
    /// Signals blocked in the handler.
    pub mask: u64,
}

/// Fields of `struct prctl_mm_map` (prctl(2), `PR_SET_MM_MAP`) that describe the program's own layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MmFields {
    /// Start of the program text.
    pub start_code: u64,
    /// End of the program text.
    pub end_code: u64,
    /// Start of initialised data.
    pub start_data: u64,
    /// End of initialised data.
    pub end_data: u64,
    /// Start of the heap.
    pub start_brk: u64,
    /// Current break, byte-exact.
    pub brk: u64,
    /// Bottom of the stack.
    pub start_stack: u64,
    /// Start of the arguments.
    pub arg_start: u64,
    /// End of the arguments.
    pub arg_end: u64,
    /// Start of the environment.
    pub env_start: u64,
    /// End of the environment.
    pub env_end: u64,
}

/// One thread at rest: its registers are in a signal frame in its own memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ThreadRecord {
    /// Thread id in the process's PID namespace.
    pub tid: u32,
    /// Address of the `struct ucontext` that `rt_sigreturn` shall restore; 0 in `Reserve`.
    pub frame: Addr,
    /// Bytes from `frame` to the end of the extended register state.
    pub frame_len: u64,
    /// FS base: the thread pointer.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// `set_tid_address(2)`
    pub clear_child_tid: Addr,
    /// `set_robust_list(2)`: head and length.
    pub robust_list: (Addr, u64),
    /// `rseq(2)`, if registered.
    pub rseq: Option<RseqRecord>,
    /// `PR_GET_NAME`
    pub name: [u8; 16],
    /// `PR_GET_TIMERSLACK`
    pub timer_slack_ns: u64,
    /// How it is scheduled, as [`crate::Scheduling`] takes it apart.
    pub scheduling: Vec<u8>,
    /// `PR_GET_PDEATHSIG`; 0 for none.
    pub death_signal: u32,
    /// `PR_GET_NO_NEW_PRIVS`
    pub no_new_privileges: bool,
    /// `get_mempolicy(2)`: mode and flags, and the first 64 nodes; 0 for the default.
    pub memory_policy: (u32, u64),
    /// Who it is, if it is not who the process is.
    pub credentials: Option<Credentials>,
    /// Signals that wait for this thread alone, in their order.
    pub pending: Vec<SignalInfo>,
}

/// A signal that waits because it is blocked: `siginfo_t` as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignalInfo(pub [u64; 16]);

impl SignalInfo {
    /// `si_signo`
    #[must_use]
    pub const fn number(&self) -> i32 {
        let Self([first, ..]) = self;
        let [a, b, c, d, ..] = first.to_le_bytes();
        i32::from_le_bytes([a, b, c, d])
    }

    /// `si_code`: who sent it and how.
    #[must_use]
    pub const fn code(&self) -> i32 {
        let Self([_, second, ..]) = self;
        let [a, b, c, d, ..] = second.to_le_bytes();
        i32::from_le_bytes([a, b, c, d])
    }
}

/// A restartable-sequences registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RseqRecord {
    /// Where `struct rseq` is.
    pub addr: Addr,
    /// Its registered length in bytes.
    pub len: u32,
    /// The signature before abort handlers.
    pub signature: u32,
}

/// A file that the process has mapped or open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileRecord {
    /// Absolute path in the process's mount namespace.
    pub path: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// Device and inode: prove the same file together with an equal boot id.
    pub identity: (u64, u64),
    /// How another machine can tell that its file is the same.
    pub proof: FileProof,
}

/// Evidence of a file's content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FileProof {
    /// The GNU build id of an ELF file.
    BuildId(Vec<u8>),
    /// XXH64 of the whole content with the seeds 0 and 1.
    Content([u8; 16]),
    /// Only open, not mapped: the path is enough.
    None,
}

/// A shared-memory object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// The name that `memfd_create(2)` was given.
    pub name: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// `st_mode`; 0 if no descriptor is open on it.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// `F_GET_SEALS`
    pub seals: u32,
    /// Its content where a descriptor can read it: (offset, bytes) of every extent. Of objects that are only mapped what
    /// no mapping shows at the moment; their other pages come like all others.
    pub content: Vec<(u64, Vec<u8>)>,
    /// Its content has travelled ahead ([`crate::Kind::Content`]), and `content` is empty.
    pub streamed: bool,
    /// Index into `ghosts`, if it was a file with a name.
    pub ghost: Option<u32>,
    /// Its line of `/proc/sysvipc/shm` (proc(5)), if it is a segment of System V shared memory; else empty.
    pub segment: Vec<u8>,
}

/// A System V semaphore set or message queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SystemVRecord {
    /// Its line of `/proc/sysvipc/sem` or `/proc/sysvipc/msg` (proc(5)).
    pub line: Vec<u8>,
    /// What is in it.
    pub state: SystemVState,
}

/// What is in a [`SystemVRecord`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SystemVState {
    /// The value of each semaphore, two bytes in little endian.
    Semaphores(Vec<u8>),
    /// A message queue.
    Queue {
        /// `msg_qbytes`
        capacity: u64,
        /// Its messages in their order, each with its type in front, eight bytes in little endian. Empty in `Reserve`.
        messages: Vec<Vec<u8>>,
    },
}

/// A pipe with its bytes in flight.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PipeRecord {
    /// Where it is, if it is a FIFO; a deleted one says so behind its path. Empty for a pipe.
    pub path: Vec<u8>,
    /// `F_GETPIPE_SZ`, bytes.
    pub capacity: u32,
    /// Written and not yet read.
    pub content: Vec<u8>,
}

/// A number in the descriptor table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    /// The number.
    pub fd: u32,
    /// `FD_CLOEXEC`
    pub close_on_exec: bool,
    /// Index into `descriptions`; numbers made by dup share one.
    pub description: u32,
}

/// An open file description.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Description {
    /// `F_GETFL`
    pub flags: u32,
    /// Inode number of what it is open on: other records name it by that.
    pub inode: u64,
    /// `st_mode`
    pub mode: u32,
    /// The text of `/proc/self/fdinfo/FD` for files, directories, shared-memory objects and anonymous inodes.
    pub info: Vec<u8>,
    /// What it is open on.
    pub kind: DescriptionKind,
}

/// Which of the receiver's own streams stands in for a terminal or an outside pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StreamKind {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// Which side of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PipeEnd {
    /// Reads.
    Read,
    /// Writes.
    Write,
}

/// A socket, as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SocketRecord {
    /// `SO_DOMAIN`
    pub domain: u32,
    /// `SO_TYPE`
    pub kind: u32,
    /// `SO_PROTOCOL`
    pub protocol: u32,
    /// `listen(2)`'s backlog, if it waits for connections.
    pub backlog: Option<u32>,
    /// Inode of the Unix socket at the other end, which is in the process too: of one that listens if the connection has
    /// not been accepted yet; 0 if there is none (any more).
    pub peer: u64,
    /// `getsockname(2)`, as the kernel writes it; empty if it has no address.
    pub address: Vec<u8>,
    /// `getpeername(2)`; empty if it has no other side.
    pub peer_address: Vec<u8>,
    /// What `sock_diag(7)` answered: message header, fixed part, attributes. Empty if it does not know the socket.
    pub diagnosis: Vec<u8>,
    /// Mode, owner and group of its name in the file system, as long as that leads to it.
    pub name: Option<(u32, u32, u32)>,
    /// Options that could be read, one behind the other: place in [`crate::SOCKET_OPTIONS`], length, value.
    pub options: Vec<u8>,
    /// `SO_GET_FILTER`: classic BPF instructions of 8 bytes each.
    pub filter: Vec<u8>,
    /// Received and not yet read.
    pub messages: Vec<MessageRecord>,
    /// An open TCP connection that moves or is relayed, as [`crate::Connection`] has it; else empty.
    pub connection: Vec<u8>,
}

/// A message that a socket has received, or bytes of a stream up to where descriptors come with them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MessageRecord {
    /// The bytes.
    pub content: Vec<u8>,
    /// Who sent it, as recvfrom(2) would say.
    pub sender: Vec<u8>,
    /// Descriptors that travel with it: indices into `descriptions`.
    pub descriptions: Vec<u32>,
}

/// What an open file description refers to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DescriptionKind {
    /// A regular file or a directory; anything that is open with `O_PATH`.
    File {
        /// Index into `files`.
        file: u32,
    },
    /// A character device that holds no state: null, zero, full, random, urandom, tty.
    Device {
        /// Its path.
        path: Vec<u8>,
    },
    /// A terminal or outside pipe on one of the standard streams.
    Stream(StreamKind),
    /// One end of a pipe inside the process, or of a FIFO.
    Pipe {
        /// Index into `pipes`.
        pipe: u32,
        /// Which end; a FIFO may be open as both, see `flags`.
        end: PipeEnd,
    },
    /// An anonymous inode of the kernel, all of whose state is in `info`: eventfd, epoll, timerfd, signalfd, inotify,
    /// pidfd.
    Anonymous {
        /// What the kernel calls it: `[eventfd]`, `[eventpoll]`, `[timerfd]`, `[signalfd]`, `inotify`, `[pidfd]`.
        name: Vec<u8>,
    },
    /// A socket that is made again.
    Socket(SocketRecord),
    /// A connection to the outside: reset at the destination, which was said beforehand.
    LostConnection {
        /// `SO_DOMAIN`
        domain: u32,
    },
    /// A deleted directory or symbolic link.
    Ghost {
        /// Index into `ghosts`.
        ghost: u32,
    },
    /// A memfd, or a deleted file.
    Object {
        /// Index into `objects`.
        object: u32,
    },
    /// An end of a pseudo-terminal inside the process.
    Terminal {
        /// Index into `terminals`.
        terminal: u32,
        /// Which end.
        end: TerminalEnd,
    },
}

impl Manifest {
    /// One line for logs: counts only, no path.
    #[must_use]
    pub fn summary(&self) -> String {
        alloc::format!(
            "pid {}, {} threads, {} mappings, {} descriptors",
            self.process.pid,
            self.threads.len(),
            self.vmas.len(),
            self.descriptors.len()
        )
    }
}
