//! A tree that comes in: its images into a directory of their own, CRIU on them in namespaces of its own, and everything
//! told to the daemon.
//!
//! CRIU waits when everything stands and nothing runs yet, asked by RPC: that is when the destination is ready, and it
//! goes on when the source has given its word. Connections work from then on, which is why it is not earlier; but
//! credentials, seccomp filters and the like come last, and may be refused. So the tree is said to run when CRIU says it, and
//! one that got to no instruction of its own goes back. The guardian is the first process of the tree's namespaces: it holds
//! duplicates of the userfaultfds, and if this process dies before all memory is here it kills the tree before it lets go
//! of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use engine::Failure;
use fault_handler::{Measurement, Notification, Resumption};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use receiver::events::SessionEvent;
use receiver::guardian::{ExitStatus, Guardian, GuardianEvent, wait_for};
use receiver::handover::{self, HandedOver};
use receiver::sealing::connections;
use receiver::session::account::Account;
use receiver::session::teller::Teller;
use sys::uffd::Uffd;

use crate::config::{FINISH_TICK, FINISH_TICKS, LONGEST_NAME, MOST_FILES};
use crate::criu::Criu;
use crate::directory::Directory;
use crate::images;
use crate::inherit::{Claimed, Heir};
use crate::instance::Instance;
use crate::locks;
use crate::members;
use crate::quiet::Quiet;
use crate::rpc::{Kind, Options};
use crate::served::{Line, Rebuilder};
use crate::swrk::{self, Swrk, SwrkError, Word};

/// Where CRIU waits.
const STANDS: &str = "post-restore";
/// Nothing of the tree has run before.
const LETS_GO: &str = "pre-resume";
/// CRIU's own process gets an id near the end, where trees rarely are.
const LAST_ID: &str = "/proc/sys/kernel/ns_last_pid";
const IDS_LEFT: u32 = 300;

/// How far CRIU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It has not begun, or builds.
    Building,
    /// Everything stands.
    Stands,
    /// It gives every process the last of what it was.
    Finishing,
    /// It lets the tree go: some of it may run.
    Going,
    /// It is done, or dead.
    Over,
}

/// The tree.
#[derive(Debug)]
pub(crate) struct Restoration {
    criu: Criu,
    /// With its images, until it needs them no more.
    directory: Directory,
    pub(crate) account: Account,
    /// On which the daemon hands over the channels of a source that connects again.
    line: OwnedFd,
    /// What the tree gets of this process's own.
    heirs: Vec<Heir>,
    claimed: Vec<Claimed>,
    /// Until everything stands.
    quiet: Option<Quiet>,
    instance: Instance,
    files: Vec<File>,
    worker: Option<Swrk>,
    guardian: Option<Guardian>,
    stage: Stage,
    /// The source has let go of it.
    pub(crate) committed: bool,
    /// When to look whether CRIU can still finish, and how often that was done.
    timer: Option<TimerFd>,
    ticks: u32,
    /// Every process: its id in the images, and that here.
    here: BTreeMap<u32, u32>,
    /// Id here of the root.
    root_here: u32,
    exit: Option<ExitStatus>,
    is_empty: bool,
}

impl Restoration {
    pub(crate) fn new(criu: Criu, directory: Directory, teller: Teller, line: OwnedFd) -> Self {
        Self {
            criu,
            directory,
            account: Account::new(teller),
            line,
            heirs: Vec::new(),
            claimed: Vec::new(),
            quiet: None,
            instance: Instance::default(),
            files: Vec::new(),
            worker: None,
            guardian: None,
            stage: Stage::Building,
            committed: false,
            timer: None,
            ticks: 0,
            here: BTreeMap::new(),
            root_here: 0,
            exit: None,
            is_empty: false,
        }
    }

    /// The tree gets these descriptors, which are open.
    pub(crate) fn with_heirs(self, heirs: Vec<Heir>) -> Self {
        Self { heirs, ..self }
    }

