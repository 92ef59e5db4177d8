//! `send`: a running tree of processes moves to a machine where `receive` waits for it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use engine::Config;
use page_server::{Outcome, Serving, serve};
use protocol::Manifest;

use crate::config::RESTORE_DEADLINE;
use crate::consent::Consent;
use crate::criu::Criu;
use crate::frozen::{Frozen, Order};
use crate::instance::{Instance, Task, Terms};
use crate::iterations::{Course, Limits, Local, Remote, Source};
use crate::route::Route;
use crate::source::{Origin, Tree};
use crate::swrk;

/// `criu-bridge send`
#[derive(Args, Debug)]
pub(crate) struct Send {
    /// Process id of the tree's root
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pid: u32,
    /// Where criu-bridge receive waits for it
    #[arg(value_name = "HOST:PORT")]
    receiver: String,
    /// When memory travels: postcopy (after the tree goes on there), stop (while it stands still) or precopy (while it runs
    /// here, where the kernel can tell what it writes; else postcopy)
    #[arg(long, value_name = "MODE", default_value = "postcopy")]
    mode: Mode,
    /// Let the tree go on here too, when it has moved: two copies
    #[arg(long)]
    leave_running: bool,
    /// The key that the receiver has; without one a tree moves within one machine only
    #[arg(long, value_name = "FILE", env = "POSTHASTE_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Where images lie for a moment
    #[arg(long, short = 'D', value_name = "DIR")]
    images_dir: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

/// When memory travels.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// After the tree goes on there.
    Postcopy,
    /// While it stands still.
    Stop,
    /// While it runs here, as far as that can be followed.
    Precopy,
}

impl Send {
    /// Moves the tree.
    ///
    /// # Errors
    /// Why not, in one line that says where the tree is.
    pub(crate) fn run(&self, criu: Criu) -> anyhow::Result<u8> {
        if self.mode != Mode::Precopy {
            return self.stop_and_move(criu);
        }
        let moved =
            Source::new(Ahead { send: self, criu: Some(criu) }, Waiting, Limits::default()).migrate()?;
        if let Err(error) = moved.farewell {
            crate::complain(&error);
        }
        Ok(0)
    }

    fn stop_and_move(&self, criu: Criu) -> anyhow::Result<u8> {
        // Two descriptors for each process, and one for each image.
        receiver::session::raise_descriptor_limit();
        let started = engine::Instant(sys::clock::monotonic_ns());
        let key_file = self.key_file.as_deref().filter(|path| !path.as_os_str().is_empty());
        let prepared = self.terms(&criu).and_then(|terms| {
            let route = Route::to(&self.receiver, key_file)?;
            Ok((terms, route.open_watched()?, route))
        });
        let (terms, (channels, link), route) =
            prepared.map_err(|error| anyhow!("{error:#}; the tree goes on here"))?;
        let running = Arc::new(self.running(&terms));
        let directory = self.images_dir.clone().unwrap_or_else(std::env::temp_dir);
        let order = Order { pid: self.pid, directory, terms, leave_running: self.leave_running };
        let mut tree = Tree::new(Frozen::new(criu, order, route).with_link(link));
        let config = Config {
            setup_deadline: RESTORE_DEADLINE,
            switchover_deadline: RESTORE_DEADLINE,
            ..Config::default()
        };
        match serve(&mut tree, Serving { channels, running, config, started }) {
            Outcome::Released(failure) => bail!("{failure}; the tree goes on here"),
            Outcome::Moved { pid_there } => {
                if self.leave_running {
                    tree.origin.release();
                    crate::tell(format_args!(
                        "copied; the tree's root is process {pid_there} there, and goes on here"
                    ));
                } else {
                    tree.origin.end();
                    crate::tell(format_args!("moved; the tree's root is process {pid_there} there"));
                }
                Ok(0)
            }
            Outcome::Lost(failure) if self.leave_running => {
                tree.origin.release();
                bail!("{failure}; the copy is lost, and the tree goes on here")
            }
            Outcome::Lost(failure) => {
                tree.origin.end();
                bail!("{failure}; the tree was handed over and does not run here any more")
            }
        }
    }

    fn terms(&self, criu: &Criu) -> anyhow::Result<Terms> {
        if !PathBuf::from(format!("/proc/{}", self.pid)).exists() {
            bail!("there is no process {}", self.pid);
        }
        let criu = swrk::version(criu).context("asking criu for its version")?;
        Ok(Terms { criu, lazy: self.mode != Mode::Stop, consent: self.consent.clone() })
    }

    /// What is known of the tree while it runs.
    fn running(&self, terms: &Terms) -> Manifest {
        let root = Task { pid: self.pid, lazy: Vec::new() };
        let instance = Instance { tasks: vec![root], terms: terms.clone(), ..Instance::default() };
        // One process always fits a message.
        instance.manifest().unwrap_or_else(Manifest::empty)
    }
}

/// A tree that is to be copied ahead.
struct Ahead<'send> {
    send: &'send Send,
    /// Until the stop.
    criu: Option<Criu>,
}

impl Local for Ahead<'_> {
    type Error = anyhow::Error;

    fn tracking(&mut self) -> Result<(), String> {
        let asked = self.criu.as_ref().map(|criu| criu.ask(&["check", "--feature", TRACKING]));
        Err(match asked {
            Some(Ok(answer)) if answer.yes => "a tree is not copied ahead in this version",
            _ => "this kernel cannot tell what a running tree writes (CONFIG_MEM_SOFT_DIRTY)",
        }
        .to_owned())
    }

    fn copy(&mut self) -> anyhow::Result<u64> {
        bail!("nothing of a tree is copied ahead")
    }

    fn dump_copy_restore(&mut self, course: &Course) -> anyhow::Result<()> {
        if let Course::PostCopy(why) = course {
            crate::tell(format_args!(
                "{why}: its memory follows when it runs there, as with --mode postcopy"
            ));
        }
        let criu = self.criu.take().context("it has been stopped already")?;
        self.send.stop_and_move(criu).map(|_| ())
    }
}

/// The receiver, which takes everything at the stop.
struct Waiting;

impl Remote for Waiting {
    type Error = anyhow::Error;

    fn start_iter(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn stop_iter(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// What CRIU calls soft-dirty bits.
const TRACKING: &str = "mem_dirty_track";
