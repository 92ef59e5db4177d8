//! What the steps of a move have in common: processes that end with their owner, and waits that end.

use std::fs;
use std::io;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::super::interruption;
use super::super::programs::PATIENCE;

/// How often something that comes as a file is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// A process of ours; killed with its owner.
pub(super) struct Killed(Child);

impl Killed {
    /// Starts it.
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        interruption::spawn(command).map(Self)
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    ///
    /// # Errors
    /// Those of wait(2).
    pub(super) fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait().context("looking whether a process has ended")?.is_some())
    }

    /// Waits for its end, which is to be a good one.
    ///
    /// # Errors
    /// It goes on, or has failed; `name` says who.
    pub(super) fn expect_success(&mut self, name: &str) -> anyhow::Result<()> {
        wait_for(|| self.has_ended()).with_context(|| format!("waiting for {name}"))?;
        let status = self.0.wait().with_context(|| format!("waiting for {name}"))?;
        ensure!(status.success(), "{name} has failed");
        Ok(())
    }

    /// Kills it.
    pub(super) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until something holds, which is looked at often.
///
/// # Errors
/// Those of `holds`; it does not hold for too long.
pub(super) fn wait_for(mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            bail!("nothing more comes");
        }
        thread::park_timeout(LOOK);
    }
    Ok(())
}

/// A port that nobody has taken.
///
/// # Errors
/// There is none.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Whether somebody listens on the port: connecting would use up the page server's only connection.
///
/// # Errors
/// The table of sockets cannot be read.
pub(super) fn is_listening(port: &str) -> anyhow::Result<bool> {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", port.parse::<u16>()?);
    let table = fs::read_to_string("/proc/net/tcp").context("reading /proc/net/tcp")?;
    Ok(table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(LISTEN)
    }))
}
