//! A command that goes on in the background once it is ready, as CRIU's `--daemon` has it.
//!
//! The command starts itself again and waits for that one to be ready; what is wrong before that is said, and is its exit
//! status, as if there were one process only.

use std::env;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};

/// The options, as CRIU has them.
#[derive(Args, Debug)]
pub(crate) struct Background {
    /// Run in the background after creating the socket
    #[arg(long, short = 'd')]
    daemon: bool,
    /// Write the process id of --daemon to this new file, in the directory of the socket
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// This is the one in the background
    #[arg(long, hide = true)]
    in_background: bool,
}

impl Background {
    /// Has another process do the work, if it is to be done in the background: its exit status if it was not ready, 0 if it is.
    /// `None` if it is to be done here.
    ///
    /// # Errors
    /// It cannot be started, or its id not be written to `directory`: then it has ended.
    pub(crate) fn leave(&self, directory: &Path) -> anyhow::Result<Option<u8>> {
        if !self.daemon || self.in_background {
            return Ok(None);
        }
        let mut command = Command::new("/proc/self/exe");
        command.args(env::args_os().skip(1)).arg("--in-background");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a process for the background")?;
        let mut word = [0];
        let said = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read(&mut word));
        if said.context("waiting for the process in the background")? == 0 {
            let status = child.wait().context("waiting for the process in the background")?;
            return Ok(Some(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(crate::FAILED)));
        }
        if let Some(name) = &self.pidfile {
            let path = directory.join(name);
            let mut options = File::options();
            let file = options.write(true).create_new(true).mode(0o600).open(&path);
            let written = file.and_then(|mut file| write!(file, "{}", child.id()));
            if let Err(error) = written {
                child.kill().and_then(|()| child.wait()).context("ending the process in the background")?;
                return Err(error).with_context(|| format!("--pidfile: writing '{}'", path.display()));
            }
        }
        Ok(Some(0))
    }

    /// Says that this process is ready, if it is the one in the background: nobody sees what it says from here on.
    ///
    /// # Errors
    /// It cannot let go of where it was started.
    pub(crate) fn stay(&self) -> anyhow::Result<()> {
        if !self.in_background {
            return Ok(());
        }
        setsid().context("leaving the terminal")?;
        let nothing =
            File::options().read(true).write(true).open("/dev/null").context("opening /dev/null")?;
        dup2_stdin(&nothing).and_then(|()| dup2_stderr(&nothing)).context("leaving the standard streams")?;
        let mut out = std::io::stdout();
        // Nobody may wait for it any more.
        let _ = out.write_all(&[0]).and_then(|()| out.flush());
        dup2_stdout(&nothing).context("leaving the standard streams")
    }
}
