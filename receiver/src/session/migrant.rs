//! The process that moves in, as the loop sees it: built by the restorer, held by the guardian, told of to the daemon.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use engine::{Failure, Progress};
use fault_handler::{
    DestinationProcess, Ended, HandlerError, Mapped, Measurement, Notification, Outcome, Resumption, Role,
};
use memory::{Backing, PAGE_SIZE, PageRange, RangeSet, Sharing};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::{FileVerdict, Header, Manifest, Reserved, SourceReport};
use sys::uffd::Uffd;

use super::construction::Construction;
use super::report::{downtime_us, lost, report};
use super::standby::Standby;
use super::teller::Teller;
use crate::config::RELAY_DEADLINE;
use crate::events::{SessionEvent, Status, Whereabouts};
use crate::guardian::{ExitStatus, GuardianError, GuardianEvent, wait_for};
use crate::handover::{self, HandedOver};
use crate::policy::Policy;
use crate::restorer;
use crate::sealing::connections;

/// The process, from its reservation to its end.
#[derive(Debug)]
pub(super) struct Migrant {
    teller: Teller,
    /// On which the daemon hands over the channels of a source that connects again.
    line: OwnedFd,
    policy: Policy,
    construction: Construction,
    standby: Standby,
    /// Its id at the source, which it keeps in its own PID namespace.
    source_pid: u32,
    /// Its id here, once it runs.
    pid: Option<u32>,
    /// Why it was refused while it still ran at the source.
    refused: bool,
    /// Its memory stands: from here on the source may have let go of it.
    mapped: bool,
    source: Option<SourceReport>,
    resume_was_told: bool,
    verdicts: Vec<FileVerdict>,
    same_file_pages: u64,
    /// Connections that stayed at the source.
    relayed: u64,
    /// How it ended.
    exit: Option<ExitStatus>,
    /// No process of its namespace is left.
    empty: bool,
}

impl Migrant {
    pub(super) fn new(teller: Teller, line: OwnedFd, policy: Policy) -> Self {
        Self {
            teller,
            line,
            policy,
            construction: Construction::default(),
            standby: Standby::default(),
            source_pid: 0,
            pid: None,
            refused: false,
            mapped: false,
            source: None,
            resume_was_told: false,
            verdicts: Vec::new(),
            same_file_pages: 0,
            relayed: 0,
            exit: None,
            empty: false,
        }
    }

    /// Tells how the migration ended.
    pub(super) fn conclude(&mut self, ended: Result<Ended, HandlerError>) {
        let event = match ended {
            Err(error) => {
                let is_lost = self.pid.is_some() || matches!(error, HandlerError::Torn);
                let process = if is_lost { Whereabouts::Lost } else { Whereabouts::Source };
                SessionEvent::Failed { reason: error.in_full(), process }
            }
            Ok(Ended { outcome: Outcome::Discarded(failure), .. }) => self.discarded(&failure),
            Ok(Ended { outcome: Outcome::Killed(failure), .. }) => {
                SessionEvent::Failed { reason: failure.to_string(), process: Whereabouts::Lost }
            }
            Ok(Ended { outcome, engine, traffic }) => {
                self.tell_resumed(engine.report().downtime);
                let source = self.source.as_ref();
                let mut report = report(&outcome, engine.report(), &traffic, source, self.same_file_pages);
                report.relayed_connections = self.relayed;
                match outcome {
                    Outcome::Completed(Some(failure)) => {
                        self.teller.tell(&lost(&engine.report().lost));
                        SessionEvent::Failed { reason: failure.to_string(), process: Whereabouts::Here }
                    }
                    Outcome::Completed(None) | Outcome::Discarded(_) | Outcome::Killed(_) => {
                        SessionEvent::Complete { report: Box::new(report) }
                    }
                }
            }
        };
        self.teller.tell(&event);
        // Not earlier: until this has been told, the daemon takes the end of its session for that of the process.
        self.standby.dismiss();
    }

