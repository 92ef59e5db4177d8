//! `promote`: the newest complete epoch of a shadow becomes a running tree.
//!
//! It is a migration like any other, from the store to a `receive` of its own on loopback: the tree runs as soon as it
//! stands, and its memory follows out of the store.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use engine::Config;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use page_server::{Outcome, Serving, serve};
use protocol::Manifest;
use receiver::events::Status;
use receiver::guardian::wait_for;
use serde_json::Value;

use super::promotion::{NONE_YET, Promotion};
use super::store::{DEFAULT_STORE, Shadow, Store, Stored};
use super::stored::Pages;
use super::{boot_id, started};
use crate::config::{CLAIM_PATIENCE, LISTEN_DEADLINE, RESTORE_DEADLINE, SHADOW_LOOK_MS};
use crate::criu::Criu;
use crate::directory::Directory;
use crate::holder::{Duty, Holder};
use crate::instance::{Instance, Task};
use crate::route::Route;
use crate::source::{Origin as _, Tree};

/// What the shell would say of a process that a signal has ended.
const SIGNALLED: u8 = 128;

/// `criu-bridge promote`
#[derive(Args, Debug)]
pub(crate) struct Promote {
    /// Which shadow
    shadow: String,
    /// Where shadows are kept
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STORE)]
    store: PathBuf,
    /// Although the original answers, or it runs here already: two copies
    #[arg(long)]
    force: bool,
    /// Do not wait for the end of the tree's root; print its process id
    #[arg(long, short = 'd')]
    restore_detached: bool,
    /// Where images lie for a moment
    #[arg(long, short = 'D', value_name = "DIR")]
    images_dir: Option<PathBuf>,
}

impl Promote {
    /// Promotes, and unless detached waits for the end of the tree's root.
    ///
    /// # Errors
    /// Why not, in one line; nothing of the tree runs here then.
    pub(crate) fn run(&self, criu: &Criu) -> anyhow::Result<ExitCode> {
        receiver::session::raise_descriptor_limit();
        let name = &self.shadow;
        let shadow = Store::at(&self.store).find(name);
        let at = || format!("shadow '{name}' in '{}'", self.store.display());
        let shadow = shadow.with_context(|| format!("there is no {}", at()))?;
        let (epoch, before) = self.claim(&shadow).with_context(at)?;
        let begun = self.begin(criu, &shadow, &epoch);
        let (mut taker, pid) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                shadow.promote(before.as_ref()).with_context(at)?;
                return Err(error).with_context(at);
            }
        };
        // One that has ended already was never started again.
        let root = promotion(epoch.number, pid, started(pid).unwrap_or(0));
        if let Err(error) = root.and_then(|root| shadow.promote(Some(&root))) {
            // Nobody would know of it: it must not run.
            let _ = sys::pidfd::open(pid).and_then(|root| sys::pidfd::kill(root.as_fd()));
            return Err(error).with_context(|| format!("noting that it runs; it was ended: {}", at()));
        }
        taker.is_needed = true;
        let age = epoch.age().map_or_else(String::new, |age| format!(", {} ms old", age.as_millis()));
        crate::tell(format_args!("epoch {} of shadow {name}{age}, runs as process {pid}", epoch.number));
        if self.restore_detached {
            crate::say(&pid.to_string());
            return Ok(ExitCode::SUCCESS);
        }
        taker.follow()
    }

    /// Makes sure that nothing else runs of it, and that nobody brings more of it.
    fn claim(&self, shadow: &Shadow) -> anyhow::Result<(Stored, Option<Promotion>)> {
        const ANSWERS: &str = "its original answers: end that, or --force a second copy";
        if !self.force && shadow.answers()? {
            bail!(ANSWERS);
        }
        let lock = shadow.lock(CLAIM_PATIENCE)?;
        if lock.is_none() && !self.force {
            bail!(ANSWERS);
        }
        let before = shadow.promotion()?;
        if let Some(promotion) = before.as_ref().filter(|promotion| !self.force && promotion.is_alive()) {
            bail!("it runs here already, as process {}; --force starts a second copy", promotion.pid);
        }
        if shadow.epochs()?.is_empty() {
            bail!("it has no complete epoch");
        }
        if lock.is_some() {
            // What was torn may have filled the disk.
            shadow.tidy().and_then(|()| shadow.trim())?;
        }
        let own = std::process::id();
        shadow.promote(Some(&promotion(NONE_YET, own, started(own)?)?))?;
        // One that was being written is complete, or never will be.
        let epochs = shadow.epochs()?;
        let newest = epochs.into_iter().next().context("it has no complete epoch any more")?;
        Ok((newest, before.filter(Promotion::is_alive)))
    }

    /// Has the tree run, with all its memory; returns who sees to it, and the root's process id.
    fn begin(&self, criu: &Criu, shadow: &Shadow, epoch: &Stored) -> anyhow::Result<(Taker, u32)> {
        let mut pages = Pages::open(shadow, epoch).with_context(|| format!("epoch {}", epoch.number))?;
        let directory = self.images_dir.clone().unwrap_or_else(std::env::temp_dir);
        let (mut taker, holder) = Taker::start(criu, &directory)?;
        let port = taker.port()?;
        let taken = promotion(epoch.number, taker.child.id(), started(taker.child.id())?)?;
        pages = pages.claimed(shadow.clone(), taken, holder);
        let instance = pages.stop().map_err(|failure| anyhow!("{failure}"))?;
        let root = instance.tasks.first().map(|task| Task { pid: task.pid, lazy: Vec::new() });
        let tasks = root.into_iter().collect();
        let running = Instance { tasks, terms: instance.terms, ..Instance::default() };
        let running = Arc::new(running.manifest().unwrap_or_else(Manifest::empty));
        let channels = Route::to(&format!("127.0.0.1:{port}"), None)?.open()?;
        let config = Config {
            setup_deadline: RESTORE_DEADLINE,
            switchover_deadline: RESTORE_DEADLINE,
            silence_deadline: RESTORE_DEADLINE,
            ..Config::default()
        };
        let began = engine::Instant(sys::clock::monotonic_ns());
        let mut tree = Tree::new(pages);
        match serve(&mut tree, Serving { channels, running, config, started: began }) {
            Outcome::Moved { pid_there } => Ok((taker, u32::try_from(pid_there)?)),
            Outcome::Released(failure) | Outcome::Lost(failure) => bail!("{failure}"),
        }
    }
}

