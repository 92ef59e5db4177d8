//! The loop: take what has come, do a bounded piece of what is to do, wait when there is nothing of either.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use engine::{Config, Failure, Instant, Packing, Plan, Source, SourceInput};
use memory::PageRange;
use protocol::{Channel, Manifest, Reserved};
use sys::net::{silent_for, take_at_most};
use sys::poll::Interest;

use crate::channels::{Channels, failure_of};
use crate::config::{
    FRAMES_PER_TURN, LAST_FLUSH, LISTEN_INTERVAL, PUSH_UNSENT_BYTES, SCAN_PAGES, SCAN_PAGES_LARGEST,
    SILENCE_MS,
};
use crate::input::{Heard, hear};
use crate::measure::Measure;
use crate::packer::Packer;
use crate::pages::BUFFER_BYTES;
use crate::process::{Outcome, SourceProcess};
use crate::socket::{now, wait};
use crate::vigil::Vigil;

/// What a migration starts from.
#[derive(Debug)]
pub struct Serving {
    /// Welcomed.
    pub channels: Channels,
    /// The process as it was captured while running.
    pub running: Arc<Manifest>,
    /// Bounds and deadlines of the engine.
    pub config: Config,
    /// When the migration was asked for.
    pub started: Instant,
}

/// Moves `process` over open channels and returns when it is over. On [`Outcome::Released`] the process runs again
/// already; on the others it stands still and never runs here again. The channels are closed.
pub fn serve<P: SourceProcess>(process: &mut P, serving: Serving) -> Outcome {
    let mut server = Server::new(process, serving);
    server.handle(SourceInput::Connected);
    loop {
        if let Some(outcome) = server.outcome.take() {
            server.flush_last();
            return outcome;
        }
        let worked = server.turn();
        server.wait(worked);
    }
}

/// A connection's use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// It is read.
    pub(crate) read: bool,
    /// It is written.
    pub(crate) write: bool,
    /// Reading might yield something.
    readable: bool,
    /// The socket has refused to take more, and has not said since that it would.
    is_full: bool,
    /// `SendPages` performed whose bytes the socket has not taken.
    pub(crate) unsent: u32,
}

impl Use {
    /// A connection that stands.
    const WHOLE: Self = Self { read: true, write: true, readable: true, is_full: false, unsent: 0 };
}

/// One migration under way.
pub(crate) struct Server<'process, P> {
    pub(crate) process: &'process mut P,
    engine: Source,
    pub(crate) channels: Channels,
    /// In the order of [`Channel::ALL`].
    uses: [Use; 3],
    /// What a performed action has answered at once; the engine hears it when the action's siblings are done.
    pub(crate) answer: Option<SourceInput>,
    /// The manifest to send next: of the running, then of the stopped process.
    pub(crate) manifest: Option<Arc<Manifest>>,
    files: usize,
    /// Push frames to make, as many as the engine's window allows.
    pub(crate) pushes: VecDeque<PageRange>,
    /// The scan to do next.
    pub(crate) scan: Option<PageRange>,
    /// How many pages it looks at.
    scan_pages: u64,
    pub(crate) buffer: Vec<u8>,
    pub(crate) packer: Packer,
    pub(crate) measure: Measure,
    pub(crate) pid_there: u64,
    /// The destination runs the process.
    is_confirmed: bool,
    /// How often new connections were asked for.
    pub(crate) attempt: u32,
    /// What earlier connections have taken.
    pub(crate) bytes_before: u64,
    /// The destination is ready; the engine hears of it when every connection has been looked at.
    ready: bool,
    /// A connection has ended; the engine hears of it when the control connection has been read.
    lost: Option<Failure>,
    /// When to look next whether the other machine is there.
    listen_at: Instant,
    vigil: Vigil,
    pub(crate) outcome: Option<Outcome>,
}

