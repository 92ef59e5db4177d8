//! One call per action of the engine.

use alloc::sync::Arc;

use engine::{Failure, SourceAction, SourceInput};
use memory::{PageRange, PageSet};
use protocol::{Channel, Kind, Manifest, PageMap, Piece, Reason};
use relay::Socket;
use sys::poll::Interest;
use transport::{Connection, ConnectionError};

use crate::channels::failure_of;
use crate::config::CONTENT_STANDSTILL;
use crate::pages;
use crate::process::{Outcome, SourceProcess, Sweep};
use crate::serve::Server;
use crate::socket::{now, wait};

impl<P: SourceProcess> Server<'_, P> {
    /// Does what the engine wants done.
    pub(crate) fn perform(&mut self, action: SourceAction) {
        match action {
            SourceAction::SendReserve => {
                self.send_manifest(Kind::Reserve);
                self.answer = self.process.await_reservation().err().map(SourceInput::Broken);
            }
            SourceAction::Sweep => {
                let Sweep { written, lost } = self.process.sweep();
                self.answer = Some(SourceInput::Swept { written, lost });
            }
            SourceAction::SendRoundEnd { last } => {
                self.send(Channel::Push, |push| push.send_signal(Kind::RoundEnd, last.into()));
            }
            SourceAction::Capture { sent } => self.capture(sent),
            SourceAction::SendSwitchover => self.send_manifest(Kind::Switchover),
            SourceAction::SendPages { channel: Channel::Push, pages } => self.pushes.push_back(pages),
            SourceAction::SendPages { channel, pages } => self.send_pages(channel, pages),
            SourceAction::SendZero(pages) => self.answer(Kind::ZeroPages, pages),
            SourceAction::SendPushed(pages) => self.answer(Kind::Pushed, pages),
            SourceAction::SendRun { epoch } => self.send_run(epoch),
            SourceAction::Scan(range) => self.scan = Some(range),
            SourceAction::SendPageMap { scanned, data } => {
                self.send_control(|control| control.send_message(Kind::PageMap, &PageMap { scanned, data }));
            }
            SourceAction::SendPageMapDone => self.send_signal(Kind::PageMapDone),
            SourceAction::SendPushDone => self.send_signal(Kind::PushDone),
            SourceAction::SendReport => self.send_report(),
            SourceAction::SendCancel(failure) => self.send_cancel(&failure),
            SourceAction::Reconnect => self.reconnect(),
            SourceAction::Release(failure) => self.release(failure),
            SourceAction::End(failure) => self.end(failure),
        }
    }

    /// Reads pages and sends them; a few that are pushed may wait for a flush.
    pub(crate) fn send_pages(&mut self, channel: Channel, pages: PageRange) {
        if !self.use_of(channel).write {
            return;
        }
        let connection = self.channels.get_mut(channel);
        let (tools, is_awaited) = ((&mut *self.buffer, &mut self.packer), channel == Channel::Fault);
        match pages::send_pages(self.process, connection, tools, pages, is_awaited) {
            Ok(()) => self.use_of(channel).unsent += 1,
            Err(error) => self.lose_writing(channel, failure_of(channel, &error)),
        }
    }

    /// What is said of pages without sending them.
    fn answer(&mut self, kind: Kind, pages: PageRange) {
        self.send(Channel::Fault, |fault| {
            fault.enqueue_counted(kind, pages)?;
            fault.flush().map(|_| ())
        });
    }

    fn send_manifest(&mut self, kind: Kind) {
        // Its memory is needed no more once it is encoded.
        let Some(manifest) = self.manifest.take() else { return };
        self.send_control(|control| control.send_message(kind, &*manifest));
    }

    fn capture(&mut self, sent: PageSet) {
        self.measure.went_ahead(now());
        self.process.sent_ahead(sent);
        match self.stop() {
            Ok((manifest, content)) => {
                self.measure.captured(now());
                let (eager, lazy) = (manifest.eager.clone(), manifest.lazy.clone());
                let kept = manifest.kept.clone();
                self.manifest = Some(manifest);
                self.answer = Some(SourceInput::Captured { eager, lazy, kept, content });
            }
            Err(failure) => self.answer = Some(SourceInput::CaptureFailed(failure)),
        }
    }

    /// The manifest, and the bytes of content that went ahead of it.
    fn stop(&mut self) -> Result<(Arc<Manifest>, u64), Failure> {
        self.process.prepare()?;
        self.measure.prepared(now());
        self.process.note("reserved at the destination; parking");
        self.process.park()?;
        self.measure.parked(now());
        let manifest = self.process.capture()?;
        let content = self.send_content()?;
        Ok((manifest, content))
    }

    /// Sends content ahead of the manifest that refers to it. Whatever the destination says meanwhile is a reason to
    /// stop: it is heard when the manifest has gone.
    fn send_content(&mut self) -> Result<u64, Failure> {
        let control = self.channels.get_mut(Channel::Control);
        let (mut lost, mut bytes) = (None, 0);
        let sent = self.process.send_content(&mut self.buffer, &mut |header, body| {
            let mut sent = control.send(header, body);
            bytes += body.len() as u64;
            let deadline = now() + CONTENT_STANDSTILL;
            while let Ok(()) = sent
                && control.wants_write()
                && now() < deadline
            {
                let mut interests = [Interest::new(control.stream().fd(), true)];
                let waited = wait(&mut interests, deadline);
                let [interest] = interests;
                if waited.is_err() || interest.is_readable() {
                    return false;
                }
                sent = control.flush().map(|_| ());
            }
            let is_stuck = control.wants_write();
            lost = sent.err().map(|error| failure_of(Channel::Control, &error));
            lost.is_none() && !is_stuck
        });
        if let Some(failure) = lost {
            self.lose_writing(Channel::Control, failure);
        }
        sent.map(|()| bytes)
    }

    fn send_run(&mut self, epoch: u64) {
        self.process.commit();
        self.send_control(|control| control.send_signal(Kind::Run, epoch));
        self.measure.run_sent(now());
        self.process.note("the destination may run the process; serving pages");
    }

    fn send_report(&mut self) {
        let report = self.measure.report(self.bytes_before + self.channels.bytes_sent());
        self.send_control(|control| control.send_message(Kind::SourceReport, &report));
    }

    fn send_cancel(&mut self, failure: &Failure) {
        let reason = Reason { text: failure.in_words() };
        self.send_control(|control| control.send_message(Kind::Cancel, &reason));
    }

    fn send_signal(&mut self, kind: Kind) {
        self.send_control(|control| control.send_signal(kind, 0));
    }

    fn release(&mut self, failure: Failure) {
        self.process.release();
        self.outcome = Some(Outcome::Released(failure));
    }

    fn end(&mut self, failure: Option<Failure>) {
        self.outcome = Some(match failure {
            None => Outcome::Moved { pid_there: self.pid_there },
            Some(failure) => Outcome::Lost(failure),
        });
    }

    fn send_control(&mut self, send: impl FnOnce(&mut Connection<Socket>) -> Result<(), ConnectionError>) {
        self.send(Channel::Control, send);
    }

    /// Sends on a channel if it still takes anything.
    pub(crate) fn send(
        &mut self,
        channel: Channel,
        send: impl FnOnce(&mut Connection<Socket>) -> Result<(), ConnectionError>,
    ) {
        if !self.use_of(channel).write {
            return;
        }
        if let Err(error) = send(self.channels.get_mut(channel)) {
            self.lose_writing(channel, failure_of(channel, &error));
        }
    }
}