    /// Waits for the end of the process and tells of it; returns at once if it never ran, and early when nobody
    /// listens any more.
    pub(super) fn follow(&mut self) -> Result<(), GuardianError> {
        let Some(pid) = self.pid else { return Ok(()) };
        while self.exit.is_none() && !self.empty && !self.teller.has_hung_up() {
            let Some(readiness) = self.construction.guardian_readiness() else { break };
            let relay = self.construction.relay_readiness();
            wait_for_any([readiness, self.line.as_fd()].into_iter().chain(relay), self.teller.readiness())?;
            self.hear_relay();
            // A source that has not heard the end asks again, and the daemon knows the answer by then.
            drop(handover::receive(&self.line));
            self.hear_guardian()?;
        }
        if let Some(status) = self.exit {
            self.teller.tell(&SessionEvent::Exited { pid, status: status_of(status) });
        }
        // What it had said last is still on its way to the source.
        while let Some(relay) = self.construction.relay_readiness()
            && !self.teller.has_hung_up()
        {
            wait_for_any([relay], self.teller.readiness())?;
            self.hear_relay();
        }
        Ok(())
    }

    /// Tells once that the source need not stay any longer.
    fn hear_relay(&mut self) {
        let relay = self.construction.relay_readiness();
        if relay.is_some_and(|relay| wait_for(relay, std::time::Duration::ZERO).unwrap_or(true)) {
            self.construction.forget_relay();
            if self.relayed > 0 {
                self.teller.tell(&SessionEvent::Untied);
            }
        }
    }

    /// Takes in what the guardian has to say.
    fn hear_guardian(&mut self) -> Result<(), GuardianError> {
        while let Some(guardian) = self.construction.guardian() {
            match guardian.event()? {
                Some(GuardianEvent::ChildExited(status)) => self.exit = Some(status),
                Some(GuardianEvent::Empty) => self.empty = true,
                None => break,
            }
        }
        Ok(())
    }

    /// The process never ran here.
    fn discarded(&self, failure: &Failure) -> SessionEvent {
        let reason = failure.to_string();
        let in_doubt = self.mapped && matches!(failure, Failure::LinkLost(_) | Failure::Deadline(_));
        match (self.refused, in_doubt) {
            (true, _) => SessionEvent::Refused { reason },
            (false, true) => SessionEvent::Failed { reason, process: Whereabouts::InDoubt },
            (false, false) => SessionEvent::Failed { reason, process: Whereabouts::Source },
        }
    }

    /// Tells once that the process runs here, with `here` as the downtime if the source has not told its own.
    fn tell_resumed(&mut self, here: std::time::Duration) {
        let Some(pid) = self.pid.filter(|_| !self.resume_was_told) else { return };
        self.resume_was_told = true;
        let downtime_us = downtime_us(self.source.as_ref(), here);
        self.teller.tell(&SessionEvent::Resumed { pid, source_pid: self.source_pid, downtime_us });
    }

    fn tell_progress(&self, progress: Progress) {
        if self.resume_was_told {
            self.teller.tell_in_passing(&SessionEvent::Progress {
                done_bytes: progress.done_pages * PAGE_SIZE,
                total_bytes: progress.total_pages * PAGE_SIZE,
            });
        }
    }
}

impl DestinationProcess for Migrant {
    fn reserve(&mut self, manifest: &Manifest) -> Result<Reserved, Failure> {
        self.teller.tell(&SessionEvent::Introduced);
        self.source_pid = manifest.process.pid;
        let reserved = self.construction.reserve(manifest, &self.policy);
        self.refused = reserved.is_err();
        if let Ok(reserved) = &reserved {
            self.verdicts.clone_from(&reserved.files);
        }
        reserved
    }

    fn content(&mut self, header: Header, body: &[u8]) -> Result<(), Failure> {
        self.construction.content(header, body)
    }

    fn map(&mut self, manifest: &Manifest) -> Result<Mapped, Failure> {
        self.relayed = restorer::count_relayed(manifest) as u64;
        if self.relayed > 0 && !self.construction.has_relay() {
            // It was welcomed before the source went on; it may come behind what the source has said since.
            let _ = wait_for(self.line.as_fd(), RELAY_DEADLINE);
            if let Ok(Some(HandedOver::Relay(link, sealing))) = handover::receive(&self.line) {
                self.construction.relay_over(&link, sealing.as_ref());
            }
        }
        let uffd = self.construction.map(manifest)?;
        self.mapped = true;
        self.same_file_pages = same_file_pages(manifest, &self.verdicts);
        Ok(Mapped::One(uffd))
    }

    fn write(&mut self, at: PageRange, bytes: &[u8]) -> Result<(), Failure> {
        self.construction.write(at, bytes)
    }

    fn forget(&mut self, pages: Vec<PageRange>) {
        self.construction.forget(pages);
    }

    fn remade(&mut self) -> Vec<PageRange> {
        self.construction.remade()
    }