impl<'process, P: SourceProcess> Server<'process, P> {
    fn new(process: &'process mut P, serving: Serving) -> Self {
        let Serving { channels, running, config, started } = serving;
        Self {
            process,
            engine: Source::new(config, now()),
            channels,
            uses: [Use::WHOLE; 3],
            files: running.files.len(),
            answer: None,
            manifest: Some(running),
            pushes: VecDeque::new(),
            scan: None,
            scan_pages: SCAN_PAGES,
            buffer: vec![0; BUFFER_BYTES],
            packer: Packer::default(),
            measure: Measure::new(started),
            pid_there: 0,
            is_confirmed: false,
            attempt: 0,
            bytes_before: 0,
            ready: false,
            lost: None,
            listen_at: now() + LISTEN_INTERVAL,
            vigil: Vigil::default(),
            outcome: None,
        }
    }

    /// Hands one input to the engine and performs everything that follows from it.
    fn handle(&mut self, input: SourceInput) {
        let mut next = Some(input);
        while let Some(input) = next {
            self.engine.handle(now(), input);
            while let Some(action) = self.engine.poll_action() {
                self.perform(action);
            }
            next = self.answer.take();
        }
    }

    /// One bounded piece of work of each sort, page requests first; false when there was none.
    fn turn(&mut self) -> bool {
        let mut worked = self.hear(Channel::Fault);
        worked |= self.hear(Channel::Control);
        worked |= self.hear(Channel::Push);
        worked |= self.report_loss();
        worked |= self.report_ready();
        worked |= self.tick();
        worked |= self.flush();
        worked |= self.scan_step();
        worked |= self.process.work();
        worked | self.push_some()
    }

    pub(crate) const fn use_of(&mut self, channel: Channel) -> &mut Use {
        let [control, fault, push] = &mut self.uses;
        match channel {
            Channel::Control => control,
            Channel::Fault => fault,
            Channel::Push => push,
        }
    }

    /// Takes what has come on a channel, up to a bound. Requests are not taken while the answers to earlier ones
    /// wait for the socket: so a destination that does not read its answers has to wait itself.
    fn hear(&mut self, channel: Channel) -> bool {
        for heard in 0..FRAMES_PER_TURN {
            let in_use = *self.use_of(channel);
            let stalled =
                channel == Channel::Fault && in_use.write && self.channels.get(channel).wants_write();
            if self.outcome.is_some() || stalled || !in_use.read || !in_use.readable {
                return heard > 0;
            }
            match hear(channel, self.channels.get_mut(channel)) {
                Ok(None) => {
                    self.use_of(channel).readable = false;
                    return heard > 0;
                }
                Ok(Some(heard)) => self.understood(heard),
                Err(failure) => self.lose(channel, failure),
            }
        }
        true
    }

    fn understood(&mut self, heard: Heard) {
        match heard {
            Heard::Input(SourceInput::Ready) => self.ready = true,
            Heard::Input(input) => self.handle(input),
            Heard::Running { pid_there, patience_s } => {
                if !self.is_confirmed {
                    self.is_confirmed = true;
                    self.measure.running(now());
                    self.process.confirmed();
                }
                self.pid_there = pid_there;
                self.handle(SourceInput::Running { patience_s });
            }
            Heard::Reserved(answer) if answer.files.len() == self.files => {
                let plan = plan_of(&answer);
                self.packer.packing = Packing::new(answer.travel.packed);
                let accepted = self.process.accept(answer);
                self.measure.reserved(now());
                self.handle(accepted.map_or_else(SourceInput::Broken, |()| SourceInput::Reserved(plan)));
            }
            Heard::Reserved(_) => {
                let failure = Failure::Protocol("not one verdict for each file");
                self.handle(SourceInput::Broken(failure));
            }
        }
    }

    /// A connection is of no use any more.
    pub(crate) fn lose(&mut self, channel: Channel, failure: Failure) {
        self.use_of(channel).read = false;
        self.lose_writing(channel, failure);
    }

    /// A connection takes nothing more. It may still hold the other side's reason, so it is read on.
    pub(crate) fn lose_writing(&mut self, channel: Channel, failure: Failure) {
        let in_use = self.use_of(channel);
        (in_use.write, in_use.unsent) = (false, 0);
        self.use_of(Channel::Control).readable = true;
        self.lost.get_or_insert(failure);
    }

