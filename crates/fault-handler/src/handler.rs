//! The loop: wait, hand in, perform; again, until the engine has nothing more to do.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use engine::{Config, Destination, DestinationInput, Failure, Instant, SpaceId};
use memory::RangeSet;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use protocol::{Channel, Kind, Manifest, Reason, Reserved};
use transport::ConnectionError;

use crate::channels::{Channels, token};
use crate::config::{
    CHANGE_WAIT_MS, FAREWELL, FRAMES_AHEAD, LISTEN_INTERVAL, PROGRESS_INTERVAL, READY_PER_WAIT,
    SHORT_FRAMES_PAGES, SILENCE_MS,
};
use crate::placement::{self, Placement};
use crate::spaces::{News, Spaces};
use crate::testament::Testament;
use crate::{DestinationProcess, HandlerError, Measurement, Notification};

/// Under which readiness of [`DestinationProcess::watched`] is reported.
const NOTIFICATION: Token = Token(3);

/// How a migration ended that ended in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The process never ran here.
    Discarded(Failure),
    /// The process runs here (or has run); with a failure, the pages that were missing then are lost.
    Completed(Option<Failure>),
    /// The process has run here and was killed, because pages are lost.
    Killed(Failure),
}

/// The end of a migration, with what the loop measured.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// The engine as it was at its end, for the report.
    pub engine: Destination,
    /// What went over the wire.
    pub traffic: Traffic,
}

/// What went over the three connections, in bytes with headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Received in all.
    pub received: u64,
    /// Received until the process stood still at the source.
    pub before_switchover: u64,
    /// Received until it went on here.
    pub before_resume: u64,
    /// Page requests sent.
    pub requests: u64,
}

/// One migration at its destination.
#[derive(Debug)]
pub struct FaultHandler<'process, P> {
    pub(crate) process: &'process mut P,
    pub(crate) engine: Destination,
    pub(crate) channels: Channels,
    pub(crate) spaces: Spaces,
    pub(crate) poll: Poll,
    /// What has happened and has not been handed in yet, in this order.
    pub(crate) inputs: VecDeque<DestinationInput>,
    pub(crate) manifest: Option<Manifest>,
    /// What a copy is left that was made ahead of the switchover; none if no such copy could go on.
    pub(crate) testament: Option<Testament>,
    pub(crate) reserved: Option<Reserved>,
    /// Ranges that the userfaultfd of the process was given; where they were at the start.
    pub(crate) registered: RangeSet,
    /// The process here, once it runs.
    pub(crate) running: Option<u32>,
    /// Somebody here may touch what is still to come.
    pub(crate) may_be_waited_for: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) traffic: Traffic,
    placement: Placement,
    events: Events,
    /// What earlier channels have received.
    received_before: u64,
    /// A connection that has ended while others may still have frames.
    lost: Option<Channel>,
    is_paused: bool,
    /// There is no memory for a page at the moment.
    pub(crate) is_short: bool,
    watched: usize,
    pub(crate) notified: bool,
    next_progress: Instant,
    /// When to look next whether the other machine is there.
    listen_at: Instant,
    /// When the engine's clock began. The standard library reads it without a system call.
    epoch: std::time::Instant,
}

impl<'process, P: DestinationProcess> FaultHandler<'process, P> {
    /// A migration whose three channels are open; the next frame is `Reserve`.
    ///
    /// # Errors
    /// Those of epoll(7).
    pub fn new(process: &'process mut P, mut channels: Channels, config: Config) -> io::Result<Self> {
        let poll = Poll::new()?;
        channels.register(poll.registry())?;
        let mut handler = Self {
            process,
            engine: Destination::new(config, Instant::default()),
            channels,
            spaces: Spaces::new()?,
            poll,
            inputs: VecDeque::new(),
            manifest: None,
            testament: None,
            reserved: None,
            registered: RangeSet::new(),
            running: None,
            may_be_waited_for: false,
            outcome: None,
            traffic: Traffic::default(),
            placement: Placement::default(),
            events: Events::with_capacity(READY_PER_WAIT),
            received_before: 0,
            lost: None,
            is_paused: false,
            is_short: false,
            watched: 0,
            notified: true,
            next_progress: Instant::default(),
            listen_at: Instant::default() + LISTEN_INTERVAL,
            epoch: std::time::Instant::now(),
        };
        handler.watch_process()?;
        Ok(handler)
    }