    fn resume(&mut self) -> Result<Resumption, Failure> {
        self.teller.tell(&SessionEvent::Committed);
        let pid = self.construction.resume()?;
        self.pid = Some(pid);
        Ok(Resumption::Done(pid))
    }

    fn stand_by(&mut self, is_next: &dyn Fn() -> bool) -> Role {
        self.standby.make(&self.teller, is_next)
    }

    fn stood_by(&mut self) {
        self.standby.turn();
    }

    fn succeed(&mut self) -> Result<(u32, Vec<BorrowedFd<'_>>), Failure> {
        let (pid, mut descriptors) = self.construction.succeed()?;
        self.pid = Some(pid);
        descriptors.extend([self.teller.readiness(), self.line.as_fd()]);
        Ok((pid, descriptors))
    }

    fn forked(&mut self, child: &Uffd) -> Result<(), Failure> {
        self.construction.hold(child)
    }

    fn finished(&mut self) {
        self.construction.release();
    }

    fn discard(&mut self, _reason: &Failure) {
        self.standby.dismiss();
        self.construction.discard();
    }

    fn watched(&mut self) -> Vec<BorrowedFd<'_>> {
        let guardian = self.construction.guardian().and_then(|guardian| guardian.readiness());
        [self.teller.readiness(), self.line.as_fd()].into_iter().chain(guardian).collect()
    }

    fn notification(&mut self) -> Option<Notification> {
        if self.teller.has_hung_up() {
            return Some(Notification::Abandoned(Failure::Local("the receiver has ended".into())));
        }
        // If they cannot be sealed, the source sees them close and comes again.
        match handover::receive(&self.line) {
            Ok(Some(HandedOver::Channels(sockets, sealing))) => {
                if let Ok(connections) = connections(sockets, sealing) {
                    return Some(Notification::Reconnected(Box::new(super::over(connections))));
                }
            }
            Ok(Some(HandedOver::Relay(link, sealing))) => {
                self.construction.relay_over(&link, sealing.as_ref());
            }
            Ok(None) | Err(_) => {}
        }
        let had_ended = self.exit.is_some() || self.empty;
        if let Err(error) = self.hear_guardian() {
            return Some(Notification::Abandoned(Failure::Local(error.to_string())));
        }
        let has_ended = self.exit.is_some() || self.empty;
        (has_ended && !had_ended).then_some(Notification::Ended)
    }

    fn measured(&mut self, measurement: Measurement) {
        match measurement {
            Measurement::Source(report) => {
                self.source = Some(report);
                self.tell_resumed(std::time::Duration::ZERO);
            }
            Measurement::Paused(failure) => {
                self.teller.tell(&SessionEvent::Paused { reason: failure.to_string() });
            }
            Measurement::Recovered => self.teller.tell(&SessionEvent::Recovered),
            Measurement::Progress(progress) => self.tell_progress(progress),
        }
    }
}

/// Pages of private mappings of files that are the same here, but for those that the program had changed.
fn same_file_pages(manifest: &Manifest, verdicts: &[FileVerdict]) -> u64 {
    let is_same = |file: u32| {
        let verdict = usize::try_from(file).ok().and_then(|index| verdicts.get(index));
        verdict == Some(&FileVerdict::Same)
    };
    let same = manifest.vmas.iter().filter(|vma| {
        vma.sharing == Sharing::Private && matches!(vma.backing, Backing::File { file, .. } if is_same(file))
    });
    let mut eager = RangeSet::new();
    manifest.eager.iter().for_each(|range| eager.insert(*range));
    let changed = |range: PageRange| -> u64 { eager.runs_in(range).map(PageRange::pages).sum() };
    same.map(|vma| vma.range.pages().saturating_sub(changed(vma.range))).sum()
}

/// Waits until one of `sources` has something to say or the daemon hangs up.
fn wait_for_any<'a>(
    sources: impl IntoIterator<Item = BorrowedFd<'a>>,
    daemon: BorrowedFd<'a>,
) -> Result<(), GuardianError> {
    let mut interests = vec![PollFd::new(daemon, PollFlags::empty())];
    interests.extend(sources.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    match poll(&mut interests, PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(GuardianError::Talk(errno.into())),
    }
}

fn status_of(status: ExitStatus) -> Status {
    match status {
        ExitStatus::Code(code) => Status::Exited { exit_code: u8::try_from(code & 0xff).unwrap_or(u8::MAX) },
        ExitStatus::Signal(signal) => {
            Status::Killed { signal: u8::try_from(signal & 0x7f).unwrap_or(u8::MAX) }
        }
    }
}
