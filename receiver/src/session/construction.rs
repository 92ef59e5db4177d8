//! The restorer's stages behind one face: which of them has been reached.

use std::mem;

use engine::Failure;
use memory::PageRange;
use protocol::{Header, Manifest, Reserved};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::uffd::Uffd;

use crate::guardian::Guardian;
use crate::policy::Policy;
use crate::relaying::Companion;
use crate::restorer::{self, RestoreError, Restorer, Running};

/// A process, from nothing to its own life. A step that fails, or comes out of turn, leaves nothing behind.
#[derive(Debug, Default)]
pub(super) enum Construction {
    /// Nothing is there, or nothing any more.
    #[default]
    Nothing,
    /// Everything can be had.
    Reserved(Box<Restorer<restorer::Reserved>>),
    /// All stands but the pages, or will without them.
    Registered(Box<Restorer<restorer::Registered>>),
    /// All stands that has to before it may run.
    Assembled(Box<Restorer<restorer::Assembled>>),
    /// The process runs.
    Running(Box<Running>),
}

impl Construction {
    pub(super) fn reserve(&mut self, manifest: &Manifest, policy: &Policy) -> Result<Reserved, Failure> {
        let (restorer, reserved) = Restorer::reserve(manifest, policy).map_err(|error| local(&error))?;
        *self = Self::Reserved(Box::new(restorer));
        Ok(reserved)
    }

    pub(super) fn content(&mut self, header: Header, body: &[u8]) -> Result<(), Failure> {
        let Self::Reserved(restorer) = self else { return Err(out_of_turn()) };
        restorer.content(header, body).map_err(|error| local(&error))
    }

    /// No more pages come ahead.
    pub(super) fn hurry(&mut self) {
        if let Self::Reserved(restorer) = self {
            restorer.hurry();
        }
    }

    pub(super) fn map(&mut self, manifest: &Manifest) -> Result<Uffd, Failure> {
        let Self::Reserved(restorer) = mem::take(self) else { return Err(out_of_turn()) };
        let mapped = restorer.map(manifest).map_err(|error| local(&error))?;
        let (registered, uffd) = mapped.register().map_err(|error| local(&error))?;
        *self = Self::Registered(Box::new(registered));
        Ok(uffd)
    }

    pub(super) fn assemble(&mut self) -> Result<(), Failure> {
        let Self::Registered(restorer) = mem::take(self) else { return Err(out_of_turn()) };
        *self = Self::Assembled(Box::new(restorer.assemble().map_err(|error| local(&error))?));
        Ok(())
    }

    /// Has connections that stay at the source relayed over `link`.
    pub(super) fn relay_over(&mut self, link: &OwnedFd, sealing: Option<&OwnedFd>) {
        let Self::Reserved(restorer) = self else { return };
        restorer.hurry();
        match Companion::start(link, sealing) {
            Ok(companion) => restorer.relay_by(companion),
            // The source sees its link close.
            Err(error) => tracing::warn!(%error, "starting who relays connections"),
        }
    }

    /// Whether somebody relays connections.
    pub(super) fn has_relay(&self) -> bool {
        matches!(self, Self::Reserved(restorer) if restorer.has_relay())
    }