    /// Runs the migration to its end.
    ///
    /// # Errors
    /// The process could not be served any more. It has been ended, because missing pages that nobody serves
    /// read as zero, and the other side has been told.
    pub fn run(mut self) -> Result<Ended, HandlerError> {
        let result = self.turn_until_ended();
        if let Err(error) = &result {
            let text = error.in_full();
            self.process.discard(&Failure::Local(text.clone()));
            // What has never run here goes on at the source, even if the source's word to run is on its way.
            let kind = if self.engine.may_have_run() { Kind::Failed } else { Kind::Abort };
            self.send(Channel::Control, |control| control.send_message(kind, &Reason { text }));
        }
        self.say_farewell()?;
        let outcome = result?;
        self.traffic.received = self.received_before + self.channels.bytes_received();
        Ok(Ended { outcome, traffic: self.traffic, engine: self.engine })
    }

    fn turn_until_ended(&mut self) -> Result<Outcome, HandlerError> {
        loop {
            if let Some(outcome) = self.outcome.take() {
                return Ok(outcome);
            }
            self.wait(self.patience())?;
            self.take_events()?;
            self.take_notifications()?;
            self.take_time();
            // Requests go out before bulk is taken, and that need not wait for another look.
            let was_lost = self.lost.is_some();
            self.settle()?;
            // A connection that ended just now may have left the reason on another one, where it was not looked for yet.
            if self.outcome.is_none() && self.lost.is_some() == was_lost {
                let taken = self.take_frame();
                self.settle()?;
                if taken == Some(Channel::Push) {
                    self.take_short_frames()?;
                }
            }
            self.take_more()?;
            self.keep_log_short()?;
            self.tell_pauses();
            self.tell_progress();
        }
    }

    /// Hands in everything that has happened and performs everything that follows from it. What happens
    /// during an action is handed in before the next one: the engine may have to change its mind.
    fn settle(&mut self) -> Result<(), HandlerError> {
        loop {
            while let Some(input) = self.inputs.pop_front() {
                self.engine.handle(self.now(), input);
            }
            let Some(action) = self.engine.poll_action() else { break };
            self.perform(action)?;
        }
        Ok(())
    }

    /// How long nothing can be done: no time at all while something is known to be ready.
    fn patience(&self) -> Duration {
        let frames = self.frame_order().any(|channel| self.channels.get(channel).may_have_frame());
        let inputs = !self.inputs.is_empty();
        if frames || inputs || self.spaces.may_have_news() || self.notified || self.lost.is_some() {
            return Duration::ZERO;
        }
        let until = self.engine.poll_timeout().map_or(self.listen_at, |at| at.min(self.listen_at));
        until.since(self.now())
    }

