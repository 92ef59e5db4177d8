//! A tree that CRIU has dumped and holds still, whose memory is where it always was.
//!
//! CRIU waits at the end of its dump, asked by RPC, for leave to go on: until then every thread is stopped, and its
//! lazy pages can be read in place, in any order. CRIU's own page server never begins: it is given an address that is
//! none. If CRIU dies, or is hung up on, it lets the tree go. That is right until the destination may run it; from
//! there on a stop signal waits for each process, so that none of them gets to its next instruction. Somebody could take that
//! back by SIGCONT: so if CRIU dies then, this process [holds](crate::hold) the tree in its place, and if this process dies, a
//! [holder](crate::holder) ends the tree.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use engine::Failure;
use memory::PageRange;
use nix::poll::PollTimeout;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{Shutdown, shutdown};
use page_server::Channels;

use crate::config::{DOUBT_DEADLINE, DUMP_DEADLINE, END_MS, RELEASE_DEADLINE};
use crate::consent::Consent;
use crate::criu::Criu;
use crate::directory::Directory;
use crate::doubt::Doubt;
use crate::hold::Hold;
use crate::holder::{Duty, Holder};
use crate::inside::{self, Standpoint};
use crate::instance::{ImageFile, Instance, Terms};
use crate::local_pages;
use crate::members::{self, Member};
use crate::route::Route;
use crate::rpc::{Kind, Options};
use crate::source::{Origin, front};
use crate::swrk::{Swrk, SwrkError, Word};
use crate::unlock;

/// Where CRIU waits.
const DUMPED: &str = "post-dump";
/// No address: a page server that is to listen there fails at once.
const NOWHERE: &str = "address nobody-listens-here\n";

/// What is to be moved, and how.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The tree's root.
    pub(crate) pid: u32,
    /// Where images lie for a moment.
    pub(crate) directory: PathBuf,
    /// For CRIU, here and there.
    pub(crate) terms: Terms,
    /// It goes on here when its memory is there.
    pub(crate) leave_running: bool,
}

/// The tree.
#[derive(Debug)]
pub(crate) struct Frozen {
    criu: Criu,
    order: Order,
    route: Route,
    /// The control channel, to hang up on.
    link: Option<OwnedFd>,
    worker: Option<Swrk>,
    /// Before this the tree ran.
    stopping: Option<Instant>,
    /// As in the instance.
    members: Vec<Option<Member>>,
    files: Vec<File>,
    /// Stop signals wait for all of them, and somebody sees to them if this process dies.
    holder: Option<Holder>,
    /// From before the word to run until the answer.
    doubt: Option<Doubt>,
    /// The tree must not run here.
    is_away: bool,
    /// What was CRIU's, when it has ended.
    hold: Option<Hold>,
}

impl Frozen {
    pub(crate) fn new(criu: Criu, order: Order, route: Route) -> Self {
        Self {
            criu,
            order,
            route,
            link: None,
            worker: None,
            stopping: None,
            members: Vec::new(),
            files: Vec::new(),
            holder: None,
            doubt: None,
            is_away: false,
            hold: None,
        }
    }

    /// The control channel that stands.
    pub(crate) fn with_link(self, link: OwnedFd) -> Self {
        Self { link: Some(link), ..self }
    }

    /// When CRIU began to stop the tree.
    pub(crate) fn stopping(&self) -> Option<Instant> {
        self.stopping
    }

    /// Ends the tree: it lives elsewhere.
    pub(crate) fn end(mut self) {
        self.signal(Signal::SIGKILL);
        // Not asked to go on: it would end open connections. It takes what it holds of them along without a word.
        if let Some(worker) = &mut self.worker {
            worker.kill();
        }
        if let Some(hold) = self.hold.take() {
            hold.bury();
        }
        for member in self.members.iter().flatten() {
            member.has_ended(PollTimeout::from(END_MS));
        }
        if let Some(holder) = self.holder.take() {
            holder.dismiss();
        }
    }

    fn dump(&mut self, directory: &Directory) -> Result<Instance, Failure> {
        if let Err(error) = self.freeze(directory) {
            match error {
                // One that refuses puts everything right itself.
                SwrkError::Refused { .. } => self.worker = None,
                _ => self.unlock(),
            }
            return Err(local(&error));
        }
        self.collect(directory).map_err(|error| Failure::Local(format!("{error:#}")))
    }