    /// The engine knows that the connections are of no use; it wants new ones. Whatever was under way is over.
    pub(crate) fn reconnect(&mut self) {
        self.attempt += 1;
        let answer = match self.process.reconnect(self.attempt) {
            Ok(channels) => {
                self.bytes_before += self.channels.bytes_sent();
                self.channels = channels;
                self.uses = [Use::WHOLE; 3];
                self.pushes.clear();
                (self.scan, self.lost) = (None, None);
                self.packer.packing.rested();
                self.packer.is_held = false;
                SourceInput::Reconnected
            }
            Err(failure) => SourceInput::ReconnectFailed(failure),
        };
        self.answer = Some(answer);
    }

    /// Tells the engine of a lost connection, once nothing is left on the control connection that explains it.
    fn report_loss(&mut self) -> bool {
        let control = *self.use_of(Channel::Control);
        if control.read && control.readable {
            return false;
        }
        let Some(failure) = self.lost.take() else { return false };
        self.handle(SourceInput::Broken(failure));
        true
    }

    /// Lets the engine commit, unless a connection is known to be gone: nobody would hear it.
    fn report_ready(&mut self) -> bool {
        if self.lost.is_some() || !core::mem::take(&mut self.ready) {
            return false;
        }
        let obstacle = self.process.obstacle();
        self.handle(obstacle.map_or(SourceInput::Ready, SourceInput::CaptureFailed));
        true
    }

    fn tick(&mut self) -> bool {
        let now = now();
        if self.listen_at <= now {
            self.listen_at = now + LISTEN_INTERVAL;
            self.listen();
        }
        let due = self.engine.poll_timeout().is_some_and(|at| at <= now);
        if due {
            self.handle(SourceInput::Tick);
        }
        due
    }

    /// Gives the connections up if the other machine is gone. A link that is only slow lets something through, and a
    /// process that only stands still has a kernel that answers.
    fn listen(&mut self) {
        let mut silence = None;
        for channel in Channel::ALL {
            if self.use_of(channel).read {
                let silent = silent_for(self.channels.get(channel).stream().fd().raw());
                silence = Some(silence.unwrap_or(u32::MAX).min(silent));
            }
        }
        if silence >= Some(SILENCE_MS) {
            for channel in Channel::ALL {
                self.lose(channel, Failure::LinkLost(channel));
            }
        }
    }

    /// Writes what waits for a socket, and tells the engine which pages are on their way.
    fn flush(&mut self) -> bool {
        let mut worked = false;
        for channel in Channel::ALL {
            let in_use = *self.use_of(channel);
            let connection = self.channels.get_mut(channel);
            if in_use.write && !in_use.is_full && connection.wants_write() {
                let before = connection.bytes_sent();
                let result = connection.flush();
                worked |= connection.bytes_sent() != before;
                match result {
                    Ok(all) => self.use_of(channel).is_full = !all,
                    Err(error) => {
                        self.lose_writing(channel, failure_of(channel, &error));
                        worked = true;
                    }
                }
            }
            worked |= self.report_sent(channel);
        }
        worked
    }

    /// Tells the engine of the `SendPages` whose bytes the socket has taken.
    fn report_sent(&mut self, channel: Channel) -> bool {
        if self.channels.get(channel).wants_write() {
            return false;
        }
        let sent = core::mem::take(&mut self.use_of(channel).unsent);
        for _ in 0..sent {
            self.handle(SourceInput::Sent(channel));
        }
        sent > 0
    }