    fn wait(&mut self, patience: Duration) -> Result<(), HandlerError> {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result.map_err(HandlerError::Wait)?,
        }
        let mut ended = Vec::new();
        for event in &self.events {
            let channel = Channel::ALL.into_iter().find(|channel| token(*channel) == event.token());
            if let Some(channel) = channel {
                if let Err(error) = self.channels.get_mut(channel).became_ready(event) {
                    ended.push((channel, error));
                }
            } else if event.token() == NOTIFICATION {
                self.notified = true;
            } else {
                self.spaces.became_ready(event.token());
            }
        }
        for (channel, error) in ended {
            self.connection_ended(channel, &error);
        }
        Ok(())
    }

    fn take_events(&mut self) -> Result<(), HandlerError> {
        let news = self.spaces.read(self.poll.registry())?;
        self.take_news(news)
    }

    fn take_news(&mut self, news: News) -> Result<(), HandlerError> {
        for child in news.children {
            if let Some(uffd) = self.spaces.get(child) {
                self.process.forked(uffd).map_err(HandlerError::Abandoned)?;
            }
        }
        for fault in &news.faults {
            self.tell_placement(fault);
        }
        self.inputs.extend(news.events);
        self.inputs.extend(news.faults);
        Ok(())
    }

    fn tell_placement(&mut self, fault: &DestinationInput) {
        let DestinationInput::Fault { space, thread, .. } = *fault else { return };
        let waited = Duration::from_micros(self.engine.report().fault_latency.total_us());
        if let Some((space, tid)) = self.placement.faulted(self.now(), (space, thread), waited)
            && let Some(pid) = self.spaces.pid(space)
        {
            let began = self.now();
            placement::go_next_to(pid, tid);
            self.placement.went(began, self.now());
        }
    }

    /// The kernel refuses to fill pages while the program changes its mappings. Reads what stands behind
    /// that, which also lets the program go on; waits a moment if it has been read already and the program has not
    /// gone on yet.
    pub(crate) fn take_change(&mut self, space: SpaceId) -> Result<(), HandlerError> {
        let Some(uffd) = self.spaces.get(space) else { return Ok(()) };
        uffd.wait_readable(CHANGE_WAIT_MS).map_err(HandlerError::Memory)?;
        let mut news = News::default();
        self.spaces.read_one(space, self.poll.registry(), &mut news)?;
        self.take_news(news)
    }

    fn take_notifications(&mut self) -> Result<(), HandlerError> {
        if !self.notified {
            return Ok(());
        }
        while self.notified {
            match self.process.notification() {
                None => self.notified = false,
                Some(Notification::Ended) => self.inputs.extend(self.spaces.forget_if_gone(SpaceId::MAIN)),
                Some(Notification::Reconnected(channels)) => self.take_channels(*channels)?,
                Some(Notification::Abandoned(failure)) => return Err(HandlerError::Abandoned(failure)),
                Some(Notification::Space(space, uffd, pid)) => {
                    self.spaces.add_numbered(space, uffd, self.poll.registry())?;
                    if let Some(pid) = pid {
                        self.spaces.runs_as(space, pid);
                    }
                }
                Some(Notification::Assembled(built)) => {
                    let built = built.map(|()| DestinationInput::Assembled);
                    self.inputs.push_back(built.unwrap_or_else(DestinationInput::PrepareFailed));
                }
                Some(Notification::Resumed(resumed)) => self.resumed(resumed),
            }
        }
        self.watch_process().map_err(HandlerError::Wait)
    }

    /// New channels stand. What the old ones still hold is void.
    fn take_channels(&mut self, mut channels: Channels) -> Result<(), HandlerError> {
        channels.register(self.poll.registry()).map_err(HandlerError::Wait)?;
        self.channels.hang_up(self.poll.registry());
        self.received_before += self.channels.bytes_received();
        self.channels = channels;
        self.lost = None;
        self.inputs.push_back(DestinationInput::Reconnected);
        Ok(())
    }

    fn tell_pauses(&mut self) {
        let paused = self.engine.paused_because().cloned();
        if paused.is_some() != self.is_paused {
            self.is_paused = paused.is_some();
            self.process.measured(paused.map_or(Measurement::Recovered, Measurement::Paused));
        }
    }

    fn tell_progress(&mut self) {
        if self.running.is_some() && self.next_progress <= self.now() {
            self.next_progress = self.now() + PROGRESS_INTERVAL;
            self.process.measured(Measurement::Progress(self.engine.progress()));
        }
    }

    /// Time as the engine counts it.
    pub(crate) fn now(&self) -> Instant {
        Instant(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn take_time(&mut self) {
        if self.listen_at <= self.now() {
            self.listen_at = self.now() + LISTEN_INTERVAL;
            self.listen();
        }
        if self.engine.poll_timeout().is_some_and(|at| at <= self.now()) {
            self.inputs.push_back(DestinationInput::Tick);
        }
    }

    /// Gives the connections up if the other machine is gone. A link that is only slow lets something through, and a
    /// process that only stands still has a kernel that answers.
    fn listen(&mut self) {
        if self.channels.silent_for() >= SILENCE_MS {
            for channel in Channel::ALL {
                self.connection_ended(channel, &ConnectionError::Closed);
            }
        }
    }

    /// As long as no process here waits for pages, those that come ahead need not wait for a look at everything else each.
    fn take_more(&mut self) -> Result<(), HandlerError> {
        for _ in 1..FRAMES_AHEAD {
            let is_ahead = !self.may_be_waited_for
                && self.running.is_none()
                && self.outcome.is_none()
                && self.engine.takes_pages();
            if !is_ahead || self.take_any_frame().is_none() {
                break;
            }
            self.settle()?;
        }
        Ok(())
    }

    /// Where pages were asked for, bulk comes without them, in short frames: of those that follow one in hand, as many as make
    /// up half a long one need not wait for a look at everything else each.
    fn take_short_frames(&mut self) -> Result<(), HandlerError> {
        let mut taken = 0;
        for _ in 1..FRAMES_AHEAD {
            let pages = self.channels.get(Channel::Push).pages_in_hand();
            taken += pages;
            let is_short = pages > 0 && taken < SHORT_FRAMES_PAGES && self.outcome.is_none();
            if !is_short || !self.engine.takes_pages() || !self.take_frame_of(Channel::Push) {
                break;
            }
            self.settle()?;
        }
        Ok(())
    }

    /// Takes at most one frame, and tells of which channel: an answer to a fault first, bulk last. The end of a connection counts only when
    /// the others have nothing more to say: they race each other.
    fn take_frame(&mut self) -> Option<Channel> {
        let taken = self.take_any_frame();
        if taken.is_none()
            && let Some(channel) = self.lost.take()
        {
            self.inputs.push_back(DestinationInput::Broken(Failure::LinkLost(channel)));
        }
        taken
    }

    /// Of which channel there was one.
    fn take_any_frame(&mut self) -> Option<Channel> {
        let order: Vec<Channel> = self.frame_order().collect();
        order.into_iter().find(|channel| self.take_frame_of(*channel))
    }

    /// Whether there was one.
    fn take_frame_of(&mut self, channel: Channel) -> bool {
        let line = self.channels.get_mut(channel);
        if !line.may_have_frame() {
            return false;
        }
        match line.receive() {
            Ok(true) => {
                self.accept(channel);
                true
            }
            Ok(false) => false,
            Err(error) => {
                self.connection_ended(channel, &error);
                false
            }
        }
    }

    /// In the middle of what was pushed: looks who else waits for a page, and whether the answer for somebody is there.
    pub(crate) fn glance(&mut self) -> Result<(), HandlerError> {
        self.wait(Duration::ZERO)?;
        self.take_events()?;
        self.take_frame_of(Channel::Fault);
        Ok(())
    }

    fn frame_order(&self) -> impl Iterator<Item = Channel> + use<P> {
        let pages = self.engine.takes_pages();
        [Channel::Fault, Channel::Control, Channel::Push]
            .into_iter()
            .filter(move |channel| pages || *channel == Channel::Control)
    }

    /// Sends on a channel that still stands; that it has ended is noticed here and handed in later.
    pub(crate) fn send(
        &mut self,
        channel: Channel,
        send: impl FnOnce(&mut transport::Connection<mio::net::TcpStream>) -> Result<(), ConnectionError>,
    ) {
        let line = self.channels.get_mut(channel);
        if !line.has_ended()
            && let Err(error) = send(&mut line.connection)
        {
            self.connection_ended(channel, &error);
        }
    }

    pub(crate) fn connection_ended(&mut self, channel: Channel, error: &ConnectionError) {
        let line = self.channels.get_mut(channel);
        if error.is_link_loss() {
            line.end();
            self.lost.get_or_insert(channel);
        } else {
            line.deafen();
            self.inputs.push_back(DestinationInput::Broken(Failure::Protocol(nonsense(error))));
        }
    }

    /// Nothing is watched yet by a new poll.
    pub(crate) fn forget_watches(&mut self) {
        (self.watched, self.notified, self.lost) = (0, true, None);
    }

    /// Has new descriptors of the process watched.
    pub(crate) fn watch_process(&mut self) -> io::Result<()> {
        for fd in self.process.watched().iter().skip(self.watched) {
            let source = &mut SourceFd(&fd.as_raw_fd());
            self.poll.registry().register(source, NOTIFICATION, Interest::READABLE)?;
            self.watched += 1;
        }
        Ok(())
    }

    /// Lets the last frames leave, and waits for the other side to hang up first: closing a socket with unread
    /// bytes would destroy what is still on its way there.
    fn say_farewell(&mut self) -> Result<(), HandlerError> {
        let deadline = self.now() + FAREWELL;
        loop {
            while self.channels.get(Channel::Control).may_have_frame() && self.now() < deadline {
                match self.channels.get_mut(Channel::Control).receive() {
                    Ok(true) => self.accept(Channel::Control),
                    Ok(false) => {}
                    Err(_) => self.channels.get_mut(Channel::Control).end(),
                }
                self.inputs.clear();
            }
            let control = self.channels.get(Channel::Control);
            let left = deadline.since(self.now());
            if control.is_over() || left.is_zero() {
                return Ok(());
            }
            self.wait(left)?;
        }
    }
}

const fn nonsense(error: &ConnectionError) -> &'static str {
    match error {
        ConnectionError::Frame(_) => "a malformed frame",
        ConnectionError::Unexpected(_) => "a frame that has no place here",
        ConnectionError::Body { .. } => "a body that cannot be decoded",
        ConnectionError::Stranger | ConnectionError::Version { .. } => "a second greeting",
        ConnectionError::Altered => "bytes that were altered on the way",
        ConnectionError::Key => "no proof that it has the same key",
        ConnectionError::TooLong { .. } => "a frame that is too long",
        ConnectionError::Closed
        | ConnectionError::ClosedInFrame
        | ConnectionError::Broken { .. }
        | ConnectionError::QueueFull { .. } => "a broken connection",
    }
}