    /// Has CRIU dump until it waits with the tree.
    fn freeze(&mut self, directory: &Directory) -> Result<(), SwrkError> {
        let worker = self.ask(directory)?;
        let worker = self.worker.insert(worker);
        let until = Instant::now() + DUMP_DEADLINE;
        loop {
            match worker.hear(until.saturating_duration_since(Instant::now()))? {
                Some(Word::Waits(script)) if script == DUMPED => return Ok(worker.identify()?),
                Some(Word::Waits(_)) => {
                    // It waits once before it touches anything.
                    self.stopping.get_or_insert_with(Instant::now);
                    worker.go_on(true)?;
                }
                Some(Word::Done(_)) => return Err(SwrkError::Ended),
                None => return Err(SwrkError::Deadline(DUMP_DEADLINE)),
            }
        }
    }

    fn ask(&self, directory: &Directory) -> Result<Swrk, SwrkError> {
        let Terms { lazy, ref consent, .. } = self.order.terms;
        let pid = self.order.pid;
        let Standpoint { wrapper, root } = inside::standpoint(pid)
            .map_err(|error| SwrkError::Refused { what: "dump this process", why: error.to_string() })?;
        let options = Options {
            pid: Some(root.cast_signed()),
            lazy_pages: lazy.then_some(true),
            notify_scripts: Some(true),
            ..Consent::options(consent)
        };
        let options = directory.options_anywhere(options, NOWHERE, "dump.log")?;
        // It inherits that: whoever ends all that runs here, as a machine that shuts down does, would have it let go of a tree
        // that runs elsewhere.
        let _ = endings().thread_block();
        let asked = Swrk::ask(&self.criu, &wrapper, Kind::Dump, options);
        let _ = endings().thread_unblock();
        asked
    }

    /// Opens everything that the dump has left.
    fn collect(&mut self, directory: &Directory) -> anyhow::Result<Instance> {
        let mut instance = local_pages::instance(directory.path())?;
        if !self.order.terms.lazy {
            instance.tasks.iter_mut().for_each(|task| task.lazy.clear());
        }
        self.hold(&instance)?;
        for entry in std::fs::read_dir(directory.path())? {
            let entry = entry?;
            let name = entry.file_name().into_encoded_bytes();
            if name.ends_with(b".img") {
                let file = File::open(entry.path())?;
                instance.files.push(ImageFile { name, len: file.metadata()?.len() });
                self.files.push(file);
            }
        }
        instance.terms = self.order.terms.clone();
        if !self.order.leave_running {
            instance.ends_on = sys::identity::boot_id()?;
        }
        Ok(instance)
    }

    /// Holds every process, so that none of them can run here when the tree runs elsewhere.
    fn hold(&mut self, instance: &Instance) -> anyhow::Result<()> {
        let mut pids = members::of_tree(self.order.pid).context("looking for the tree's processes")?;
        for task in &instance.tasks {
            let pid = pids.remove(&task.pid);
            let pid = pid
                .with_context(|| format!("criu has dumped process {}, which is not in the tree", task.pid))?;
            let holding = || format!("holding process {pid}");
            // One that has ended and is not waited for has no memory, and never runs again.
            let has_ended = task.lazy.is_empty() && members::is_zombie(pid).with_context(holding)?;
            self.members.push(if has_ended { None } else { Some(Member::hold(pid).with_context(holding)?) });
        }
        match pids.values().next() {
            Some(pid) => bail!("criu has not dumped process {pid}, which is in the tree"),
            None => Ok(()),
        }
    }

    /// Readable when CRIU has ended, as long as it is CRIU that holds the tree.
    fn held(&self) -> Option<BorrowedFd<'_>> {
        self.worker.as_ref().filter(|_| self.is_away && self.hold.is_none())?.end()
    }

    /// Ends CRIU, if it has not ended, and undoes in its place what it has cut off of the tree's connections.
    fn unlock(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            worker.kill();
        }
        if self.order.terms.consent.tcp_established {
            if self.members.is_empty() {
                let pids = members::there_now(self.order.pid);
                self.members.extend(pids.values().map(|pid| Member::hold(*pid).ok()));
            }
            unlock::unlock(self.members.iter().flatten(), self.order.pid);
        }
    }

    fn signal(&self, signal: Signal) {
        self.members.iter().flatten().for_each(|member| member.signal(signal));
    }
}

impl Origin for Frozen {
    fn stop(&mut self) -> Result<Instance, Failure> {
        let parent = &self.order.directory;
        let making = |error| Failure::Local(format!("making a directory in '{}': {error}", parent.display()));
        let mut directory = Directory::private(parent).map_err(making)?;
        let dumped = self.dump(&directory);
        // What is open stays readable.
        directory.delete();
        dumped
    }

