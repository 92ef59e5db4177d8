//! The session's hold on a blank child: run a program in it, read the results.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use memory::{Addr, PageRange, USER_END};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, setsockopt, socketpair,
    sockopt,
};
use nix::sys::time::TimeVal;
use sys::Errno;

use super::layout::{Layout, MAX_DATA_BYTES, MAX_OPS, OP_BYTES};
use super::process::{forbid_huge_pages, have_no_arguments};
use super::{Hole, Program, Slot, Step, trampoline};
use crate::guardian::{Blank, Guardian, GuardianError, Identity, Namespaces, wait_for};

/// How long one program may run.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(30);
/// How long the child may leave a message lying.
const SEND_SECONDS: i64 = 10;

/// What went wrong with a blank child. The child is of no use then.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error(transparent)]
    Guardian(#[from] GuardianError),
    /// The memory that parent and child share.
    #[error("preparing the memory shared with the new process")]
    Memory(#[source] io::Error),
    /// The socket between parent and child.
    #[error("talking to the new process")]
    Talk(#[source] io::Error),
    /// A program has more operations or data than there is room for.
    #[error("{ops} operations with {data} bytes of data are more than one program holds")]
    TooLong {
        /// How many operations.
        ops: usize,
        /// How many bytes.
        data: usize,
    },
    /// A call that had to succeed did not.
    #[error("{step}")]
    Refused {
        /// What it was for.
        step: Step,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// The child has ended in the midst of a program.
    #[error("the new process died while {step}")]
    Died {
        /// What the program began with.
        step: Step,
    },
    /// The child has not come to the end of a program.
    #[error("{step} took more than {} s", PROGRAM_DEADLINE.as_secs())]
    Silent {
        /// What the program began with.
        step: Step,
    },
}

/// The results of a program that has run to its end.
#[derive(Clone, Debug)]
pub struct Results(Vec<u64>);

impl Results {
    /// What the call returned, or its error.
    ///
    /// # Errors
    /// The kernel's error number.
    pub fn of(&self, slot: Slot) -> Result<u64, Errno> {
        let raw = self.0.get(slot.index()).copied().unwrap_or(0).cast_signed();
        match i32::try_from(raw) {
            Ok(negative @ -4095..0) => Err(Errno(-negative)),
            _ => Ok(raw.cast_unsigned()),
        }
    }
}

/// A program that a child has begun with.
#[derive(Debug)]
pub struct Begun(Program);

/// A process that runs programs and nothing else.
#[derive(Debug)]
pub struct BlankChild {
    /// Declared first, so that it is dropped first: the guardian kills the child.
    guardian: Guardian,
    memory: File,
    control: OwnedFd,
    control_number: u32,
    layout: Layout,
    pidfd: OwnedFd,
    pid: u32,
    identity: Identity,
    /// Programs that stay where they are: threads'.
    resident: Vec<Program>,
}

impl BlankChild {
    /// Starts a child with the ids of `identity` in a new PID namespace (and whatever others are wanted), with nothing
    /// mapped but `hole` and nothing open but the standard streams and a socket at `control_number`.
    ///
    /// # Errors
    /// See [`ChildError`].
    pub fn start(
        identity: Identity,
        hole: Hole,
        control_number: u32,
        namespaces: Namespaces<'_>,
    ) -> Result<Self, ChildError> {
        let layout = Layout::new(hole);
        let memory = File::from(
            memfd_create(c"posthaste", MFdFlags::MFD_CLOEXEC).map_err(|e| ChildError::Memory(e.into()))?,
        );
        memory.set_len(hole.range().len()).map_err(ChildError::Memory)?;
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (control, theirs) = pair.map_err(|e| ChildError::Talk(e.into()))?;
        setsockopt(&control, sockopt::SendTimeout, &TimeVal::new(SEND_SECONDS, 0))
            .map_err(|e| ChildError::Talk(e.into()))?;
        prepare(&memory, layout, control_number).map_err(ChildError::Memory)?;
        let mut first = Program::at(layout.program(), layout.data());
        become_blank(&mut first, layout, memory.as_fd());
        let first = finished(first, layout)?;
        install(&memory, layout, &first).map_err(ChildError::Memory)?;
        let (guardian, child) = Guardian::start(&Blank {
            namespaces,
            identity,
            memory: memory.as_fd(),
            control: theirs.as_fd(),
            control_number,
            hole: hole.range().start(),
            hole_len: hole.range().len(),
            first: first.start(),
        })?;
        drop(theirs);
        let (pidfd, pid) = (child.pidfd, child.pid);
        let resident = Vec::new();
        let child =
            Self { guardian, memory, control, control_number, layout, pidfd, pid, identity, resident };
        child.await_done(&first)?;
        Ok(child)
    }

    /// By which ids it is known.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// An empty program to be run next.
    #[must_use]
    pub const fn program(&self) -> Program {
        Program::at(self.layout.program(), self.layout.data())
    }

    /// Runs `program` to its end. Each of `fds` can be received by it with [`Program::receive`], in order.
    ///
    /// # Errors
    /// See [`ChildError`].
    pub fn run(&self, program: Program, fds: &[BorrowedFd<'_>]) -> Result<Results, ChildError> {
        self.end(&self.begin(program, fds)?)
    }

    /// Lets it begin with `program`; nothing else can be run before its [`end`](Self::end).
    ///
    /// # Errors
    /// See [`ChildError`].
    pub fn begin(&self, program: Program, fds: &[BorrowedFd<'_>]) -> Result<Begun, ChildError> {
        let program = finished(program, self.layout)?;
        install(&self.memory, self.layout, &program).map_err(ChildError::Memory)?;
        self.send(&program, &[])?;
        for fd in fds {
            self.send(&program, &[fd.as_raw_fd()])?;
        }
        Ok(Begun(program))
    }

    /// Waits for the end of what has begun.
    ///
    /// # Errors
    /// See [`ChildError`].
    pub fn end(&self, Begun(program): &Begun) -> Result<Results, ChildError> {
        self.await_done(program)?;
        self.results(program).map_err(ChildError::Memory)
    }

    /// Puts `program` at its own place, where it stays: a thread will run it.
    ///
    /// # Errors
    /// [`ChildError::Memory`]
    pub fn place(&mut self, program: Program) -> Result<(), ChildError> {
        install(&self.memory, self.layout, &program).map_err(ChildError::Memory)?;
        self.resident.push(program);
        Ok(())
    }

    /// Sets a word of 32 bits in the hole.
    ///
    /// # Errors
    /// [`ChildError::Memory`]
    pub fn set_word(&self, at: Addr, value: u32) -> Result<(), ChildError> {
        let offset = self.layout.offset(at);
        self.memory.write_all_at(&value.to_le_bytes(), offset).map_err(ChildError::Memory)
    }

    /// Reads back `N` bytes of the hole.
    ///
    /// # Errors
    /// [`ChildError::Memory`]
    pub fn read<const N: usize>(&self, at: Addr) -> Result<[u8; N], ChildError> {
        let mut bytes = [0; N];
        self.memory.read_exact_at(&mut bytes, self.layout.offset(at)).map_err(ChildError::Memory)?;
        Ok(bytes)
    }

    /// Waits for the end of an idle child, at most so long.
    ///
    /// # Errors
    /// [`ChildError::Died`] when it has come.
    pub fn wait_for_its_end(&self, at_most: Duration) -> Result<(), ChildError> {
        match wait_for(self.control.as_fd(), at_most).map_err(ChildError::Talk)? {
            true => Err(ChildError::Died { step: Step::Idle }),
            false => Ok(()),
        }
    }

    /// Where things are in the hole.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The number of the control socket in the child.
    #[must_use]
    pub const fn control_number(&self) -> u32 {
        self.control_number
    }

    /// Refers to the child.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The child's id in this process's PID namespace.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The child's guardian.
    pub const fn guardian(&mut self) -> &mut Guardian {
        &mut self.guardian
    }

    /// Gives the child up as a blank: what stays is its guardian.
    #[must_use]
    pub fn into_guardian(self) -> (Guardian, OwnedFd) {
        (self.guardian, self.pidfd)
    }

    /// The same in a copy of the process that has let the child go: the other descriptors were closed there.
    #[must_use]
    pub fn succeed(self) -> (Guardian, OwnedFd) {
        let Self { guardian, memory, control, pidfd, .. } = self;
        std::mem::forget((memory, control));
        (guardian, pidfd)
    }

    fn send(&self, program: &Program, fds: &[i32]) -> Result<(), ChildError> {
        let token = 1_u64.to_le_bytes();
        let rights = [ControlMessage::ScmRights(fds)];
        let (len, control): (usize, &[ControlMessage<'_>]) =
            if fds.is_empty() { (8, &[]) } else { (1, &rights) };
        let bytes = [IoSlice::new(token.get(..len).unwrap_or_default())];
        match sendmsg::<()>(self.control.as_raw_fd(), &bytes, control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => Ok(()),
            Err(errno) => Err(self.failure(program)?.unwrap_or(ChildError::Talk(errno.into()))),
        }
    }

    fn await_done(&self, program: &Program) -> Result<(), ChildError> {
        let step = program.step_of(0).unwrap_or(Step::Idle);
        if !wait_for(self.control.as_fd(), PROGRAM_DEADLINE).map_err(ChildError::Talk)? {
            return Err(ChildError::Silent { step });
        }
        let mut token = [0; 8];
        let got = recv(self.control.as_raw_fd(), &mut token, MsgFlags::MSG_DONTWAIT);
        if let Some(failure) = self.failure(program)? {
            return Err(failure);
        }
        match got {
            Ok(0) | Err(nix::errno::Errno::ECONNRESET) => Err(ChildError::Died { step }),
            Ok(_) => Ok(()),
            Err(errno) => Err(ChildError::Talk(errno.into())),
        }
    }

    /// The first operation that has failed, if any.
    fn failure(&self, program: &Program) -> Result<Option<ChildError>, ChildError> {
        let at = u64::from_le_bytes(self.read(self.layout.failed())?);
        if at == 0 {
            return Ok(None);
        }
        let result = i64::from_le_bytes(self.read(Addr(at + OP_BYTES - 8))?);
        let step = std::iter::once(program).chain(&self.resident).find_map(|program| {
            let index = at.checked_sub(program.start().0)? / OP_BYTES;
            program.step_of(usize::try_from(index).ok()?)
        });
        let errno = Errno(i32::try_from(-result).unwrap_or(0));
        Ok(Some(ChildError::Refused { step: step.unwrap_or(Step::Idle), errno }))
    }

    fn results(&self, program: &Program) -> io::Result<Results> {
        let mut bytes = program.op_bytes();
        self.memory.read_exact_at(&mut bytes, self.layout.offset(program.start()))?;
        let (ops, _) = bytes.as_chunks::<64>();
        let results = ops.iter().filter_map(|op| op.last_chunk::<8>());
        Ok(Results(results.map(|word| u64::from_le_bytes(*word)).collect()))
    }
}

/// Writes interpreter, idle loop and failure path.
fn prepare(memory: &File, layout: Layout, control_number: u32) -> io::Result<()> {
    memory.write_all_at(trampoline::code(), 0)?;
    memory.write_all_at(&layout.failure().0.to_le_bytes(), layout.offset(layout.on_failure()))?;
    memory.write_all_at(&1_u64.to_le_bytes(), layout.offset(layout.token()))?;
    let control = u64::from(control_number);
    let mut idle = Program::at(layout.idle_loop(), layout.data());
    idle.step(Step::Idle);
    idle.call(libc::SYS_write, [control, layout.token().0, 8]);
    idle.call_nonzero(libc::SYS_read, [control, layout.token().0, 8]);
    idle.jump(layout.program());
    install(memory, layout, &idle)?;
    let mut failure = Program::at(layout.failure(), layout.data());
    failure.attempt(libc::SYS_write, [control, layout.token().0, 8]);
    failure.attempt(libc::SYS_read, [control, layout.token().0, 8]);
    failure.attempt(libc::SYS_exit_group, [125]);
    install(memory, layout, &failure)
}

/// Leaves behind everything that the child has from its parent.
fn become_blank(program: &mut Program, layout: Layout, memory: BorrowedFd<'_>) {
    const ROBUST_LIST_BYTES: u64 = 24;
    const UNREGISTER: u64 = 1;
    program.step(Step::BecomeBlank);
    if let Some(own) = sys::birth::own_rseq() {
        let arguments = [own.address, u64::from(own.len), UNREGISTER, u64::from(own.signature)];
        program.call(libc::SYS_rseq, arguments);
    }
    program.call(libc::SYS_set_robust_list, [0, ROBUST_LIST_BYTES]);
    program.call(libc::SYS_set_tid_address, [0]);
    // No alternate stack: it would be in memory that is gone.
    let disabled = program.words(&[0, 2, 0]);
    program.call(libc::SYS_sigaltstack, [disabled.0, 0]);
    let hole = layout.hole().range();
    let everything = [PageRange::new(Addr(0), hole.start()), PageRange::new(hole.end(), Addr(USER_END))];
    for range in everything.into_iter().flatten() {
        program.unmap(range);
    }
    have_no_arguments(program, hole.start());
    // One page that is written ahead must not bring its neighbours, as zeros.
    forbid_huge_pages(program, true);
    program.close(memory.as_raw_fd().cast_unsigned());
    for stream in 0..3 {
        program.attempt(libc::SYS_close, [stream]);
    }
}

fn finished(mut program: Program, layout: Layout) -> Result<Program, ChildError> {
    program.jump(layout.idle_loop());
    let (ops, data) = (program.len(), program.data_bytes().len());
    if ops as u64 > MAX_OPS || data as u64 > MAX_DATA_BYTES {
        return Err(ChildError::TooLong { ops, data });
    }
    Ok(program)
}

fn install(memory: &File, layout: Layout, program: &Program) -> io::Result<()> {
    let (mut bytes, start) = (program.op_bytes(), layout.offset(program.start()));
    let data_start = layout.offset(program.data_start());
    if data_start - start <= MOST_APART {
        // A thread's lie close by: one call for both.
        bytes.resize(usize::try_from(data_start - start).unwrap_or(bytes.len()), 0);
        bytes.extend_from_slice(program.data_bytes());
        return memory.write_all_at(&bytes, start);
    }
    memory.write_all_at(&bytes, start)?;
    memory.write_all_at(program.data_bytes(), data_start)
}

/// Bytes from a program's operations to its data, if both are written by one call.
const MOST_APART: u64 = 4096;
