//! `dump` and `restore`: a tree into CRIU's images and out of them, by CRIU itself.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use nix::poll::{PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::config::{OFFLINE_DEADLINE, RESTORE_PATIENCE, RESTORE_PAUSE_MS};
use crate::consent::Consent;
use crate::criu::Criu;
use crate::directory::Directory;
use crate::inherit::{Heir, Inherit};
use crate::rpc::{Kind, Options, Response};
use crate::swrk::{Swrk, SwrkError};

/// What the shell would say of a process that a signal has ended.
const SIGNALLED: u8 = 128;

/// `criu-bridge dump`
#[derive(Args, Debug)]
pub(crate) struct Dump {
    /// Process id of the tree's root
    #[arg(value_parser = clap::value_parser!(i32).range(1..))]
    pid: i32,
    /// Directory for the images; made if it is not there
    #[arg(long, short = 'D', default_value = ".", value_name = "DIR")]
    images_dir: PathBuf,
    /// Let the tree go on instead of ending it
    #[arg(long, short = 'R')]
    leave_running: bool,
    #[command(flatten)]
    consent: Consent,
}

/// `criu-bridge restore`
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// Directory of the images
    #[arg(value_name = "DIR")]
    images_dir: PathBuf,
    /// Do not wait for the end of the tree's root; print its process id
    #[arg(long, short = 'd')]
    restore_detached: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    inherit: Inherit,
}

impl Dump {
    /// Dumps.
    ///
    /// # Errors
    /// Why not, in one line; the tree goes on then.
    pub(crate) fn run(&self, criu: &Criu) -> anyhow::Result<u8> {
        let directory = Directory::make(&self.images_dir).with_context(|| name(&self.images_dir))?;
        let options = Options {
            pid: Some(self.pid),
            leave_running: self.leave_running.then_some(true),
            ..self.consent.options()
        };
        let request = directory.options(options, "dump.log");
        Swrk::ask(criu, &[], Kind::Dump, request)?.finish(OFFLINE_DEADLINE)?;
        Ok(0)
    }
}

impl Restore {
    /// Restores, and unless detached waits for the end of the tree's root.
    ///
    /// # Errors
    /// Why not, in one line; nothing of the tree is left then.
    pub(crate) fn run(&self, criu: &Criu) -> anyhow::Result<u8> {
        let directory = Directory::open(&self.images_dir).with_context(|| name(&self.images_dir))?;
        let until = Instant::now() + RESTORE_PATIENCE;
        let answer = loop {
            match self.attempt(criu, &directory) {
                Err(error) if Instant::now() < until && error.to_string().contains("File exists") => {
                    let _ = poll(&mut [], PollTimeout::from(RESTORE_PAUSE_MS));
                }
                other => break other?,
            }
        };
        let Some(restored) = answer.restore else { bail!("criu does not say what it has restored") };
        if self.restore_detached {
            crate::say(&restored.pid.to_string());
            return Ok(0);
        }
        match waitpid(Pid::from_raw(restored.pid), None).context("waiting for the restored tree")? {
            WaitStatus::Exited(_, status) => Ok(u8::try_from(status & 0xff).unwrap_or(u8::MAX)),
            WaitStatus::Signaled(_, signal, _) => Ok(SIGNALLED.saturating_add(signal as u8)),
            _ => bail!("the restored tree did not end"),
        }
    }

    fn attempt(&self, criu: &Criu, directory: &Directory) -> Result<Response, SwrkError> {
        let options = Options {
            rst_sibling: Some(true),
            inherit_fd: self.inherit.inherit_fd.iter().map(Heir::option).collect(),
            ..self.consent.options()
        };
        let request = directory.options(options, "restore.log");
        Swrk::ask(criu, &[], Kind::Restore, request)?.finish(OFFLINE_DEADLINE)
    }
}

fn name(path: &Path) -> String {
    format!("directory '{}'", path.display())
}
