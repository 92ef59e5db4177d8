//! The process that moves in, as the loop sees it: built by the restorer, held by the guardian, told of to the daemon.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use engine::Failure;
use fault_handler::{
    Assembly, DestinationProcess, Ended, HandlerError, Mapped, Measurement, Notification, Resumption, Role,
};
use memory::{Backing, PageRange, RangeSet, Sharing};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::{FileVerdict, Header, Manifest, Reserved};
use sys::own_memory::SparePages;
use sys::uffd::Uffd;

use super::account::{Account, Figures};
use super::construction::Construction;
use super::standby::Standby;
use super::teller::Teller;
use super::warm::Needs;
use crate::config::RELAY_DEADLINE;
use crate::events::SessionEvent;
use crate::guardian::{ExitStatus, GuardianError, GuardianEvent, wait_for};
use crate::handover::{self, HandedOver};
use crate::policy::Policy;
use crate::restorer;
use crate::sealing::connections;

/// The process, from its reservation to its end.
#[derive(Debug)]
pub(super) struct Migrant {
    account: Account,
    /// On which the daemon hands over the channels of a source that connects again.
    line: OwnedFd,
    policy: Policy,
    construction: Construction,
    standby: Standby,
    verdicts: Vec<FileVerdict>,
    figures: Figures,
    /// What is to be had before the stop.
    needs: Option<Needs>,
    /// Held until pages of the program are put in place.
    spare: Option<SparePages>,
    /// This is a copy that goes on in the place of another process.
    is_successor: bool,
    /// How it ended.
    exit: Option<ExitStatus>,
    /// No process of its namespace is left.
    empty: bool,
}

impl Migrant {
    pub(super) fn new(teller: Teller, line: OwnedFd, policy: Policy) -> Self {
        Self {
            account: Account::new(teller),
            line,
            policy,
            construction: Construction::default(),
            standby: Standby::default(),
            verdicts: Vec::new(),
            figures: Figures::default(),
            needs: None,
            spare: None,
            is_successor: false,
            exit: None,
            empty: false,
        }
    }

    /// Tells how the migration ended.
    pub(super) fn conclude(&mut self, ended: Result<Ended, HandlerError>) {
        let has_run = self.account.pid.is_some();
        self.account.conclude(ended, has_run, self.figures);
        // Not earlier: until this has been told, the daemon takes the end of its session for that of the process.
        self.standby.dismiss();
    }

    /// Waits for the end of the process and tells of it; returns at once if it never ran, and early when nobody
    /// listens any more.
    pub(super) fn follow(&mut self) -> Result<(), GuardianError> {
        if self.account.pid.is_none() {
            return Ok(());
        }
        while self.exit.is_none() && !self.empty && !self.account.teller.has_hung_up() {
            let Some(readiness) = self.construction.guardian_readiness() else { break };
            let relay = self.construction.relay_readiness();
            wait_for_any(
                [readiness, self.line.as_fd()].into_iter().chain(relay),
                self.account.teller.readiness(),
            )?;
            self.hear_relay();
            // A source that has not heard the end asks again, and the daemon knows the answer by then.
            drop(handover::receive(&self.line));
            self.hear_guardian()?;
        }
        if let Some(status) = self.exit {
            self.account.tell_exit(status);
        }
        // What it had said last is still on its way to the source.
        while let Some(relay) = self.construction.relay_readiness()
            && !self.account.teller.has_hung_up()
        {
            wait_for_any([relay], self.account.teller.readiness())?;
            self.hear_relay();
        }
        Ok(())
    }

