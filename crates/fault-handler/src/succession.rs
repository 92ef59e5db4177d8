//! Another loop goes on when this one is killed.
//!
//! ```text
//! loop ── stand_by ──► a copy of the whole process, asleep; they share descriptors and the log
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
use crate::{DestinationProcess, HandlerError, Outcome, Role};

impl<P: DestinationProcess> FaultHandler<'_, P> {
    /// Has a copy of this process wait for its death. On the copy, returns when it has died and everything stands again.
    pub(crate) fn stand_by(&mut self) -> Result<(), HandlerError> {
        loop {
            let Ok(log) = self.spaces.log().successor() else { return Ok(()) };
            if log.generation() > MAX_SUCCESSIONS {
                return Ok(());
            }
            match self.process.stand_by(&|| log.is_valid()) {
                Role::Alone => return Ok(()),
                Role::Server => {
                    log.activate();
                    *self.spaces.log() = log;
                    self.process.stood_by();
                    return Ok(());
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
        self.stand_by()?;
        if self.spaces.log().is_nearly_full() {
            self.spaces.log().close();
            self.process.stood_by();
        }
        Ok(())
    }

    /// Goes on where the other loop was when it died.
    fn take_over(&mut self) -> Result<(), HandlerError> {
        let records = self.spaces.log().records();
        if let Some(lossy) = records.iter().find_map(finished) {
            return self.end_in_its_place(lossy);
        }
        let inputs = self.spaces.take_over(&records)?;
        self.inputs.clear();
        if self.running.is_none() {
            self.be_let_go(&records)?;
        }
        self.change_descriptors()?;
        inputs.into_iter().for_each(|input| self.engine.handle(self.now(), input));
        self.engine.handle(self.now(), DestinationInput::TakenOver);
        Ok(())
    }

    /// The other loop had nothing left to do but to say so.
    fn end_in_its_place(&mut self, lossy: bool) -> Result<(), HandlerError> {
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
        if !records.contains(&Record::Note(Note::Resumed)) {
            return Err(HandlerError::Torn);
        }
        self.engine.handle(self.now(), DestinationInput::Run { epoch: 1 });
        self.engine.handle(self.now(), DestinationInput::Resumed);
        Ok(())
    }

    /// Gives up every descriptor that may have been closed and made anew since this copy was made.
    fn change_descriptors(&mut self) -> Result<(), HandlerError> {
        let nowhere = Channels::nowhere().map_err(HandlerError::Wait)?;
        std::mem::forget(std::mem::replace(&mut self.channels, nowhere));
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