    /// Looks at a piece of the address space, unless page maps already wait for the socket.
    fn scan_step(&mut self) -> bool {
        if self.channels.get(Channel::Control).wants_write() {
            return false;
        }
        let Some(range) = self.scan.take() else { return false };
        let (scanned, _) = range.split_at_pages(self.scan_pages);
        let before = now();
        let data = self.process.scan(scanned);
        self.measure.scanned(before, now());
        // Holes cost next to nothing, and some programs reserve terabytes of them.
        self.scan_pages =
            if data.is_empty() { (self.scan_pages * 2).min(SCAN_PAGES_LARGEST) } else { SCAN_PAGES };
        self.handle(SourceInput::Scanned { scanned, data });
        true
    }

    /// Makes one push frame, or several short ones, unless an earlier one still waits for the socket.
    fn push_some(&mut self) -> bool {
        if self.channels.get(Channel::Push).wants_write() {
            self.link_refused();
            return false;
        }
        if self.pushes.is_empty() {
            self.packer.packing.rested();
            return false;
        }
        let mut room = u64::from(self.packer.packing.frame_pages());
        while room > 0
            && let Some(pages) = self.pushes.pop_front()
        {
            let (piece, rest) = pages.split_at_pages(room);
            self.send_pages(Channel::Push, piece);
            room -= piece.pages();
            if !rest.is_empty() {
                self.pushes.push_front(rest);
                let in_use = self.use_of(Channel::Push);
                in_use.unsent = in_use.unsent.saturating_sub(1);
            }
        }
        self.send(Channel::Push, |push| push.flush().map(|_| ()));
        true
    }

    /// The push connection takes no more: tells how fast the link is, and over a slow one has the kernel keep little.
    fn link_refused(&mut self) {
        let packing = &mut self.packer.packing;
        packing.refused(now(), self.bytes_before + self.channels.bytes_sent());
        let is_slow = packing.is_slow();
        if is_slow != self.packer.is_held {
            self.packer.is_held = is_slow;
            let most = if is_slow { PUSH_UNSENT_BYTES } else { 0 };
            take_at_most(self.channels.get(Channel::Push).stream().fd(), most);
        }
    }

    /// Waits for a socket or for the engine's deadline; only looks if there may be more to do.
    fn wait(&mut self, worked: bool) {
        let due = self.engine.poll_timeout().map_or(self.listen_at, |at| at.min(self.listen_at));
        let is_busy = worked || self.lost.is_some();
        let until = if is_busy { Instant::default() } else { due };
        let mut interests = self.process.interests();
        for channel in Channel::ALL {
            let in_use = *self.use_of(channel);
            let connection = self.channels.get(channel);
            let (socket, write) = (connection.stream().fd(), in_use.write && connection.wants_write());
            interests.push(match (in_use.read, write) {
                (true, true) if channel == Channel::Fault => Interest::writable(socket),
                (true, write) => Interest::new(socket, write),
                (false, true) => Interest::writable(socket),
                (false, false) => Interest::nothing(),
            });
        }
        let is_watched = !is_busy && self.engine.is_under_fire() && self.vigil.keep(&mut interests);
        if !is_watched && wait(&mut interests, until).is_err() {
            self.lost.get_or_insert(Failure::LinkLost(Channel::Control));
        }
        for (channel, interest) in Channel::ALL.into_iter().rev().zip(interests.iter().rev()) {
            let in_use = self.use_of(channel);
            in_use.readable |= interest.is_readable();
            in_use.is_full &= !interest.is_writable();
        }
    }

    /// Gives the last frames a bounded time to leave.
    fn flush_last(&mut self) {
        let deadline = now() + LAST_FLUSH;
        if !self.use_of(Channel::Control).write {
            return;
        }
        let control = self.channels.get_mut(Channel::Control);
        while control.flush() == Ok(false) && now() < deadline {
            let interest = Interest::writable(control.stream().fd());
            if wait(&mut [interest], deadline).is_err() {
                return;
            }
        }
    }
}

fn plan_of(answer: &Reserved) -> Plan {
    let travel = answer.travel;
    Plan {
        ahead: travel.ahead,
        follows: !travel.none_after && !answer.all_pages_first,
        max_downtime: Duration::from_millis(u64::from(travel.max_downtime_ms)),
        bandwidth: travel.bandwidth,
    }
}