    fn obstacle(&mut self) -> Option<Failure> {
        // Who ends this process from here on would not know where the tree is.
        let _ = endings().thread_block();
        let members: Vec<_> = self.members.iter().flatten().map(Member::as_fd).collect();
        let gone = if self.order.leave_running { Signal::SIGCONT } else { Signal::SIGKILL };
        match Holder::start(Duty::Signal { members: &members, here: Signal::SIGCONT, gone }) {
            Ok(holder) => self.holder = Some(holder),
            Err(error) => return Some(Failure::Local(format!("starting who holds the tree: {error}"))),
        }
        match Doubt::begin(DOUBT_DEADLINE) {
            Ok(doubt) => self.doubt = Some(doubt),
            Err(errno) => return Some(Failure::Local(format!("waiting for signals: {errno}"))),
        }
        self.signal(Signal::SIGSTOP);
        // Behind the signals: from here on it does not matter whether it lives.
        let is_alive = self.worker.as_ref().is_some_and(Swrk::is_alive);
        (!is_alive).then(|| Failure::Local("criu has ended, and with it the tree's standstill".to_owned()))
    }

    fn commit(&mut self) {
        if let Some(holder) = &self.holder {
            holder.gone();
        }
        self.is_away = true;
    }

    fn confirmed(&mut self) {
        self.doubt = None;
    }

    fn watch(&mut self) -> bool {
        let name = self.route.name();
        let is_decided = self.doubt.as_mut().is_some_and(|doubt| doubt.look(name));
        if let Some(link) = self.link.as_ref().filter(|_| is_decided) {
            // What comes of it is a lost link, and the user's word is the answer to whoever would connect again.
            let _ = shutdown(link.as_raw_fd(), Shutdown::Both);
        }
        let has_ended = self.held().is_some() && !self.worker.as_ref().is_some_and(Swrk::is_alive);
        if has_ended {
            self.hold = Some(Hold::take(self.members.iter().flatten()));
        }
        is_decided || has_ended
    }

    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        let doubt = self.doubt.as_ref().map(Doubt::readiness);
        self.held().into_iter().chain(doubt.into_iter().flatten()).collect()
    }

    fn read_memory<'a>(&'a mut self, index: usize, at: PageRange, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let pages = self.members.get(index)?.as_ref()?.read(at, buffer)?;
        front(buffer, pages)
    }

    fn read_file(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> Option<()> {
        let file = self.files.get(index)?;
        let mut got = 0;
        while got < buffer.len() {
            match file.read_at(buffer.get_mut(got..)?, offset + got as u64).ok()? {
                0 => break,
                more => got += more,
            }
        }
        buffer.get_mut(got..)?.fill(0);
        Some(())
    }

    fn reconnect(&mut self, attempt: u32) -> Result<Channels, Failure> {
        let by_word = |name: &str| Failure::Local(format!("the tree does not run at {name}, by your word"));
        if self.doubt.as_ref().is_some_and(Doubt::is_ended) {
            return Err(by_word(self.route.name()));
        }
        let answer = self.route.open_again(attempt);
        match answer {
            Ok((channels, link)) => {
                self.link = Some(link);
                self.doubt.iter_mut().for_each(Doubt::is_put_off);
                Ok(channels)
            }
            Err(failure) => {
                let name = self.route.name();
                let is_decided = self.doubt.as_mut().is_some_and(|doubt| doubt.is_ended_by_user(name));
                Err(if is_decided { by_word(name) } else { failure })
            }
        }
    }

    /// Also where it has moved and is to go on here all the same.
    fn release(&mut self) {
        let holder = self.holder.take();
        self.is_away = false;
        if self.worker.as_ref().is_some_and(|worker| !worker.is_alive()) {
            self.unlock();
        }
        if let Some(holder) = &holder {
            holder.here();
            self.signal(Signal::SIGCONT);
        }
        if let Some(hold) = self.hold.take() {
            hold.release();
        }
        // It refuses in the end, as it was told to; only then the tree runs.
        if let Some(worker) = self.worker.take()
            && !matches!(
                worker.go_on(false).and_then(|()| worker.finish(RELEASE_DEADLINE)),
                Err(SwrkError::Refused { .. })
            )
        {
            self.worker = Some(worker);
            self.unlock();
        }
        if let Some(holder) = holder {
            holder.dismiss();
        }
        let _ = endings().thread_unblock();
    }
}

/// Signals by which people end a program.
fn endings() -> SigSet {
    [Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGQUIT].into_iter().collect()
}

fn local(error: &SwrkError) -> Failure {
    Failure::Local(error.to_string())
}
