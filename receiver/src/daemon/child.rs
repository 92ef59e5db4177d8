//! A session as the daemon sees it: a child process, the pipe on which it tells what happens, and how far it is.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use mio::unix::pipe::Receiver;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use protocol::{Hello, MigrationId};

use super::Trade;
use super::course::{Course, Stage};
use super::lobby::Party;
use crate::config::MAX_EVENT_BYTES;
use crate::events::SessionEvent;
use crate::handover;
use crate::inherited::{Inherited, Purpose};
use crate::policy::Policy;
use crate::sealing::Sealing;
use crate::session::warm;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    /// Which migration it is.
    pub(super) migration: MigrationId,
    /// How far it is.
    pub(super) course: Course,
    /// The moved process. It is no child of the daemon's, so that its number alone does not name it for sure.
    program: Option<OwnedFd>,
    child: Child,
    /// Who goes on in its place, once it has died.
    successor: Option<u32>,
    /// Copies that have not been reaped, the latest last, each with whose copy it is.
    standbys: Vec<(u32, u32)>,
    pipe: Receiver,
    text: Vec<u8>,
    /// Proves that a source that connects again is the same.
    token: [u8; 16],
    /// How often it has.
    attempt: u32,
    /// Where its new channels go.
    line: OwnedFd,
}

impl Session {
    /// Starts the session of `party` and listens to it under `token`.
    ///
    /// # Errors
    /// Making the pipe or the process; the channels are closed then.
    pub(super) fn start(
        registry: &Registry,
        token: Token,
        party: Party,
        purpose: Purpose,
        (trade, policy): (&Trade, Policy),
    ) -> io::Result<Self> {
        let Party { hello, channels, sealing, peer: _ } = party;
        let channels = <[OwnedFd; 3]>::try_from(channels);
        let [control, fault, push] = channels.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let sealing = sealing.map(Sealing::into_pipe).transpose()?;
        let migration = hello.migration;
        let (reader, writer) = io::pipe()?;
        let (ours, line) = handover::line()?;
        let events = OwnedFd::from(writer);
        let inherited = Inherited { migration, control, fault, push, purpose, line, sealing, events, policy };
        let mut pipe = Receiver::from(OwnedFd::from(reader));
        pipe.set_nonblocking(true)?;
        // The running program itself: its file may have been replaced by another build since.
        let child = Command::new("/proc/self/exe")
            .arg0(trade.name)
            .args(&trade.session)
            .args(inherited.hand_over()?)
            .envs(warm::ALLOCATOR)
            // A group of its own: the terminal's Ctrl-C is the daemon's to handle.
            .process_group(0)
            .spawn()?;
        drop(inherited);
        registry.register(&mut pipe, token, Interest::READABLE)?;
        let course = Course::default();
        let (token, attempt, text, line) = (hello.token, hello.attempt, Vec::new(), ours);
        let (successor, standbys, program) = (None, Vec::new(), None);
        Ok(Self { migration, course, program, child, successor, standbys, pipe, text, token, attempt, line })
    }

    /// Whether this source, which connects again, is the one of this session; or why not.
    pub(super) fn may_come_again(&self, hello: &Hello) -> Result<(), String> {
        if hello.token != self.token {
            return Err("it is not the source of this migration".to_owned());
        }
        if hello.attempt <= self.attempt { Err("it has connected again already".to_owned()) } else { Ok(()) }
    }

    /// Whether this source, which wants to relay connections, is the one of this session; or why it may not.
    pub(super) fn may_relay(&self, hello: &Hello) -> Result<(), String> {
        if hello.token != self.token {
            return Err("it is not the source of this migration".to_owned());
        }
        if self.course.stage == Stage::Preparing {
            Ok(())
        } else {
            Err("the process runs already".to_owned())
        }
    }

    /// Gives the session the channels of its source, which has connected again, or its link.
    ///
    /// # Errors
    /// The session has ended.
    pub(super) fn hand_over(&mut self, party: Party) -> io::Result<()> {
        self.attempt = self.attempt.max(party.hello.attempt);
        let sealing = party.sealing.map(Sealing::into_pipe).transpose()?;
        let fds: Vec<_> = party.channels.iter().map(AsFd::as_fd).collect();
        handover::send(self.line.as_fd(), &fds, sealing.as_ref().map(AsFd::as_fd))
    }

    /// The source's token, by which it may ask later how it ended.
    pub(super) const fn token(&self) -> [u8; 16] {
        self.token
    }

    /// The next event that the session has written, or `None` until there is more to read.
    ///
    /// # Errors
    /// Bytes that are not an event, or a line without end.
    pub(super) fn next_event(&mut self) -> io::Result<Option<SessionEvent>> {
        loop {
            if let Some(end) = self.text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let event = serde_json::from_slice(&line)?;
                if self.advance(&event) {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.text.len() >= MAX_EVENT_BYTES {
                self.text.clear();
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an event line is too long"));
            }
            let mut buffer = [0; 4096];
            match self.pipe.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(len) => self.text.extend(buffer.iter().take(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes note of an event; whether it is news.
    pub(super) fn advance(&mut self, event: &SessionEvent) -> bool {
        if let SessionEvent::StandsBy { pid, of } = event {
            self.standbys.push((*pid, *of));
        }
        if let SessionEvent::Resumed { pid, .. } = event {
            self.program = sys::pidfd::open(*pid).ok();
        }
        self.course.advance(event)
    }

    /// Passes the terminal's Ctrl-C on to the moved process, which does not belong to that terminal's group.
    pub(super) fn interrupt_program(&self) {
        if let Some(program) = &self.program {
            // A process that has just ended needs no signal.
            let _ = sys::pidfd::send_signal(program.as_fd(), Signal::SIGINT as u32);
        }
    }

    /// How the session's process has ended, if it has. The first answer reaps it.
    ///
    /// # Errors
    /// `waitpid`.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        // First: a copy that was dismissed has ended before its session.
        self.standbys.retain(|(pid, _)| reap(*pid).is_none());
        match self.successor {
            None => self.child.try_wait(),
            Some(pid) => Ok(reap(pid)),
        }
    }

    /// Whether somebody goes on in the place of the session's process, which has ended.
    pub(super) fn is_succeeded(&mut self) -> bool {
        let dead = self.successor.unwrap_or(self.child.id());
        let last = self.standbys.iter().rposition(|(_, of)| *of == dead);
        self.successor = last.map(|index| self.standbys.remove(index).0);
        self.successor.is_some()
    }

    /// Stops listening to the session.
    pub(super) fn deregister(&mut self, registry: &Registry) {
        // It cannot fail for a pipe that was registered, and the pipe is closed next.
        let _ = registry.deregister(&mut self.pipe);
    }

    /// Asks the session's process to end. Its guardian then ends a process that has not got all its memory.
    pub(super) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends the session's process.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// The child is not reaped before the session is forgotten, so the number is still its own.
    /// Its copies first, so that none of them goes on.
    fn signal(&self, signal: Signal) {
        let own = self.successor.unwrap_or(self.child.id());
        for pid in self.standbys.iter().map(|(pid, _)| *pid).chain([own]) {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }
}

/// How a process has ended that is a child of this one, if it has.
fn reap(pid: u32) -> Option<ExitStatus> {
    let pid = i32::try_from(pid).ok()?;
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
        Ok(_) => None,
        // Nobody's child: it cannot be waited for.
        Err(_) => Some(ExitStatus::from_raw(0)),
    }
}
