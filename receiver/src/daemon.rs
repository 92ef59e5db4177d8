//! The daemon: listens, greets, puts channels together, starts a session for each migration and passes on
//! what it tells.
//!
//! One thread and one poll. It never reads a byte of a migration: from the greeting on, the channels belong
//! to the session process, so that nothing that arrives there can harm this one.

mod child;
mod course;
mod lobby;
mod shutdown;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use engine::OnLoss;
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use protocol::{Hello, MigrationId};

use crate::announcer::Announcer;
use crate::cli::Options;
use crate::config::{MAX_FATES, MAX_SESSIONS, STRANGER_INTERVAL};
use crate::confinement;
use crate::events::{DaemonEvent, SessionEvent, Whereabouts};
use crate::inherited::Purpose;
use crate::journal::Journal;
use crate::policy::{Policy, Tcp};
use crate::restorer::check_connections_permission;
use crate::sealing::read_key;
use child::Session;
pub use course::Fate;
use course::Stage;
use lobby::{Lobby, Outcome, Party};
use shutdown::Shutdown;

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const FIRST_FREE: usize = 2;

/// After an `accept` that failed for want of descriptors, when to try again.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What a daemon is, and what its sessions do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trade {
    /// Under which name it speaks.
    pub name: &'static str,
    /// Arguments of its sessions ahead of those that every session gets.
    pub session: Vec<OsString>,
}

impl Default for Trade {
    fn default() -> Self {
        Self { name: "receiver", session: Vec::new() }
    }
}

/// The receiver's daemon.
#[derive(Debug)]
pub struct Daemon {
    trade: Trade,
    poll: Poll,
    listener: TcpListener,
    signals: SignalFd,
    lobby: Lobby,
    sessions: BTreeMap<Token, Session>,
    /// Short-lived ones that tell a source how its migration ended.
    tellers: BTreeMap<Token, Session>,
    /// How migrations ended, and their sources' tokens; the latest first.
    fates: VecDeque<(MigrationId, [u8; 16], Fate)>,
    next_token: usize,
    announcer: Announcer,
    strangers: Strangers,
    accept_again: bool,
    once: bool,
    on_loss: OnLoss,
    patience_s: u16,
    policy: Policy,
    shutdown: Option<Shutdown>,
    verdict: Option<ExitCode>,
}

/// How many connections were closed without a word since the last one that was told of.
#[derive(Debug, Default)]
struct Strangers {
    told: Option<Instant>,
    untold: u64,
}

impl Daemon {
    /// Opens port and journal, and says that it listens.
    ///
    /// # Errors
    /// A port or file that cannot be had, with what to do about it.
    pub fn start(options: &Options, trade: Trade) -> anyhow::Result<Self> {
        let journal = match &options.events {
            None => Journal::default(),
            Some(path) => Journal::open(path)
                .with_context(|| format!("--events: '{}' cannot be opened for writing", path.display()))?,
        };
        check(&options.policy)?;
        let key = options.key_file.as_deref().map(read_key).transpose()?;
        let bind = options.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        if key.is_none() && !bind.is_loopback() {
            bail!(
                "--bind {bind} needs --key-file FILE: whoever reaches the port runs programs here (receiver keygen \
                 FILE makes a key)"
            );
        }
        let mut listener = listen(SocketAddr::new(bind, options.port))?;
        let address = listener.local_addr().context("asking for the port")?;
        let poll = Poll::new().context("making an epoll")?;
        let signals = catch_signals().context("catching signals")?;
        let registry = poll.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        registry.register(&mut SourceFd(&signals.as_raw_fd()), SIGNALS, Interest::READABLE)?;
        let mut announcer = Announcer::new(trade.name, journal);
        announcer.daemon(
            None,
            &DaemonEvent::Listening {
                address: address.ip(),
                port: address.port(),
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION"),
            },
        );
        Ok(Self {
            trade,
            poll,
            listener,
            signals,
            lobby: Lobby::new(key),
            sessions: BTreeMap::new(),
            tellers: BTreeMap::new(),
            fates: VecDeque::new(),
            next_token: FIRST_FREE,
            announcer,
            strangers: Strangers::default(),
            accept_again: false,
            once: options.once,
            on_loss: options.on_loss,
            patience_s: options.loss_deadline,
            policy: options.policy.clone(),
            shutdown: None,
            verdict: None,
        })
    }