    /// Waits for the end of the tree's root and tells of it; returns at once if it never ran, and early when nobody
    /// listens any more.
    pub(crate) fn follow(&mut self) {
        if self.account.pid.is_none() {
            return self.directory.delete();
        }
        while self.exit.is_none() && !self.is_empty && !self.account.teller.has_hung_up() {
            let mut interests = vec![PollFd::new(self.account.teller.readiness(), PollFlags::empty())];
            interests.push(PollFd::new(self.line.as_fd(), PollFlags::POLLIN));
            let guardian = self.guardian.as_ref().and_then(Guardian::readiness);
            let worker = self.worker.as_ref().filter(|_| self.stage != Stage::Over).map(Swrk::readiness);
            interests.extend(guardian.into_iter().chain(worker).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            if poll(&mut interests, PollTimeout::NONE).is_err_and(|errno| errno != nix::errno::Errno::EINTR) {
                break;
            }
            // A source that has not heard the end asks again, and the daemon knows the answer by then.
            drop(handover::receive(&self.line));
            self.hear_criu();
            self.hear_guardian();
        }
        self.directory.delete();
        if let Some(status) = self.exit {
            self.account.tell_exit(status);
        }
    }

    fn root(&self) -> u32 {
        self.instance.tasks.first().map_or(0, |task| task.pid)
    }

    /// Takes in what CRIU says and has it go on, except where it is waited for; tells when it has done what it was to do,
    /// or why it does not.
    fn hear_criu(&mut self) -> Option<Result<(), SwrkError>> {
        if matches!(self.stage, Stage::Stands | Stage::Over) {
            return None;
        }
        loop {
            let worker = self.worker.as_ref()?;
            match worker.hear(Duration::ZERO) {
                Ok(None) => return None,
                Ok(Some(Word::Waits(script))) if script == STANDS && self.stage == Stage::Building => {
                    self.stage = Stage::Stands;
                    return Some(Ok(()));
                }
                Ok(Some(Word::Waits(script))) => {
                    if script == LETS_GO {
                        self.stage = Stage::Going;
                    }
                    // If it cannot hear that, the next turn says why.
                    let _ = worker.go_on(true);
                }
                Ok(Some(Word::Done(_))) if self.stage == Stage::Building => {
                    let why = "it did not wait with the tree".to_owned();
                    return Some(Err(SwrkError::Refused { what: "restore these images", why }));
                }
                Ok(Some(Word::Done(_))) => {
                    self.directory.delete();
                    return Some(Ok(()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Whether the tree runs, once that is known.
    fn resumed(&mut self) -> Option<Notification> {
        if !matches!(self.stage, Stage::Finishing | Stage::Going) {
            return None;
        }
        let heard = self.hear_criu().or_else(|| self.hangs().map(Err))?;
        let _ = self.timer.as_ref().map(TimerFd::unset);
        self.quiet = None;
        let has_run = std::mem::replace(&mut self.stage, Stage::Over) == Stage::Going;
        Some(match heard {
            Ok(()) => {
                self.account.pid = Some(self.root_here);
                self.present_terminal();
                Notification::Resumed(Ok(self.root_here))
            }
            // It has ended every process before it says so.
            Err(error @ SwrkError::Refused { .. }) if !has_run => {
                Notification::Resumed(Err(Failure::Local(error.to_string())))
            }
            Err(error) => Notification::Abandoned(Failure::Local(error.to_string())),
        })
    }

    /// CRIU waits for ever for a process that has ended in the middle of this, and nobody is told of that but it.
    fn hangs(&mut self) -> Option<SwrkError> {
        let timer =
            self.timer.as_ref().filter(|timer| wait_for(timer.as_fd(), Duration::ZERO).unwrap_or(false))?;
        let _ = timer.wait();
        self.ticks += 1;
        let has_ended = members::is_zombie(self.root_here).unwrap_or(true);
        let hangs = self.stage == Stage::Finishing && (has_ended || self.ticks >= FINISH_TICKS);
        self.worker.as_ref().filter(|_| hangs).map(Swrk::complaint)
    }

    /// CRIU waits for as long as it takes until a lock on a file can be had. On the source's own machine it is the stopped tree
    /// that has it.
    fn waits_for_a_lock(&mut self) -> Option<SwrkError> {
        let timer = self.timer.as_ref().filter(|_| self.stage == Stage::Building)?;
        if !wait_for(timer.as_fd(), Duration::ZERO).unwrap_or(false) {
            return None;
        }
        let _ = timer.wait();
        let here = members::there_now(self.guardian.as_ref()?.pid().ok()?);
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let (waiting, holder) = locks::awaited(&locks, |pid| here.values().any(|member| *member == pid))?;
        let why = format!(
            "process {waiting} has a lock on a file, which process {holder} of this machine holds; if that is the tree itself, \
             it can move to another machine, without a shared file system"
        );
        self.stage = Stage::Over;
        Some(SwrkError::Refused { what: "restore these images", why })
    }

    /// Whether it uses one of this machine's terminals, as that of its own is not here.
    fn gets_a_terminal(&self) -> bool {
        self.instance.terms.consent.shell_job || !self.heirs.is_empty()
    }

    /// On another terminal nothing is drawn, and its size is another one: programs look at that when they are told.
    fn present_terminal(&self) {
        self.claimed.iter().for_each(Claimed::restore_window);
        let guardian = self.guardian.as_ref().filter(|_| self.gets_a_terminal());
        let Some(guardian) = guardian.and_then(|guardian| guardian.pid().ok()) else { return };
        for (_, pid) in members::there_now(guardian).into_iter().filter(|(_, pid)| *pid != guardian) {
            // One that has ended has nothing to draw.
            let _ = sys::pidfd::open(pid)
                .map(|process| sys::pidfd::send_signal(process.as_fd(), Signal::SIGWINCH as u32));
        }
    }

    fn hear_guardian(&mut self) {
        while let Some(guardian) = &mut self.guardian {
            match guardian.event() {
                Ok(Some(GuardianEvent::ChildExited(status))) => self.exit = Some(status),
                Ok(None) => return,
                Ok(Some(GuardianEvent::Empty)) | Err(_) => {
                    self.is_empty = true;
                    return;
                }
            }
        }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let criu = &self.criu;
        let begin = || {
            let most: u32 = std::fs::read_to_string("/proc/sys/kernel/pid_max")
                .and_then(|text| text.trim().parse().map_err(std::io::Error::other))?;
            // Else CRIU might have an id that the tree needs.
            std::fs::write(LAST_ID, most.saturating_sub(IDS_LEFT).to_string())?;
            Swrk::begin(criu)
        };
        self.claimed = self.heirs.iter().map(Heir::claim).collect::<Result<_, _>>()?;
        if self.instance.terms.consent.shell_job {
            self.claimed.push(Claimed::own_terminal());
        }
        let heirs = self.claimed.iter().filter_map(Claimed::as_fd);
        let kept: Vec<_> = [self.directory.as_fd()].into_iter().chain(heirs).collect();
        // Pseudo-terminals have numbers, which may be taken here.
        let has_terminals = self.instance.files.iter().any(|file| file.name.starts_with(b"tty"));
        let terminals = has_terminals && !self.gets_a_terminal();
        let (guardian, socket) = Guardian::start_over((self.root(), terminals), &kept, &begin)?;
        self.guardian = Some(guardian);
        self.timer = Some(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?);
        let terms = &self.instance.terms;
        if terms.consent.tcp_established {
            self.quiet = Some(Quiet::between(&images::connections(self.directory.path())?));
        }
        let options = Options {
            rst_sibling: Some(true),
            notify_scripts: Some(true),
            lazy_pages: terms.lazy.then_some(true),
            inherit_fd: self.heirs.iter().map(Heir::option).collect(),
            ..terms.consent.options()
        };
        let worker = self.worker.insert(Swrk::over(socket));
        worker.request(Kind::Restore, self.directory.options(options, "restore.log"))?;
        if let Some(timer) = &self.timer {
            timer.set(Expiration::Interval(FINISH_TICK.into()), TimerSetTimeFlags::empty())?;
        }
        Ok(())
    }
}

impl Rebuilder for Restoration {
    fn reserve(&mut self, instance: &Instance) -> Result<(), Failure> {
        self.account.teller.tell(&SessionEvent::Introduced);
        let refuse = |text: String| Err(Failure::Local(text));
        let there = instance.terms.criu;
        let answer = match swrk::version(&self.criu) {
            Ok(here) if here < there => {
                let ((a, b), (c, d)) = (here, there);
                refuse(format!(
                    "criu {a}.{b} is older than the source's {c}.{d}: make criu installs a newer one"
                ))
            }
            Ok(_) => Ok(()),
            Err(error) => refuse(error.to_string()),
        };
        self.account.refused = answer.is_err();
        answer
    }

    fn prepare(&mut self, instance: &Instance) -> Result<(), Failure> {
        const BAD: Failure = Failure::Protocol("images that cannot be");
        let is_name = |name: &[u8]| {
            name.ends_with(b".img")
                && name.len() <= LONGEST_NAME
                && !name.contains(&b'/')
                && !name.contains(&0)
        };
        if instance.files.len() > MOST_FILES || instance.files.iter().any(|file| !is_name(&file.name)) {
            return Err(BAD);
        }
        for image in &instance.files {
            let name = std::str::from_utf8(&image.name).map_err(|_| BAD)?;
            let path = self.directory.path().join(name);
            let file = File::create_new(&path).and_then(|file| file.set_len(image.len).map(|()| file));
            self.files.push(file.map_err(|error| writing(&error))?);
        }
        self.instance = instance.clone();
        self.account.source_pid = self.root();
        self.account.prepared = true;
        Ok(())
    }

    fn write(&mut self, index: usize, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let file = self.files.get(index).ok_or(Failure::Protocol("an image that nobody named"))?;
        file.write_all_at(bytes, offset).map_err(|error| writing(&error))
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.files.clear();
        self.start().map_err(|error| Failure::Local(format!("{error:#}")))
    }

    fn progress(&mut self, _line: Line) -> Option<Result<(), Failure>> {
        if self.stage != Stage::Building {
            // What it says from there on is for `resumed`.
            return None;
        }
        let built = self.hear_criu().or_else(|| self.waits_for_a_lock().map(Err))?;
        // There is nothing to look for until the tree is to run.
        let _ = self.timer.as_ref().map(TimerFd::unset);
        Some(built.map_err(|error| {
            self.stage = Stage::Over;
            Failure::Local(error.to_string())
        }))
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        let worker = self.worker.as_ref().map(Swrk::readiness);
        let guardian = self.guardian.as_ref().and_then(Guardian::readiness);
        let timer = self.timer.as_ref().map(AsFd::as_fd);
        [self.account.teller.readiness(), self.line.as_fd()]
            .into_iter()
            .chain(worker)
            .chain(guardian)
            .chain(timer)
            .collect()
    }

    fn notification(&mut self) -> Option<Notification> {
        if self.account.teller.has_hung_up() {
            return Some(Notification::Abandoned(Failure::Local("the receiver has ended".into())));
        }
        // If they cannot be sealed, the source sees them close and comes again.
        if let Ok(Some(HandedOver::Channels(sockets, sealing))) = handover::receive(&self.line)
            && let Ok(connections) = connections(sockets, sealing)
        {
            return Some(Notification::Reconnected(Box::new(receiver::session::over(connections))));
        }
        let was_empty = self.is_empty;
        self.hear_guardian();
        if self.is_empty && !was_empty && matches!(self.stage, Stage::Stands | Stage::Over) {
            return Some(Notification::Ended);
        }
        // While CRIU works, what it has to say about that is of more use.
        self.resumed()
    }

    fn resume(&mut self) -> Result<Resumption, Failure> {
        let failed = |text: String| Failure::Local(format!("letting the tree go: {text}"));
        let worker = self.worker.as_ref().filter(|_| self.stage == Stage::Stands);
        let (Some(worker), Some(guardian)) = (worker, &self.guardian) else {
            return Err(failed("it does not stand".to_owned()));
        };
        let pid = guardian.pid().and_then(|guardian| members::child_of(guardian, self.root()));
        let pid = pid.map_err(|error| failed(error.to_string()))?;
        let tick = Expiration::Interval(FINISH_TICK.into());
        let timer = self.timer.as_ref().map(|timer| timer.set(tick, TimerSetTimeFlags::empty()));
        timer.transpose().map_err(|errno| failed(errno.to_string()))?;
        self.committed = true;
        self.account.teller.tell(&SessionEvent::Committed);
        worker.go_on(true).map_err(|error| failed(error.to_string()))?;
        (self.stage, self.root_here) = (Stage::Finishing, pid);
        Ok(Resumption::Begun)
    }

    fn process_here(&mut self, pid: u32) -> Option<u32> {
        // All of them stand before the first one hands over memory.
        if !self.here.contains_key(&pid) {
            self.here = members::there_now(self.guardian.as_ref()?.pid().ok()?);
        }
        self.here.get(&pid).copied()
    }

    fn hold(&mut self, uffd: &Uffd) -> Result<(), Failure> {
        let guardian =
            self.guardian.as_ref().ok_or_else(|| Failure::Local("there is no guardian".to_owned()))?;
        guardian.hold(uffd.as_fd()).map_err(|error| Failure::Local(error.to_string()))
    }

    fn finished(&mut self) {
        if let Some(guardian) = &mut self.guardian {
            // One that cannot be talked to has ended, and the tree with it.
            let _ = guardian.complete();
        }
    }

    fn discard(&mut self) {
        self.guardian = None;
        self.worker = None;
        self.quiet = None;
        // There is no end to wait for.
        (self.stage, self.is_empty) = (Stage::Over, true);
        self.directory.delete();
    }

    fn measured(&mut self, measurement: Measurement) {
        self.account.measured(measurement);
    }
}

fn writing(error: &std::io::Error) -> Failure {
    Failure::Local(format!("writing images: {error}"))
}