    /// Becomes readable when no connection is relayed any more.
    pub(super) fn relay_readiness(&self) -> Option<BorrowedFd<'_>> {
        let Self::Running(running) = self else { return None };
        running.companion.as_ref().map(Companion::readiness)
    }

    /// Forgets who relayed connections.
    pub(super) fn forget_relay(&mut self) {
        if let Self::Running(running) = self {
            running.companion = None;
        }
    }

    pub(super) fn write(&mut self, at: PageRange, bytes: &[u8]) -> Result<(), Failure> {
        let written = match self {
            Self::Reserved(restorer) => restorer.write_ahead(at, bytes),
            Self::Registered(restorer) => restorer.write(at, bytes),
            Self::Nothing | Self::Assembled(_) | Self::Running(_) => return Err(out_of_turn()),
        };
        written.map_err(|error| local(&error))
    }

    /// What was written to these pages ahead does not hold.
    pub(super) fn forget(&mut self, pages: Vec<PageRange>) {
        if let Self::Reserved(restorer) = self {
            restorer.forget(pages);
        }
    }

    /// Pages that were written ahead, hold, and are not in place any more.
    pub(super) fn remade(&self) -> Vec<PageRange> {
        match self {
            Self::Registered(restorer) => restorer.remade(),
            Self::Nothing | Self::Reserved(_) | Self::Assembled(_) | Self::Running(_) => Vec::new(),
        }
    }

    /// Lets the process go and returns its id here.
    pub(super) fn resume(&mut self) -> Result<u32, Failure> {
        let Self::Assembled(restorer) = mem::take(self) else { return Err(out_of_turn()) };
        let running = restorer.resume().map_err(|error| local(&error))?;
        for (fd, errno) in &running.unbound {
            tracing::warn!(fd, %errno, "a socket stays without its address");
        }
        for (fd, errno) in &running.unlocked {
            tracing::warn!(fd, %errno, "somebody else has taken the lock of a file");
        }
        let pid = running.pid;
        *self = Self::Running(Box::new(running));
        Ok(pid)
    }

    /// The running process and its descriptors here, in a copy of the process that let it go and has died.
    pub(super) fn succeed(&mut self) -> Result<(u32, Vec<BorrowedFd<'_>>), Failure> {
        *self = match mem::take(self) {
            Self::Assembled(restorer) => Self::Running(Box::new(restorer.succeed())),
            other => other,
        };
        let Self::Running(running) = self else { return Err(out_of_turn()) };
        let mut descriptors = running.guardian.descriptors();
        descriptors.push(running.pidfd.as_fd());
        descriptors.extend(running.companion.as_ref().map(Companion::readiness));
        Ok((running.pid, descriptors))
    }

    /// The same in a copy from before the switchover: hands out the userfaultfd.
    pub(super) fn inherit(&mut self) -> Option<Uffd> {
        let restorer = match mem::take(self) {
            Self::Reserved(restorer) => restorer,
            other => {
                *self = other;
                return None;
            }
        };
        let (running, uffd) = restorer.inherit();
        *self = Self::Running(Box::new(running));
        Some(uffd)
    }

    /// Ends whatever is there, in a copy from before the switchover: by its death, which the guardian sees. What it knows of
    /// descriptors may not be true any more.
    pub(super) fn leave(&mut self) {
        match mem::take(self) {
            Self::Reserved(restorer) => mem::forget(restorer),
            other => drop(other),
        }
    }

    /// Has the guardian keep a duplicate of a child's userfaultfd.
    pub(super) fn hold(&mut self, uffd: &Uffd) -> Result<(), Failure> {
        let guardian = self.guardian().ok_or_else(out_of_turn)?;
        guardian.hold(uffd.as_fd()).map_err(|error| Failure::Local(error.to_string()))
    }

    /// Lets the process outlive this one.
    pub(super) fn release(&mut self) {
        if let Some(guardian) = self.guardian() {
            // A guardian that cannot be talked to has ended, and the process with it: there is nobody to release.
            let _ = guardian.complete();
        }
    }

    /// Ends whatever is there.
    pub(super) fn discard(&mut self) {
        *self = Self::Nothing;
    }

    /// Becomes readable when the guardian of the running process has something to say.
    pub(super) fn guardian_readiness(&self) -> Option<BorrowedFd<'_>> {
        let Self::Running(running) = self else { return None };
        running.guardian.readiness()
    }

    pub(super) fn guardian(&mut self) -> Option<&mut Guardian> {
        match self {
            Self::Nothing => None,
            Self::Reserved(restorer) => Some(restorer.guardian()),
            Self::Registered(restorer) => Some(restorer.guardian()),
            Self::Assembled(restorer) => Some(restorer.guardian()),
            Self::Running(running) => Some(&mut running.guardian),
        }
    }
}

fn local(error: &RestoreError) -> Failure {
    Failure::Local(error.line())
}

fn out_of_turn() -> Failure {
    Failure::Local("a step of the restoration came out of turn".into())
}