fn promotion(epoch: u64, pid: u32, started: u64) -> std::io::Result<Promotion> {
    Ok(Promotion { epoch, pid, started, boot: boot_id()? })
}

/// The `receive` that the tree runs under; it ends with the tree.
#[derive(Debug)]
struct Taker {
    child: Child,
    /// What it tells.
    events: File,
    unread: Vec<u8>,
    directory: Directory,
    /// A tree runs under it.
    is_needed: bool,
}

impl Taker {
    /// Starts it, and who ends it if this process dies.
    fn start(criu: &Criu, parent: &std::path::Path) -> anyhow::Result<(Self, Holder)> {
        let directory = Directory::private(parent)
            .with_context(|| format!("making a directory in '{}'", parent.display()))?;
        let path = directory.path().join("events");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).context("making a pipe")?;
        // Both directions: it never says that there is nobody any more.
        let events = File::options().read(true).write(true).open(&path).context("opening a pipe")?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("criu-bridge")
            .arg("--criu")
            .arg(criu.path())
            .args(["receive", "0", "--once", "--events"])
            .arg(&path);
        // Nobody comes back with what is missing: then it is better to begin again.
        command.args(["--on-loss", "kill", "--loss-deadline", "1", "-D"]).arg(parent);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // The terminal's Ctrl-C is not for it.
        let child = command.process_group(0).spawn().context("starting who takes it in")?;
        let taker = Self { child, events, unread: Vec::new(), directory, is_needed: false };
        let process = sys::pidfd::open(taker.child.id()).map_err(std::io::Error::from)?;
        let duty = Duty::Signal { members: &[process.as_fd()], here: Signal::SIGTERM, gone: Signal::SIGTERM };
        let holder = Holder::start(duty).context("starting who ends it")?;
        Ok((taker, holder))
    }

    /// The next event; `None` when it has ended, or did not tell one in time.
    fn event(&mut self, until: Option<Instant>) -> anyhow::Result<Option<Value>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if wait_for(self.events.as_fd(), Duration::from_millis(SHADOW_LOOK_MS.into()))? {
                let mut part = [0; 4096];
                let got = self.events.read(&mut part)?;
                self.unread.extend_from_slice(part.get(..got).unwrap_or_default());
            } else if self.child.try_wait()?.is_some() || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
        }
    }

    fn port(&mut self) -> anyhow::Result<u64> {
        let event = self.event(Some(Instant::now() + LISTEN_DEADLINE))?;
        event.and_then(|event| event.get("port")?.as_u64()).context("who is to take it in does not listen")
    }

    /// Waits for the end of the tree's root, and returns its status as a shell would.
    fn follow(&mut self) -> anyhow::Result<ExitCode> {
        while let Some(event) = self.event(None)? {
            if event.get("event").and_then(Value::as_str) != Some("exited") {
                continue;
            }
            let _ = self.child.wait();
            return Ok(ExitCode::from(match serde_json::from_value(event)? {
                Status::Exited { exit_code } => exit_code,
                Status::Killed { signal } => SIGNALLED.saturating_add(signal),
            }));
        }
        bail!("who has taken it in has ended before it")
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        if !self.is_needed {
            // What it has begun to build ends with it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.directory.delete();
    }
}
