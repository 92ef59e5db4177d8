//! Work for the child, gathered into as few programs as possible.
//!
//! Each program costs two switches of context, and on a busy machine each of these waits for a processor while the
//! process stands still.

use std::os::fd::{AsFd, OwnedFd};

use memory::Addr;

use super::blank::Begun;
use super::layout::{MAX_DATA_BYTES, MAX_OPS};
use super::{BlankChild, ChildError, Program};

/// A program under construction and the descriptors that it will receive.
pub(super) struct Batch<'a> {
    child: &'a BlankChild,
    program: Program,
    fds: Vec<OwnedFd>,
}

impl<'a> Batch<'a> {
    /// An empty batch.
    pub(super) const fn new(child: &'a BlankChild) -> Self {
        Self { child, program: child.program(), fds: Vec::new() }
    }

    /// The child that the work is for.
    pub(super) const fn child(&self) -> &'a BlankChild {
        self.child
    }

    /// The program, for one more unit of work: at most half of what a program holds. Addresses in it that were
    /// given out before this call are not valid any more.
    pub(super) fn unit(&mut self) -> Result<&mut Program, ChildError> {
        let (ops, data) = (self.program.len() as u64, self.program.data_bytes().len() as u64);
        if ops > MAX_OPS / 2 || data > MAX_DATA_BYTES / 2 {
            self.run()?;
        }
        Ok(&mut self.program)
    }

    /// The program, for the rest of a unit of work.
    pub(super) const fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// Passes `fd` to the child; where its number there will stand.
    pub(super) fn pass(&mut self, fd: OwnedFd, close_on_exec: bool) -> Addr {
        self.fds.push(fd);
        self.program.receive(self.child.control_number(), close_on_exec)
    }

    /// Runs what has been gathered.
    pub(super) fn run(&mut self) -> Result<(), ChildError> {
        if !self.program.is_empty() {
            let begun = self.begin()?;
            self.child.end(&begun)?;
        }
        Ok(())
    }

    /// Lets the child begin with what has been gathered.
    pub(super) fn begin(&mut self) -> Result<Begun, ChildError> {
        let program = std::mem::replace(&mut self.program, self.child.program());
        let fds = std::mem::take(&mut self.fds);
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.child.begin(program, &fds)
    }
}
