//! A tree that comes in: its images into a directory of their own, CRIU on them in namespaces of its own, and everything
//! told to the daemon.
//!
//! CRIU waits when everything stands and nothing runs yet, asked by RPC: that is when the destination is ready, and it
//! goes on when the source has given its word. Connections work from then on, which is why it is not earlier; but
//! credentials, seccomp filters and the like come last, and may be refused. So the tree is said to run when CRIU says it, and
//! one that got to no instruction of its own goes back. The guardian is the first process of the tree's namespaces: it holds
//! duplicates of the userfaultfds, and if this process dies before all memory is here it kills the tree before it lets go
//! of them.

mod late_locks;
mod rebuilding;
mod stage;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use engine::Failure;
use fault_handler::Notification;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use receiver::guardian::{ExitStatus, Guardian, GuardianEvent};
use receiver::handover;
use receiver::session::account::Account;
use receiver::session::teller::Teller;

use self::late_locks::LateLocks;
use self::stage::{Pulse, Stage};
use crate::criu::Criu;
use crate::directory::Directory;
use crate::images;
use crate::inherit::{Claimed, Heir};
use crate::instance::Instance;
use crate::locks;
use crate::members;
use crate::quiet::Quiet;
use crate::rpc::{Kind, Options};
use crate::swrk::{Swrk, SwrkError, Word};

/// Where CRIU waits.
const STANDS: &str = "post-restore";
/// Nothing of the tree has run before.
const LETS_GO: &str = "pre-resume";
/// CRIU's own process gets an id near the end, where trees rarely are.
const LAST_ID: &str = "/proc/sys/kernel/ns_last_pid";
const IDS_LEFT: u32 = 300;

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
    /// What it waits for once it could go on.
    late_locks: LateLocks,
    instance: Instance,
    files: Vec<File>,
    worker: Option<Swrk>,
    guardian: Option<Guardian>,
    stage: Stage,
    /// The source has let go of it.
    pub(crate) committed: bool,
    /// When to look whether CRIU can still finish.
    pulse: Option<Pulse>,
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
            late_locks: LateLocks::default(),
            instance: Instance::default(),
            files: Vec::new(),
            worker: None,
            guardian: None,
            stage: Stage::Building,
            committed: false,
            pulse: None,
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
        // Whoever took the rules away is waited for.
        self.quiet = None;
        if !self.is_empty {
            self.late_locks.settle();
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
                        if let Some(guardian) =
                            self.guardian.as_ref().and_then(|guardian| guardian.pid().ok())
                        {
                            self.late_locks.halt(guardian, &self.instance);
                        }
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
        self.pulse.iter().for_each(Pulse::end);
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

    /// CRIU waits for ever for a process that has ended in the middle of this, and nobody is told of that but it. Whatever else
    /// it waits for has its time.
    fn hangs(&mut self) -> Option<SwrkError> {
        let pulse = self.pulse.as_mut().filter(|pulse| pulse.is_due())?;
        let is_too_late = pulse.is_too_late(self.stage);
        let is_finishing = self.stage == Stage::Finishing;
        let has_ended = is_finishing && members::is_zombie(self.root_here).unwrap_or(true);
        let worker = self.worker.as_ref().filter(|_| has_ended || is_too_late)?;
        // Nothing of the tree has run only if it is still finishing.
        let deadline = self.stage.deadline().filter(|_| !is_finishing);
        Some(deadline.map_or_else(|| worker.complaint(), SwrkError::Deadline))
    }

    /// CRIU waits for as long as it takes until a lock on a file can be had. Where the original goes on, or both machines share a
    /// file system, it is the original that has it.
    fn waits_for_a_lock(&mut self) -> Option<SwrkError> {
        self.pulse.as_ref().filter(|pulse| self.stage == Stage::Building && pulse.is_due())?;
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
        self.instance.terms.consent.shell_job || self.heirs.iter().any(Heir::is_terminal)
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
        let (guardian, socket) = Guardian::start_over(terminals, &kept, &begin)?;
        self.guardian = Some(guardian);
        let terms = &self.instance.terms;
        if terms.consent.tcp_established {
            self.quiet = Quiet::between(&images::connections(self.directory.path())?)?;
        }
        self.late_locks = LateLocks::of(self.directory.path(), &self.instance)?;
        let options = Options {
            rst_sibling: Some(true),
            notify_scripts: Some(true),
            lazy_pages: terms.lazy.then_some(true),
            inherit_fd: self.heirs.iter().map(Heir::option).collect(),
            ..terms.consent.options()
        };
        let worker = self.worker.insert(Swrk::over(socket));
        worker.request(Kind::Restore, self.directory.options(options, "restore.log"))?;
        self.pulse = Some(Pulse::new()?);
        Ok(())
    }
}
