//! What the engine wants done, one call for each action.

use engine::{Content, DestinationAction, DestinationInput, Failure, InstallOutcome, SpaceId};
use memory::{Addr, PAGE_SIZE, PageRange};
use protocol::{Channel, Header, Kind, Reason, encode_bits};
use sys::uffd::{Note, UffdError};

use crate::config::SHORTAGE_WAIT_MS;
use crate::fill::{Filling, fill};
use crate::handler::FaultHandler;
use crate::spaces::Spaces;
use crate::{Assembly, DestinationProcess, HandlerError, Mapped, Measurement, Outcome, Resumption};

type Pieces = Vec<(PageRange, InstallOutcome)>;

impl<P: DestinationProcess> FaultHandler<'_, P> {
    /// Does what the engine decided, and hands in what came of it.
    pub(crate) fn perform(&mut self, action: DestinationAction) -> Result<(), HandlerError> {
        match action {
            DestinationAction::Reserve => self.reserve()?,
            DestinationAction::SendReserved => self.send_reserved(),
            DestinationAction::Store { pages, content } => self.store(pages, content),
            DestinationAction::SendRoundTaken => self.signal(Kind::RoundTaken, 0),
            DestinationAction::Forget(pages) => self.process.forget(pages),
            DestinationAction::Map => self.map()?,
            DestinationAction::Assemble => self.assemble()?,
            DestinationAction::SendReady => {
                self.signal(Kind::Ready, 0);
                self.stand_by_for_the_run()?;
            }
            DestinationAction::Resume => self.resume()?,
            DestinationAction::SendRunning { patience_s } => self.send_running(patience_s),
            DestinationAction::Disconnect => self.channels.hang_up(self.poll.registry()),
            DestinationAction::SendUnscanned(pages) => {
                self.send(Channel::Control, |control| control.send_unscanned(pages));
            }
            DestinationAction::SendList { arrived, pages } => self.send_list(arrived, &pages),
            DestinationAction::SendListDone => self.signal(Kind::Recover, 0),
            DestinationAction::RequestPages(pages) => {
                self.traffic.requests += 1;
                self.send(Channel::Fault, |fault| fault.send_page_request(pages));
            }
            DestinationAction::Install { space, channel, pages, at, content } => {
                self.install(space, (channel, pages), at, content)?;
                if channel == Channel::Push && self.engine.is_under_fire() {
                    self.glance()?;
                }
            }
            DestinationAction::ZeroFill { space, at } => self.fill(space, at, Filling::Zero)?,
            DestinationAction::Poison { space, at } => self.fill(space, at, Filling::Poison)?,
            DestinationAction::Finish => self.finish(),
            DestinationAction::SendDrained => self.signal(Kind::Drained, 0),
            DestinationAction::SendAbort(failure) => self.send_reason(Kind::Abort, &failure),
            DestinationAction::SendFailed(failure) => self.send_reason(Kind::Failed, &failure),
            DestinationAction::Kill(failure) => self.kill(failure),
            DestinationAction::Discard(failure) => self.discard(failure),
            DestinationAction::Complete(failure) => self.outcome = Some(Outcome::Completed(failure)),
        }
        Ok(())
    }

    fn reserve(&mut self) -> Result<(), HandlerError> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let input = match self.process.reserve(manifest) {
            Ok(reserved) => {
                self.reserved = Some(reserved);
                self.stand_by_ahead()?;
                DestinationInput::Reserved
            }
            Err(failure) => DestinationInput::PrepareFailed(failure),
        };
        self.inputs.push_back(input);
        self.watch_process().map_err(HandlerError::Wait)
    }

    fn map(&mut self) -> Result<(), HandlerError> {
        self.traffic.before_switchover = self.channels.bytes_received();
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let mapped = self.process.map(manifest);
        self.watch_process().map_err(HandlerError::Wait)?;
        let places = match mapped {
            Ok(Mapped::One(uffd)) => {
                let Some(manifest) = &self.manifest else { return Ok(()) };
                manifest.lazy.iter().for_each(|range| self.registered.insert(*range));
                self.spaces.learn(manifest);
                self.spaces.add(uffd, self.poll.registry())?;
                Vec::new()
            }
            Ok(Mapped::Places(places)) => {
                self.may_be_waited_for = !places.is_empty();
                let last = places.iter().map(|place| place.space).max();
                self.spaces.keep_numbers(last.unwrap_or(SpaceId::MAIN));
                places
            }
            Err(failure) => {
                self.inputs.push_back(DestinationInput::PrepareFailed(failure));
                return Ok(());
            }
        };
        // What came before there was a place for it waits for this.
        self.notified = true;
        let remade = self.process.remade();
        if !remade.is_empty() {
            self.inputs.push_back(DestinationInput::Remade(remade));
        }
        self.inputs.push_back(DestinationInput::Mapped { places });
        Ok(())
    }

    fn assemble(&mut self) -> Result<(), HandlerError> {
        match self.process.assemble() {
            Ok(Assembly::Done) => self.inputs.push_back(DestinationInput::Assembled),
            Ok(Assembly::Begun) => {}
            Err(failure) => self.inputs.push_back(DestinationInput::PrepareFailed(failure)),
        }
        self.watch_process().map_err(HandlerError::Wait)
    }

    fn resume(&mut self) -> Result<(), HandlerError> {
        self.traffic.before_resume = self.channels.bytes_received();
        self.spaces.log().note(Note::Committed);
        self.may_be_waited_for = true;
        match self.process.resume() {
            Ok(Resumption::Done(pid)) => self.resumed(Ok(pid)),
            Ok(Resumption::Begun) => {}
            Err(failure) => self.resumed(Err(failure)),
        }
        self.watch_process().map_err(HandlerError::Wait)
    }

    /// The process runs, or never ran.
    pub(crate) fn resumed(&mut self, resumed: Result<u32, Failure>) {
        self.inputs.push_back(match resumed {
            Ok(pid) => {
                self.spaces.log().note(Note::Resumed);
                self.running = Some(pid);
                self.spaces.runs_as(SpaceId::MAIN, pid);
                DestinationInput::Resumed
            }
            Err(failure) => DestinationInput::PrepareFailed(failure),
        });
    }

    /// Puts the pages of the frame in hand, or zeros, or poison, where the program has these pages now.
    fn install(
        &mut self,
        space: SpaceId,
        (channel, pages): (Channel, PageRange),
        at: PageRange,
        content: Content,
    ) -> Result<(), HandlerError> {
        for (run, registered) in self.by_registration(space, at) {
            let source = source_of(run, at, pages);
            if !registered {
                self.write(run, (channel, source), content);
                continue;
            }
            let filling = match content {
                Content::Data => Filling::Bytes(self.channels.get(channel).page_bytes(source)),
                Content::Zero => Filling::Zero,
                Content::Lost => Filling::Poison,
            };
            let pieces = fill_space(&self.spaces, space, run, filling);
            let pieces = self.wait_for_memory(space, run, pieces)?;
            self.note_installed(space, &pieces, |piece| source_of(piece, run, source));
            self.hand_in(space, pieces, |piece, outcome| {
                let pages = source_of(piece, run, source);
                DestinationInput::Installed { space, pages, outcome }
            })?;
        }
        Ok(())
    }

    /// A running process waits until there is memory for its page: nothing of it is lost by that.
    fn wait_for_memory(
        &mut self,
        space: SpaceId,
        at: PageRange,
        pieces: Result<Pieces, UffdError>,
    ) -> Result<Result<Pieces, UffdError>, HandlerError> {
        let short = matches!(&pieces, Err(error) if error.is_shortage()) && self.running.is_some();
        if short != self.is_short {
            self.is_short = short;
            let why = Failure::Local("this machine has no memory for its pages".to_owned());
            self.process.measured(if short { Measurement::Paused(why) } else { Measurement::Recovered });
        }
        if !short {
            return Ok(pieces);
        }
        if let Some(uffd) = self.spaces.get(space) {
            uffd.wait_readable(SHORTAGE_WAIT_MS).map_err(HandlerError::Memory)?;
        }
        Ok(Ok(vec![(at, InstallOutcome::Retry)]))
    }

    /// Writes down what is in place, for whoever goes on if this loop dies.
    fn note_installed(
        &mut self,
        space: SpaceId,
        pieces: &Result<Pieces, UffdError>,
        source_of: impl Fn(PageRange) -> PageRange,
    ) {
        for (piece, outcome) in pieces.iter().flatten() {
            if *outcome == InstallOutcome::Installed {
                let pages = source_of(*piece);
                self.spaces.log().note(Note::Installed { space: space.0, pages });
            }
        }
    }

    /// Zeros or poison for pages that are missing; whoever waits there is woken, whatever comes of it.
    fn fill(&mut self, space: SpaceId, at: PageRange, filling: Filling<'_>) -> Result<(), HandlerError> {
        let pieces = fill_space(&self.spaces, space, at, filling);
        let pieces = self.wait_for_memory(space, at, pieces)?;
        if matches!(filling, Filling::Poison) && pieces.is_err() {
            return pieces.map(|_| ()).map_err(HandlerError::Memory);
        }
        self.hand_in(space, pieces, |at, outcome| DestinationInput::Filled { space, at, outcome })?;
        self.spaces.get(space).map_or(Ok(()), |uffd| uffd.wake(at)).map_err(HandlerError::Memory)
    }

    /// Writes pages that the userfaultfd does not cover; only before the process runs.
    fn write(&mut self, at: PageRange, (channel, source): (Channel, PageRange), content: Content) {
        let written = match content {
            Content::Data => self.process.write(at, self.channels.get(channel).page_bytes(source)),
            Content::Zero => single_pages(at).try_for_each(|page| self.process.write(page, &ZERO_PAGE)),
            Content::Lost => {
                Err(Failure::Local(format!("the source cannot read {source}, which must be in place")))
            }
        };
        self.inputs.push_back(match written {
            Ok(()) => {
                let outcome = InstallOutcome::Installed;
                DestinationInput::Installed { space: SpaceId::MAIN, pages: source, outcome }
            }
            Err(failure) => DestinationInput::Broken(failure),
        });
    }

    /// Writes pages that came ahead of the switchover.
    fn store(&mut self, pages: PageRange, content: Content) {
        self.testament = None;
        let stored = match content {
            Content::Zero => single_pages(pages).try_for_each(|page| self.process.write(page, &ZERO_PAGE)),
            Content::Data | Content::Lost => {
                self.process.write(pages, self.channels.get(Channel::Push).page_bytes(pages))
            }
        };
        if let Err(failure) = stored {
            self.inputs.push_back(DestinationInput::PrepareFailed(failure));
        }
    }

    /// Hands in what came of filling a range, behind whatever the program changed meanwhile.
    fn hand_in(
        &mut self,
        space: SpaceId,
        pieces: Result<Pieces, UffdError>,
        input: impl Fn(PageRange, InstallOutcome) -> DestinationInput,
    ) -> Result<(), HandlerError> {
        let pieces = match pieces {
            Ok(pieces) => pieces,
            Err(error) => {
                self.inputs.push_back(DestinationInput::Broken(local(&error)));
                return Ok(());
            }
        };
        for (piece, outcome) in pieces {
            match outcome {
                InstallOutcome::Retry => self.take_change(space)?,
                InstallOutcome::SpaceGone => self.spaces.forget(space),
                InstallOutcome::Installed | InstallOutcome::AlreadyPresent | InstallOutcome::RangeGone => {}
            }
            self.inputs.push_back(input(piece, outcome));
        }
        Ok(())
    }

    /// The runs of `at`, each with whether the userfaultfd covers it. Once the process runs, all that is installed
    /// is covered, wherever it has moved to; and only the first address space has anything that is not.
    fn by_registration(&self, space: SpaceId, at: PageRange) -> Vec<(PageRange, bool)> {
        if self.running.is_some() || space != SpaceId::MAIN {
            return vec![(at, true)];
        }
        let mut runs = Vec::new();
        let mut from = at.start();
        for run in self.registered.runs_in(at) {
            runs.extend(PageRange::new(from, run.start()).map(|gap| (gap, false)));
            runs.push((run, true));
            from = run.end();
        }
        runs.extend(PageRange::new(from, at.end()).map(|gap| (gap, false)));
        runs.retain(|(run, _)| !run.is_empty());
        runs
    }

    fn finish(&mut self) {
        let lossy = self.engine.report().lost.pages > 0;
        self.spaces.log().note(Note::Finished { lossy });
        self.spaces.clear();
        self.process.finished();
    }

    fn discard(&mut self, failure: Failure) {
        self.process.discard(&failure);
        self.spaces.clear();
        self.outcome = Some(Outcome::Discarded(failure));
    }

    fn send_reserved(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            self.send(Channel::Control, |control| control.send_message(Kind::Reserved, &reserved));
        }
    }

    fn send_reason(&mut self, kind: Kind, failure: &Failure) {
        let reason = Reason { text: failure.to_string() };
        self.send(Channel::Control, |control| control.send_message(kind, &reason));
    }

    fn send_running(&mut self, patience_s: u16) {
        let argument = u64::from(self.running.unwrap_or(0));
        let header = Header { count: patience_s, argument, ..Header::plain(Kind::Running, 0) };
        self.send(Channel::Control, |control| control.send(header, &[]));
    }

    fn send_list(&mut self, arrived: bool, pages: &[PageRange]) {
        let (start, bits) = encode_bits(pages).expect("the engine keeps lists within their limit");
        let header = Header { count: arrived.into(), argument: start.0, ..Header::plain(Kind::PageBits, 0) };
        self.send(Channel::Control, |control| control.send(header, &bits));
    }

    fn kill(&mut self, failure: Failure) {
        self.process.discard(&failure);
        self.spaces.clear();
        self.outcome = Some(Outcome::Killed(failure));
    }

    fn signal(&mut self, kind: Kind, argument: u64) {
        self.send(Channel::Control, |control| control.send_signal(kind, argument));
    }
}

static ZERO_PAGE: [u8; 4096] = [0; 4096];

/// Fills a range of one space; a space that is not served any more has ended.
fn fill_space(
    spaces: &Spaces,
    space: SpaceId,
    at: PageRange,
    filling: Filling<'_>,
) -> Result<Pieces, UffdError> {
    match spaces.get(space) {
        Some(uffd) => fill(uffd, at, filling),
        None => Ok(vec![(at, InstallOutcome::SpaceGone)]),
    }
}

/// Where the pages of `piece`, part of `at`, are at the source, where those of `at` are `pages`.
fn source_of(piece: PageRange, at: PageRange, pages: PageRange) -> PageRange {
    let start = Addr(pages.start().0 + (piece.start().0 - at.start().0));
    piece.moved_to(start).expect("a part of a range of user pages is one")
}

fn single_pages(range: PageRange) -> impl Iterator<Item = PageRange> {
    (0..range.pages())
        .filter_map(move |index| PageRange::from_pages(Addr(range.start().0 + index * PAGE_SIZE), 1))
}

fn local(error: &UffdError) -> Failure {
    Failure::Local(error.to_string())
}
