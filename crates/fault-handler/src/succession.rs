//! Another loop goes on when this one is killed.
//!
//! ```text
//! loop ── stand_by ──► a copy of the whole process, asleep, made before the stop; they share descriptors and the log
//!  │ events: the kernel writes them into the log        installed pages: noted behind the installation
//!  ✗ killed                     copy wakes: hands in the log, hangs up, has every waiter wake and fault again
//!                               └── the source connects again and is told what is lacking
//! ```
//!
//! What the dead loop knew and had not written down makes the other one ask for too much, never for too little: a page
//! that is there already stays as it is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use engine::{DestinationInput, Failure};
use mio::Poll;
use sys::birth::close_all_but;
use sys::uffd::{Note, Record};

use crate::channels::Channels;
use crate::config::MAX_SUCCESSIONS;
use crate::handler::FaultHandler;
use crate::testament::Testament;
use crate::{DestinationProcess, HandlerError, Outcome, Role};

impl<P: DestinationProcess> FaultHandler<'_, P> {
    /// Has a copy stand by while the process still runs at the source: the stop is the shorter for it. What it does not know
    /// of the process that is built from here on, the switchover will tell it.
    pub(crate) fn stand_by_ahead(&mut self) -> Result<(), HandlerError> {
        self.testament = Testament::new();
        if self.testament.is_some() && !self.stand_by()? {
            self.testament = None;
        }
        Ok(())
    }

    /// Before the word to run can come, somebody must stand by: the copy that was made ahead, or one that knows more.
    pub(crate) fn stand_by_for_the_run(&mut self) -> Result<(), HandlerError> {
        // Copies that are made from here on know all: only those from before are left anything.
        let is_left_enough = self.testament.take().as_ref().is_some_and(Testament::is_kept);
        if is_left_enough && self.process.can_be_inherited() {
            return Ok(());
        }
        if !self.stand_by()? {
            self.stand_alone();
        }
        Ok(())
    }

    /// No copy may go on from here on.
    fn stand_alone(&mut self) {
        self.spaces.log().close();
        self.process.stood_by();
    }

    /// Has a copy of this process wait for its death; false if none does. On the copy, returns when it has died and everything
    /// stands again.
    fn stand_by(&mut self) -> Result<bool, HandlerError> {
        loop {
            let Ok(log) = self.spaces.log().successor() else { return Ok(false) };
            if log.generation() > MAX_SUCCESSIONS {
                return Ok(false);
            }
            match self.process.stand_by(&|| log.is_valid()) {
                Role::Alone => return Ok(false),
                Role::Server => {
                    log.activate();
                    *self.spaces.log() = log;
                    self.process.stood_by();
                    return Ok(true);
                }
                Role::Successor => {
                    *self.spaces.log() = log;
                    self.take_over()?;
                }
            }
        }
    }

    /// Has a fresh copy made if the log grows too long. Where there can be none, nobody stands by any more: the process
    /// goes on all the same, and ends if this one does.
    pub(crate) fn keep_log_short(&mut self) -> Result<(), HandlerError> {
        if !self.spaces.log().is_nearly_full() {
            return Ok(());
        }
        if !self.engine.may_have_run() && self.engine.phase() != "ready" {
            // Nothing has happened that who goes on has to know: another one is made before it does.
            self.testament = None;
            self.stand_alone();
            return Ok(());
        }
        self.stand_by()?;
        if self.spaces.log().is_nearly_full() {
            self.stand_alone();
        }
        Ok(())
    }

    /// Goes on where the other loop was when it died.
    fn take_over(&mut self) -> Result<(), HandlerError> {
        // The other one has spoken there since, and nothing may be sealed twice by the same number.
        self.leave_channels()?;
        let records = self.spaces.log().records();
        if let Some(lossy) = records.iter().find_map(finished) {
            return self.end_in_its_place(lossy);
        }
        self.inputs.clear();
        if self.running.is_none() {
            self.be_let_go(&records)?;
        }
        let inputs = self.spaces.take_over(&records)?;
        self.change_descriptors()?;
        inputs.into_iter().for_each(|input| self.engine.handle(self.now(), input));
        self.engine.handle(self.now(), DestinationInput::TakenOver);
        Ok(())
    }

    /// The other loop had nothing left to do but to say so.
    fn end_in_its_place(&mut self, lossy: bool) -> Result<(), HandlerError> {
        if let Some(testament) = self.testament.take() {
            self.inherit(testament)?;
        }
        self.spaces.leave();
        self.change_descriptors()?;
        self.process.finished();
        let failure = lossy.then(|| Failure::Local("the session was killed when memory was lost".to_owned()));
        self.outcome = Some(Outcome::Completed(failure));
        Ok(())
    }

    /// The copy is from before the process was let go.
    fn be_let_go(&mut self, records: &[Record]) -> Result<(), HandlerError> {
        if !records.contains(&Record::Note(Note::Committed)) {
            let text = "the session was killed before the process was to run".to_owned();
            return Err(HandlerError::Abandoned(Failure::Local(text)));
        }
        if let Some(testament) = self.testament.take() {
            self.inherit(testament)?;
        }
        if !records.contains(&Record::Note(Note::Resumed)) {
            return Err(HandlerError::Torn);
        }
        self.engine.handle(self.now(), DestinationInput::Run { epoch: 1 });
        self.engine.handle(self.now(), DestinationInput::Resumed);
        Ok(())
    }

    /// The copy is from before the switchover.
    fn inherit(&mut self, testament: Testament) -> Result<(), HandlerError> {
        let manifest = testament.open().ok_or(HandlerError::Torn)?;
        let uffd = self.process.inherit(&manifest).ok_or(HandlerError::Torn)?;
        self.spaces.learn(&manifest);
        self.spaces.inherit(uffd);
        manifest.lazy.iter().for_each(|range| self.registered.insert(*range));
        self.engine.catch_up(self.now(), manifest.eager.clone(), manifest.lazy.clone());
        self.may_be_waited_for = true;
        self.manifest = Some(manifest);
        Ok(())
    }

    /// What is sent from here on goes nowhere.
    fn leave_channels(&mut self) -> Result<(), HandlerError> {
        let nowhere = Channels::nowhere().map_err(HandlerError::Wait)?;
        std::mem::forget(std::mem::replace(&mut self.channels, nowhere));
        Ok(())
    }

    /// Gives up every descriptor that may have been closed and made anew since this copy was made.
    fn change_descriptors(&mut self) -> Result<(), HandlerError> {
        let (pid, of_process) = self.process.succeed().map_err(HandlerError::Abandoned)?;
        self.running = Some(pid);
        let mut kept: Vec<BorrowedFd<'_>> = of_process;
        kept.extend(self.spaces.descriptors());
        kept.extend(self.channels.descriptors());
        close_all_but(&kept)
            .map_err(|errno| HandlerError::Wait(std::io::Error::from_raw_os_error(errno.0)))?;
        let poll = Poll::new().map_err(HandlerError::Wait)?;
        std::mem::forget(std::mem::replace(&mut self.poll, poll));
        self.forget_watches();
        self.watch_process().map_err(HandlerError::Wait)?;
        self.spaces.begin_anew(self.poll.registry())
    }
}

fn finished(record: &Record) -> Option<bool> {
    match record {
        Record::Note(Note::Finished { lossy }) => Some(*lossy),
        _ => None,
    }
}

impl Channels {
    /// Three channels that have ended.
    fn nowhere() -> std::io::Result<Self> {
        let end = || -> std::io::Result<mio::net::TcpStream> {
            let (near, _) = UnixStream::pair()?;
            near.set_nonblocking(true)?;
            Ok(mio::net::TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(near))))
        };
        let mut channels = Self::new(end()?, end()?, end()?);
        for channel in protocol::Channel::ALL {
            channels.get_mut(channel).end();
        }
        Ok(channels)
    }

    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        protocol::Channel::ALL.into_iter().map(|channel| self.get(channel).connection.stream().as_fd())
    }
}