    /// Runs until a signal or `--once` ends it.
    ///
    /// # Errors
    /// The poll itself.
    pub fn run(&mut self) -> anyhow::Result<ExitCode> {
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, self.timeout(Instant::now())) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error).context("waiting");
                }
                _ => {}
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(now),
                    SIGNALS => self.signalled(now),
                    token if self.sessions.contains_key(&token) => self.hear(token, now),
                    token => self.visited(token, event.is_read_closed(), now),
                }
            }
            self.time_has_passed(now);
            if let Some(verdict) = self.verdict {
                return Ok(verdict);
            }
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let retry = self.accept_again.then(|| now + ACCEPT_AGAIN);
        let shutdown = self.shutdown.as_ref().map(|shutdown| shutdown.deadline);
        let next = [retry, shutdown, self.lobby.next_deadline()].into_iter().flatten().min()?;
        // The poll counts in milliseconds: round up, or it spins through the last one.
        Some(next.saturating_duration_since(now) + Duration::from_millis(1))
    }

    fn time_has_passed(&mut self, now: Instant) {
        while let Some(peer) = self.lobby.expire(now) {
            self.stranger(peer, "it did not introduce itself in time", now);
        }
        if std::mem::take(&mut self.accept_again) {
            self.accept(now);
        }
        self.go_on_shutting_down(now);
    }

    fn token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    fn accept(&mut self, now: Instant) {
        while self.shutdown.is_none() {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    let token = self.token();
                    match self.lobby.admit(self.poll.registry(), token, stream, peer, now) {
                        Ok(None) => {}
                        Ok(Some(peer)) => self.stranger(peer, "too many others came after it", now),
                        Err(error) => self.announcer.note(format_args!("greeting {peer}: {error}")),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_passing(error.kind()) => {}
                // Most likely no descriptor is left: the oldest visitor gives its own away.
                Err(error) => match self.lobby.evict_oldest() {
                    Some(peer) => self.stranger(peer, "no descriptor was left for others", now),
                    None => {
                        self.announcer.note(format_args!("accepting a connection: {error}"));
                        self.accept_again = true;
                        return;
                    }
                },
            }
        }
    }

    fn visited(&mut self, token: Token, hung_up: bool, now: Instant) {
        let (sessions, once, fates) = (&self.sessions, self.once, &self.fates);
        let tcp = self.policy.tcp;
        let admission = |hello: &Hello| match hello.attempt {
            _ if hello.relays => may_relay(sessions, tcp, hello),
            0 => may_come(sessions, once, hello.migration),
            _ => may_come_again(sessions, fates, hello),
        };
        match self.lobby.readable(self.poll.registry(), token, hung_up, admission) {
            Outcome::Nothing => {}
            Outcome::Stranger(peer) => self.stranger(peer, "it is not a source of this kind", now),
            Outcome::Refused { peer, migration, reason } => {
                self.announcer.daemon(Some(migration), &DaemonEvent::Refused { peer, reason });
            }
            Outcome::Complete(party) => self.begin(*party, now),
        }
    }

    fn stranger(&mut self, peer: SocketAddr, why: &str, now: Instant) {
        if self.strangers.told.is_some_and(|told| now.duration_since(told) < STRANGER_INTERVAL) {
            self.strangers.untold += 1;
            return;
        }
        let reason = match std::mem::take(&mut self.strangers.untold) {
            0 => why.to_owned(),
            others => format!("{why} ({others} others before it)"),
        };
        self.strangers.told = Some(now);
        self.announcer.daemon(None, &DaemonEvent::Refused { peer, reason });
    }

    fn begin(&mut self, party: Party, now: Instant) {
        let (migration, peer) = (party.hello.migration, party.peer);
        if party.hello.relays {
            let mut sessions = self.sessions.values_mut();
            if let Some(session) = sessions.find(|session| session.migration == migration) {
                // If it has just ended, the source finds out.
                let _ = session.hand_over(party);
            }
            return;
        }
        if party.hello.attempt > 0 {
            return self.begin_again(party, now);
        }
        // Another one may have come first while this one's channels were still arriving.
        if let Err(reason) = may_come(&self.sessions, self.once, migration) {
            self.announcer.daemon(Some(migration), &DaemonEvent::Refused { peer, reason });
            return;
        }
        self.announcer.daemon(Some(migration), &DaemonEvent::Connected { peer });
        self.make_room(now);
        let token = self.token();
        let purpose = Purpose::Receive { on_loss: self.on_loss, patience_s: self.patience_s };
        match Session::start(self.poll.registry(), token, party, purpose, (&self.trade, self.policy.clone()))
        {
            Ok(session) => {
                self.sessions.insert(token, session);
            }
            Err(error) => {
                let reason = format!("starting a session: {error}");
                let failed = SessionEvent::Failed { reason, process: Whereabouts::Source };
                self.announcer.session(migration, &failed, now);
            }
        }
    }

    /// Where there are as many sessions as may be, ends the oldest one whose source has said nothing of its process yet:
    /// a source says it at once, so that a crowd of silent ones cannot keep it out.
    fn make_room(&mut self, now: Instant) {
        if self.sessions.len() < MAX_SESSIONS {
            return;
        }
        let tokens: Vec<Token> = self.sessions.keys().copied().collect();
        for token in tokens {
            self.hear(token, now);
            let Some(session) = self.sessions.get_mut(&token).filter(|session| session.course.is_silent())
            else {
                continue;
            };
            let reason = "too many others came after it, and it had not said what it brings".to_owned();
            let failed = SessionEvent::Failed { reason, process: Whereabouts::Source };
            session.advance(&failed);
            session.kill();
            self.announcer.session(session.migration, &failed, now);
            return;
        }
    }

    /// A source has connected again: to its session, or to hear how its migration ended.
    fn begin_again(&mut self, party: Party, now: Instant) {
        let migration = party.hello.migration;
        let token =
            self.sessions.iter().find(|(_, session)| session.migration == migration).map(|(at, _)| *at);
        if let Some(token) = token {
            self.hear(token, now);
        }
        let session = token.and_then(|token| self.sessions.get_mut(&token));
        let fate = match session {
            Some(session) => match session.course.stage {
                // If it has just ended, the source finds out, and comes yet again.
                Stage::Preparing | Stage::Resumed => {
                    let _ = session.hand_over(party);
                    return;
                }
                Stage::Settled | Stage::Over => Some(session.course.fate()),
            },
            None => self.fates.iter().find(|(id, ..)| *id == migration).map(|(.., fate)| *fate),
        };
        let Some(fate) = fate else { return };
        let token = self.token();
        let purpose = Purpose::Tell(fate);
        match Session::start(self.poll.registry(), token, party, purpose, (&self.trade, self.policy.clone()))
        {
            Ok(session) => _ = self.tellers.insert(token, session),
            Err(error) => self.announcer.note(format_args!("telling {migration} how it ended: {error}")),
        }
    }

    /// Passes on what a session has written.
    fn hear(&mut self, token: Token, now: Instant) {
        let Some(session) = self.sessions.get_mut(&token) else { return };
        let migration = session.migration;
        loop {
            match session.next_event() {
                Ok(None) => return,
                Ok(Some(event)) => self.announcer.session(migration, &event, now),
                Err(error) => {
                    self.announcer.note(format_args!("listening to the session of {migration}: {error}"));
                    return;
                }
            }
        }
    }

    fn signalled(&mut self, now: Instant) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGCHLD) => self.reap(now),
                Some(signal) => self.shut_down(signal, now),
                None => {}
            }
        }
    }

    /// One SIGCHLD may stand for many children, so each is asked.
    fn reap(&mut self, now: Instant) {
        self.tellers.retain(|_, teller| !matches!(teller.try_wait(), Ok(Some(_)) | Err(_)));
        let tokens: Vec<Token> = self.sessions.keys().copied().collect();
        for token in tokens {
            let status = self.sessions.get_mut(&token).map(Session::try_wait);
            if let Some(Ok(Some(status))) = status {
                self.hear(token, now);
                if self.shutdown.is_none() && self.is_succeeded(token, status, now) {
                    continue;
                }
                self.conclude(token, status, now);
            }
        }
    }

    /// Whether a copy of the session goes on in its place.
    fn is_succeeded(&mut self, token: Token, status: ExitStatus, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(&token) else { return false };
        if status.success() || !session.is_succeeded() {
            return false;
        }
        let reason = status.to_string();
        self.announcer.session(session.migration, &SessionEvent::Succeeded { reason }, now);
        true
    }

    /// Says what its session did not live to say, and forgets it.
    fn conclude(&mut self, token: Token, status: ExitStatus, now: Instant) {
        let Some(mut session) = self.sessions.remove(&token) else { return };
        session.deregister(self.poll.registry());
        let reason = format!("its session has ended early ({status})");
        if let Some(process) = session.course.whereabouts_if_cut_short() {
            let failed = SessionEvent::Failed { reason, process };
            session.advance(&failed);
            self.announcer.session(session.migration, &failed, now);
        } else if session.course.stage == Stage::Settled {
            let pid = session.course.program.unwrap_or_default();
            self.announcer.note(format_args!("process {pid} goes on by itself: {reason}"));
        }
        self.fates.truncate(MAX_FATES - 1);
        self.fates.push_front((session.migration, session.token(), session.course.fate()));
        if self.once
            && let Some(moved) = session.course.verdict()
        {
            self.verdict = Some(if moved { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
}

/// Whether a migration is taken, or why not.
fn may_come(sessions: &BTreeMap<Token, Session>, once: bool, migration: MigrationId) -> Result<(), String> {
    if sessions.values().any(|session| session.migration == migration) {
        return Err("this migration is already here".to_owned());
    }
    if once && sessions.values().any(|session| session.course.counts()) {
        return Err("this receiver takes one process only (--once)".to_owned());
    }
    if sessions.values().filter(|session| !session.course.is_silent()).count() >= MAX_SESSIONS {
        return Err(format!("this receiver has {MAX_SESSIONS} processes and takes no more"));
    }
    Ok(())
}

/// Whether a source may connect again, or why not.
fn may_come_again(
    sessions: &BTreeMap<Token, Session>,
    fates: &VecDeque<(MigrationId, [u8; 16], Fate)>,
    hello: &Hello,
) -> Result<(), String> {
    match sessions.values().find(|session| session.migration == hello.migration) {
        Some(session) => session.may_come_again(hello),
        None if fates.iter().any(|(id, token, _)| *id == hello.migration && *token == hello.token) => Ok(()),
        None => Err("this receiver knows nothing of this migration".to_owned()),
    }
}

/// Whether a source may have connections relayed, or why not.
fn may_relay(sessions: &BTreeMap<Token, Session>, tcp: Tcp, hello: &Hello) -> Result<(), String> {
    if tcp != Tcp::Relay {
        return Err("this receiver relays no connections".to_owned());
    }
    let session = sessions.values().find(|session| session.migration == hello.migration);
    session.map_or_else(
        || Err("this receiver knows nothing of this migration".to_owned()),
        |session| session.may_relay(hello),
    )
}

/// Whether what the user wants can be had at all.
fn check(policy: &Policy) -> anyhow::Result<()> {
    if let Some(root) = &policy.root {
        confinement::check(root)?;
    }
    if policy.tcp == Tcp::Move {
        check_connections_permission().context("--tcp move needs CAP_NET_ADMIN: run the receiver as root")?;
    }
    Ok(())
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let port = address.port();
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {port} is in use: end what listens there, or name another port (0 takes a free one)"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("port {port} needs privileges: name a port from 1024 up")
        }
        io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("--bind {}: this machine does not have that address", address.ip())
        }
        _ => anyhow::anyhow!("listening on {address}: {error}"),
    })?;
    sys::net::unpace_if_local(listener.as_raw_fd(), address.ip());
    Ok(listener)
}

/// From here on these signals arrive through the descriptor. Sessions inherit the mask and clear it.
fn catch_signals() -> nix::Result<SignalFd> {
    let signals: SigSet = [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Errors of `accept` that concern the connection, not the listener.
fn is_passing(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
}