    /// Tells once that the source need not stay any longer.
    fn hear_relay(&mut self) {
        let relay = self.construction.relay_readiness();
        if relay.is_some_and(|relay| wait_for(relay, std::time::Duration::ZERO).unwrap_or(true)) {
            self.construction.forget_relay();
            if self.figures.relayed > 0 {
                self.account.teller.tell(&SessionEvent::Untied);
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
}

impl DestinationProcess for Migrant {
    fn reserve(&mut self, manifest: &Manifest) -> Result<Reserved, Failure> {
        self.account.teller.tell(&SessionEvent::Introduced);
        self.account.source_pid = manifest.process.pid;
        let reserved = self.construction.reserve(manifest, &self.policy);
        self.account.refused = reserved.is_err();
        if let Ok(reserved) = &reserved {
            self.verdicts.clone_from(&reserved.files);
            self.needs = Some(Needs::of(manifest));
        }
        reserved
    }

    fn content(&mut self, header: Header, body: &[u8]) -> Result<(), Failure> {
        self.construction.content(header, body)
    }

    fn map(&mut self, manifest: &Manifest) -> Result<Mapped, Failure> {
        self.construction.hurry();
        self.figures.relayed = restorer::count_relayed(manifest) as u64;
        if self.figures.relayed > 0 && !self.construction.has_relay() {
            // It was welcomed before the source went on; it may come behind what the source has said since.
            let _ = wait_for(self.line.as_fd(), RELAY_DEADLINE);
            if let Ok(Some(HandedOver::Relay(link, sealing))) = handover::receive(&self.line) {
                self.construction.relay_over(&link, sealing.as_ref());
            }
        }
        // The stop has begun.
        (self.needs, self.spare) = (None, None);
        let uffd = self.construction.map(manifest)?;
        self.account.prepared = true;
        self.figures.same_file_pages = same_file_pages(manifest, &self.verdicts);
        Ok(Mapped::One(uffd))
    }

    fn write(&mut self, at: PageRange, bytes: &[u8]) -> Result<(), Failure> {
        self.construction.write(at, bytes)
    }

    fn assemble(&mut self) -> Result<Assembly, Failure> {
        self.construction.assemble()?;
        Ok(Assembly::Done)
    }

    fn forget(&mut self, pages: Vec<PageRange>) {
        self.construction.forget(pages);
    }

    fn remade(&mut self) -> Vec<PageRange> {
        self.construction.remade()
    }

    fn resume(&mut self) -> Result<Resumption, Failure> {
        self.account.teller.tell(&SessionEvent::Committed);
        let pid = self.construction.resume()?;
        self.account.pid = Some(pid);
        Ok(Resumption::Done(pid))
    }

    fn stand_by(&mut self, is_next: &dyn Fn() -> bool) -> Role {
        let role = self.standby.make(&self.account.teller, is_next);
        self.is_successor |= role == Role::Successor;
        // Behind the fork, which makes memory that was touched before it be copied when it is written next.
        if let Some(needs) = self.needs.take().filter(|_| role != Role::Successor) {
            self.spare = needs.prepare();
        }
        role
    }

    fn stood_by(&mut self) {
        self.standby.turn();
    }

    fn can_be_inherited(&self) -> bool {
        self.figures.relayed == 0 && self.standby.is_there()
    }

    fn inherit(&mut self, manifest: &Manifest) -> Option<Uffd> {
        self.account.prepared = true;
        self.figures.same_file_pages = same_file_pages(manifest, &self.verdicts);
        self.construction.inherit()
    }

    fn succeed(&mut self) -> Result<(u32, Vec<BorrowedFd<'_>>), Failure> {
        let (pid, mut descriptors) = self.construction.succeed()?;
        self.account.pid = Some(pid);
        descriptors.extend([self.account.teller.readiness(), self.line.as_fd()]);
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
        match self.is_successor {
            true => self.construction.leave(),
            false => self.construction.discard(),
        }
    }

    fn watched(&mut self) -> Vec<BorrowedFd<'_>> {
        let guardian = self.construction.guardian().and_then(|guardian| guardian.readiness());
        [self.account.teller.readiness(), self.line.as_fd()].into_iter().chain(guardian).collect()
    }

    fn notification(&mut self) -> Option<Notification> {
        if self.account.teller.has_hung_up() {
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
        self.account.measured(measurement);
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
